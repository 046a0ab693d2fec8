"""Training on recorded rollouts: the same bits as the run that recorded them, and other people's records."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import replays
from guesser import comparable
from replays import GROUP, PROMPTS, STEPS, rl_config, rows, write

from jaxpolya.config import ALGORITHMS
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.progress import Display
from jaxpolya.records import Question
from jaxpolya.rollout import replay
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.respond import Prompt
from jaxpolya.runs import pipeline
from jaxpolya.train.metrics import StepLog

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_rollouts.py"
HARD = {"algorithm": "dapo", "refills": 2, "epochs": 2, "old_logprobs": "trainer", "kl": {"weight": 0.1}, "tis": 2.0, "share_prompts": True}
"""Everything that a round may need at once."""


def equal(params, others) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True))


def measured(result) -> list[dict]:
    """The steps without how long they took."""
    return [{name: value for name, value in step.items() if name != "speed"} for step in result.steps]


# The rollouts of a run ---------------------------------------------------------------------------------------------------


NAMED = [{"algorithm": name} | ({"value": {"warmup": 1}} if name == "ppo" else {}) for name in ALGORITHMS]


@pytest.mark.parametrize("changes", [HARD, *(pytest.param(changes, marks=pytest.mark.soak) for changes in NAMED)])
def test_a_replay_ends_with_the_bits_of_the_run_that_was_recorded(changes, tiny_run, mesh1, monkeypatch):
    tree = tiny_run(arms=["rl"], export=False)
    tree["rl"] |= changes
    pipeline.run(parse_config(tree), Display(quiet=True), only="questions")
    pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    (live,) = (tiny_run.directory / "runs" / "tiny" / "stages").glob("rl-rl-*")

    def refuse(*_, **__):
        raise AssertionError("nobody is asked")

    class Killed(Exception):
        pass

    def killed(self, row):
        if row["step"] == 2:
            raise Killed
        return append(self, row)

    monkeypatch.setattr("jaxpolya.runs.session.Session.engine", refuse)
    monkeypatch.setattr("jaxpolya.rollout.rounds.respond", refuse)
    tree |= {"name": "again"}
    tree["rl"]["replay"] = str(tiny_run.directory / "runs" / "tiny")
    append = StepLog.append
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StepLog, "append", killed)
        pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    (again,) = (tiny_run.directory / "runs" / "again" / "stages").glob("rl-rl-*")
    assert again.name != live.name
    one, other = (load_checkpoint(str(stage / "model"), mesh=mesh1).params for stage in (live, again))
    assert equal(one, other)
    contents = [
        {name.split("/", 2)[2]: value for name, value in comparable(stage.parents[1]).items() if "/rl-rl-" in name}
        for stage in (live, again)
    ]
    assert contents[0] == contents[1] and {"steps.jsonl", "rollouts/000002.jsonl"} <= set(contents[0])


# Other people's ----------------------------------------------------------------------------------------------------------


def test_whatever_form_the_same_records_come_in_they_train_alike(tmp_path, mesh1):
    """With their steps or dealt out, shuffled within a round, as a file of their own each round, or as a function gives them."""
    records = rows()
    plain = [{name: value for name, value in row.items() if name != "step"} for row in records]
    named = [row | {"index": number % GROUP} for number, row in enumerate(records)]
    turned = [row for step in range(STEPS) for index in range(GROUP) for row in named[step * PROMPTS * GROUP + index :: GROUP][:PROMPTS]]
    (tmp_path / "ours").mkdir()
    for step in range(STEPS):
        write(tmp_path / "ours" / f"{step:06d}.jsonl", [row for row in records if row["step"] == step])
    (tmp_path / "own.py").write_text(
        "import sys\nimport numpy as np\nimport replays\n"
        "def rounds(step):\n"
        "    for row in replays.rows():\n"
        "        if row['step'] == step:\n"
        "            yield row | {'token_ids': np.array(row['token_ids']), 'logprobs': np.array(row['logprobs'])}\n"
    )
    forms = {
        "steps": write(tmp_path / "steps.jsonl", records),
        "dealt": write(tmp_path / "dealt.jsonl", plain),
        "turned": write(tmp_path / "turned.jsonl", turned),
        "ours": str(tmp_path / "ours"),
        "function": f"{tmp_path / 'own.py'}:rounds",
    }
    results = {name: replays.train(rl_config(form), tmp_path / name, mesh1) for name, form in forms.items()}
    first = results["steps"]
    assert all(step["grad_norm"] > 0 and step["reward"] == 0.5 and "sampler_kl" in step for step in first.steps)
    for name, result in results.items():
        assert equal(result.params, first.params), name
        assert measured(result) == measured(first), name


def test_log_probs_may_be_missing_where_the_trainer_computes_them(tmp_path, mesh1):
    config = rl_config(write(tmp_path / "a.jsonl", rows(logprobs=False)), old_logprobs="trainer")
    steps = replays.train(config, tmp_path / "rl", mesh1).steps
    assert all("sampler_kl" not in step and step["grad_norm"] > 0 for step in steps)
    with_them = replays.train(rl_config(write(tmp_path / "b.jsonl", rows()), old_logprobs="trainer"), tmp_path / "other", mesh1).steps
    assert [step["loss"] for step in steps] == [step["loss"] for step in with_them]


def test_a_prompt_may_be_tokens_a_text_or_a_question(tmp_path):
    question = Prompt(Question(id="q", question="?", answer="1"), "4 5", (4, 5))
    tokens = {"token_ids": [1, 2], "logprobs": [-1.0, -1.0], "verdict": "correct"}
    asked = [{"prompt_ids": [7, 8]}, {"prompt": "8 9"}, {"question_id": "q"}, {"question_id": "x", "prompt": "3", "response": "1"}]
    file = write(tmp_path / "a.jsonl", [row | tokens for row in asked for _ in range(GROUP)])
    config = rl_config(file, steps=1)
    with Display(quiet=True).task("rl", 0) as task:
        settings = {"arm": "rl", "directory": tmp_path, "task": task, "refills": 0}
        drawn = replay.RecordedRounds(config, open_recording(config, "rl"), replays.MODEL, [question], **settings).draw(0, {}, 0)
    assert [prompt.ids for prompt in drawn.prompts] == [(7, 8), (8, 9), (4, 5), (3,)]
    assert drawn.prompts[2] is question and [drawn.samples[i * GROUP].verdict for i in range(4)] == [None, None, "correct", None]
    assert {sample.reward for sample in drawn.samples} == {1.0, None}
    assert [sample.response for sample in drawn.samples[::GROUP]] == ["1 2", "1 2", "1 2", "1"]


BAD = {
    "another tokenizer by its ids": ({"token_ids": [5, 97]}, "recorded with another tokenizer: token_ids holds 97, .* 0 to 96"),
    "by a prompt's": ({"prompt_ids": [-1]}, "recorded with another tokenizer: prompt_ids holds -1"),
    "by its text": (
        {"response": "12 13"},
        "recorded with another tokenizer: in this model's its tokens say .*, and its response is '12 13'",
    ),
    "no tokens": ({"token_ids": []}, "token_ids is empty"),
    "texts for tokens": ({"token_ids": ["a"]}, "token_ids is no list of token ids"),
    "too few log-probs": ({"logprobs": [-1.0]}, r"it has 1 logprobs for \d tokens"),
    "chances for log-probs": ({"token_ids": [1, 2], "logprobs": [0.5, 0.1]}, "logprobs holds 0.5; they are natural logs"),
    "none at all": ({"logprobs": None}, "it has no logprobs; set rl.old_logprobs to trainer"),
    "too long": ({"token_ids": [1] * 9}, r"the response has 9 tokens; raise rl.sampling.max_new_tokens \(8\)"),
    "a long prompt": ({"prompt_ids": [1] * 31}, "rl.batching.row_tokens is 32; raise it"),
    "a misspelt field": ({"logprob": [1]}, "a rollout has no field logprob; did you mean logprobs?"),
    "no reward": ({"reward": "good"}, "reward is 'good', and a number was expected"),
    "an unknown verdict": ({"verdict": "right"}, "verdict is 'right', and not one of correct"),
    "an unknown end": ({"finish": "eos"}, "finish is 'eos', and not one of stop, length"),
    "no prompt": ({"prompt_ids": None}, "it says nothing of its prompt"),
    "no such question": ({"prompt_ids": None, "question_id": "q9"}, "its question_id is that of none of rl.questions"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_record_that_doesnt_fit_is_named(what, tmp_path, mesh1):
    change, message = BAD[what]
    records = rows(steps=1)
    file = write(tmp_path / "a.jsonl", [row | change for row in records[:GROUP]] + records[GROUP:])
    with pytest.raises(InputError, match=rf"a\.jsonl:1: .*{message}"):
        replays.train(rl_config(file, steps=1), tmp_path / "rl", mesh1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"group": 2}, InputError, r"a\.jsonl:1: this prompt has 4 responses in its round, and rl\.group is 2"),
        ({"prompts": 2}, InputError, r"a\.jsonl, round 0: it holds the responses to 4 prompts, and rl\.prompts is 2"),
        ({"prompts": 8, "updates": 1}, InputError, r"holds the responses to 4 prompts, and rl\.prompts is 8"),
        ({"steps": 3}, ConfigError, r"a\.jsonl holds 2 rounds, and rl\.steps is 3; lower it"),
        ({"replay": "nowhere"}, InputError, r"rl\.replay: nowhere isn't there"),
        ({"replay": "nowhere.py:rounds"}, ConfigError, r"rl\.replay: .*nowhere\.py is not a file"),
    ],
)
def test_a_recording_that_doesnt_fit_is_named_beforehand(changes, error, message, tmp_path):
    config = rl_config(write(tmp_path / "a.jsonl", rows()))
    config = rl_config(config.replay, **changes) if "replay" not in changes else rl_config(**changes)
    with pytest.raises(error, match=message):
        replay.check_recording(config, open_recording(config, "rl"), replays.MODEL, 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (lambda made: [*made[:3], {k: v for k, v in made[3].items() if k != "step"}], r"a\.jsonl:4: some records have a step and some"),
        (lambda made: [row for row in made if row["step"] == 1], r"has round 1 and no round 0; rounds count from 0"),
        (
            lambda made: [{k: v for k, v in row.items() if k != "step"} for row in made[:-1]],
            r"31 records are no whole number of rounds .*\(16\)",
        ),
        (lambda made: [row | {"step": "one"} for row in made], r"a\.jsonl:1: step is 'one'"),
    ],
)
def test_a_file_whose_rounds_cant_be_told_is_named(lines, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_recording(rl_config(write(tmp_path / "a.jsonl", lines(rows()))), "rl")


def test_a_stage_is_known_by_what_was_recorded(tmp_path):
    records = rows()
    first = open_recording(rl_config(write(tmp_path / "a.jsonl", records)), "rl").identity
    assert open_recording(rl_config(write(tmp_path / "b.jsonl", records)), "rl").identity == first
    records[0] |= {"reward": 1.0}
    assert open_recording(rl_config(write(tmp_path / "b.jsonl", records)), "rl").identity != first


def test_a_run_gives_each_arm_the_rollouts_of_its_own_stage(tmp_path):
    for stage in ("rl-rl-0a", "rl-star-rl-1b", "rl-star-rl-2c"):
        (tmp_path / "stages" / stage / "rollouts").mkdir(parents=True)
        for step in range(STEPS):
            write(tmp_path / "stages" / stage / "rollouts" / f"{step:06d}.jsonl", rows()[:16])
    config = rl_config(str(tmp_path))
    assert open_recording(config, "rl").name.endswith("rl-rl-0a/rollouts")
    with pytest.raises(InputError, match=r"has 2 RL stages of the arm star-rl; name one \(there are: .*1b, .*2c\)"):
        open_recording(config, "star-rl")
    with pytest.raises(InputError, match=r"has 0 RL stages of the arm polya-rl; name one \(there are: .*rl-rl-0a"):
        open_recording(config, "polya-rl")
    assert open_recording(rl_config(str(tmp_path / "stages" / "rl-star-rl-2c")), "polya-rl").rounds == STEPS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def rounds(): pass", r"own\.py:rounds takes \(\), and \(step\) was expected"),
        ("def rounds(step): return 1 / step", r"own\.py:rounds, step 0: ZeroDivisionError: division by zero \(.*own\.py:1\)"),
        ("def rounds(step): return [step]", r"own\.py:rounds, step 0: record 0 is of type int"),
        ("def rounds(step): return []", "there are no records|holds the responses to 0 prompts"),
    ],
)
def test_a_function_that_gives_no_records_is_named(text, message, tmp_path):
    (tmp_path / "own.py").write_text(text)
    config = rl_config(f"{tmp_path / 'own.py'}:rounds")
    with pytest.raises((ConfigError, InputError), match=message):
        replay.check_recording(config, open_recording(config, "rl"), replays.MODEL, 0)


def test_the_example_gives_rounds(tiny_run):
    """Somebody else's rollouts through a whole run, on the tokens that the example makes of texts."""
    tree = tiny_run(arms=["rl"], export=False)
    tree["rl"] |= {"replay": f"{EXAMPLE}:rounds", "old_logprobs": "trainer", "group": 2, "prompts": 2, "steps": 2}
    pipeline.run(parse_config(tree), Display(quiet=True))
    (stage,) = (tiny_run.directory / "runs" / "tiny" / "stages").glob("rl-rl-*")
    steps = [json.loads(line) for line in (stage / "steps.jsonl").read_text().splitlines()]
    assert [step["reward"] for step in steps] == [0.5, 0.5] and all(step["grad_norm"] > 0 for step in steps)
    identity = json.loads((stage / "manifest.json").read_text())["identity"]
    assert identity["replay"][0] == "rounds" and "replay" not in identity["rl"]
