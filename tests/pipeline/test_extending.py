"""Files that users write, through whole runs: only their names stand in a configuration."""

import json
from pathlib import Path

import pytest

from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample, read_records
from jaxpolya.runs import pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(tree):
    return pipeline.run(parse_config(tree), Display(quiet=True))


def stages(tiny_run) -> dict[str, list[Path]]:
    """Stage directories by their names, in the order in which they were made."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted((tiny_run.directory / "runs" / "tiny" / "stages").iterdir(), key=lambda path: path.stat().st_ctime):
        by_name.setdefault(path.name.rsplit("-", 1)[0], []).append(path)
    return by_name


def estimated(count: int, seed: int, verifier: str) -> list[dict]:
    arguments = {"below": 10, "seed": seed}
    source = f"{EXAMPLES / 'random_sums.py'}:sums"
    return [{"kind": "python", "source": source, "arguments": arguments, "limit": count, "verifier": verifier}]


def with_estimates(tiny_run, verifier: str = f"{EXAMPLES / 'estimates.py'}:Estimate", **changes) -> dict:
    """The tiny run on questions from the example's source, which the example's kind judges."""
    tree = tiny_run(arms=["polya+rl"], **changes)
    for number, use in enumerate(("generate", "rl")):
        tree[use]["questions"] = estimated(16, number, verifier)
    tree["eval"]["questions"] = {"sums": estimated(8, 2, verifier)}
    return tree


def test_a_kind_and_a_source_of_ones_own_go_through_every_phase(tiny_run):
    results = run(with_estimates(tiny_run))
    made = {name: paths[0] for name, paths in stages(tiny_run).items()}
    questions = read_records(made["questions-rl"] / "questions.jsonl", Question)
    assert len(questions) == 16 and {question.verifier.partition("@")[0] for question in questions} == {"Estimate"}
    judged = {name: read_records(made[name] / "samples.jsonl", Sample) for name in ("generate-polya", "eval-polya-rl-sums")}
    judged["rl-polya-rl"] = read_records(made["rl-polya-rl"] / "rollouts" / "000000.jsonl", Sample)
    for samples in judged.values():
        assert all('End with "Estimate:" and one number.' in sample.prompt for sample in samples)
        assert {sample.verdict for sample in samples} <= {"correct", "wrong", "unparseable"}
        assert all((sample.score == 1) == (sample.verdict == "correct") for sample in samples)
    card = (tiny_run.directory / "runs" / "tiny" / "export" / "README.md").read_text()
    assert "`random_sums.py:sums` (python, " in card and "verifier estimates.py:Estimate" in card
    assert any(0 < sample.score < 1 for samples in judged.values() for sample in samples if sample.score is not None)
    assert results.audit["eval-polya-rl-sums"].all.responses == 32
    identity = json.loads((made["questions-rl"] / "manifest.json").read_text())["identity"]["sources"][0]
    assert (identity["source"][0], identity["verifier"][0], identity["arguments"]) == ("sums", "Estimate", {"below": 10, "seed": 1})
    assert run(with_estimates(tiny_run)) == results and all(len(paths) == 1 for paths in stages(tiny_run).values())


def test_a_file_that_was_edited_gives_other_stages(tiny_run, tmp_path):
    own = tmp_path / "own.py"
    own.write_text((EXAMPLES / "estimates.py").read_text())
    tree = with_estimates(tiny_run, f"{own}:Estimate")
    pipeline.run(parse_config(tree | {"arms": ["base"]}), Display(quiet=True))
    moved = tmp_path / "moved" / "mine.py"
    moved.parent.mkdir()
    own.rename(moved)
    with pytest.raises(ConfigError, match=r"^eval\.questions\.sums\.0\.verifier: .*own\.py is not a file"):
        run(tree | {"arms": ["base"]})
    run(with_estimates(tiny_run, f"{moved}:Estimate") | {"arms": ["base"]})
    assert {name: len(paths) for name, paths in stages(tiny_run).items()} == {
        "questions-eval-sums": 1,
        "eval-base-sums": 1,
        "labels-base-sums": 1,
    }
    moved.write_text(moved.read_text() + "# edited\n")
    run(with_estimates(tiny_run, f"{moved}:Estimate") | {"arms": ["base"]})
    assert {name: len(paths) for name, paths in stages(tiny_run).items()} == {
        "questions-eval-sums": 2,
        "eval-base-sums": 2,
        "labels-base-sums": 1,
    }


def test_a_reward_of_ones_own_is_what_rl_learns_from(tiny_run):
    """Real-valued rewards: recorded as they were paid, compared in groups as they are, and audited."""
    tree = tiny_run(arms=["rl"], export=False)
    tree["rl"] |= {"reward": f"{EXAMPLES / 'shaped_reward.py'}:shaped", "algorithm": "dapo", "refills": 1, "overlong_buffer": 0, "steps": 2}
    run(tree)
    ((stage,),) = (paths for name, paths in stages(tiny_run).items() if name == "rl-rl")
    steps = [json.loads(line) for line in (stage / "steps.jsonl").read_text().splitlines()]
    for step in steps:
        samples = read_records(stage / "rollouts" / f"{step['step']:06d}.jsonl", Sample)
        for sample in samples:
            box = 0.1 if "\\boxed{" in sample.response and sample.finish == "stop" else 0.0
            assert sample.reward == pytest.approx((sample.verdict == "correct") + box - 0.0002 * len(sample.token_ids))
        assert step["reward"] == pytest.approx(sum(sample.reward for sample in samples) / len(samples))
        assert step["correct"] == sum(sample.verdict == "correct" for sample in samples) / len(samples)
        groups = [[sample for sample in samples if sample.question_id == name] for name in {sample.question_id for sample in samples}]
        silent = [group for group in groups if len({sample.reward for sample in group}) == 1]
        assert step["no_signal"] == len(silent) / len(groups)
        for group in groups:
            best = max(group, key=lambda sample: sample.reward)
            assert best.advantage == max(sample.advantage for sample in group) and (best.advantage > 0 or group in silent)
        assert step["audit"]["inverted"] == 0, "what is right is always paid more here"
    identity = json.loads((stage / "manifest.json").read_text())["identity"]["rl"]["reward"]
    assert identity[0] == "shaped" and len(identity[1]) == 64


def test_a_reward_that_fails_is_known_before_a_weight_is_loaded(tiny_run, tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text("def needs(question): return question.entry['level']\ndef arity(question, answer): return 1\n")
    monkeypatch.setattr("jaxpolya.runs.session.load_checkpoint", lambda *args, **kwargs: pytest.fail("a weight was loaded"))
    for attribute, message in (
        ("needs", "tried on the question .* raised TypeError"),
        ("arity", "has the parameter answer"),
        ("gone", "has no gone"),
    ):
        tree = tiny_run(arms=["rl"], export=False)
        tree["rl"]["reward"] = f"{own}:{attribute}"
        with pytest.raises(ConfigError, match=rf"^rl\.reward: .*{message}"):
            run(tree)
