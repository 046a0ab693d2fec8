"""The Python interface step by step, on dictionaries of one's own: each alone, and a model handed from one to the next in memory."""

import ast
import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import jaxpolya
from jaxpolya.config import VerifyConfig
from jaxpolya.errors import ConfigError, InputError, RunError

ONE = VerifyConfig(workers=1)
SHORT = {"max_new_tokens": 16, "verify": ONE, "rows": 16, "quiet": True}
SUMS = [{"question": f"What is {a} + {b}?", "answer": a + b} for a, b in ((1, 2), (3, 4), (2, 6), (5, 1), (0, 9), (4, 4))]


@pytest.fixture(scope="module")
def model(guesser, mesh1):
    return jaxpolya.load(guesser, mesh=mesh1)


@pytest.fixture(scope="module")
def samples(model, catalogue):
    heuristics = ["analogy", "symmetry"]
    return jaxpolya.generate(model, SUMS, samples=3, heuristics=heuristics, exemplars=0, catalogue=catalogue, **SHORT)


def same(params, others) -> bool:
    import jax

    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True))


def test_generate_gives_judged_samples(model, samples):
    assert len(samples) == len(SUMS) * 2 * 3 and {sample.heuristic for sample in samples} == {"analogy", "symmetry"}
    assert {sample.verdict for sample in samples} >= {"correct", "wrong"}
    assert len({sample.id for sample in samples}) == len(samples)


def test_the_steps_hand_a_model_on(model, samples, catalogue, tmp_path):
    before = model.checkpoint.params
    rows = jaxpolya.select(model, samples, SUMS, n=2, catalogue=catalogue)
    assert rows and all("similar" not in row.prompt and row.prompt_ids for row in rows)
    looks = {"questions": SUMS[:2], "sampling": {"max_new_tokens": 16}, "samples": 4, "greedy": False, "every": 1}
    by_loss = looks | {"metric": "heldout_loss"}
    tuned = jaxpolya.sft(model, rows, learning_rate=1e-3, epochs=2, heldout=0.3, validation=by_loss, verify=ONE, quiet=True)
    assert tuned.stats["steps"] == len(tuned.steps) and tuned.stats["heldout_first"] is not None
    losses = tuned.stats["validation"]["looks"]
    assert len(losses) == len(tuned.steps) and tuned.stats["validation"]["kept"] == min(losses, key=losses.__getitem__)
    asked = {"steps": 2, "prompts": 2, "group": 4, "learning_rate": 1e-3, "evaluate_at": [1, 2], "share_prompts": True} | SHORT
    trained = jaxpolya.rl(tuned.model, SUMS, validation=looks | {"keep": "last"}, directory=tmp_path / "rl", **asked)
    assert set(trained.stats["validation"]["looks"]) == set(trained.doses) == {1, 2} and trained.doses[2] is trained.model
    replayed = jaxpolya.rl(tuned.model, SUMS, replay=tmp_path / "rl", **asked)
    for one, other in ((replayed.model, trained.model), (replayed.doses[1], trained.doses[1])):
        assert same(one.checkpoint.params, other.checkpoint.params), "the recorded rollouts train what they trained"
    assert not same(trained.doses[1].checkpoint.params, trained.model.checkpoint.params)
    assert [step["step"] for step in trained.steps] == [0, 1] and len(list((tmp_path / "rl/rollouts").glob("*.jsonl"))) == 2
    assert same(before, model.checkpoint.params), "the model that was started from is as it was"
    assert not same(before, tuned.model.checkpoint.params) and not same(tuned.model.checkpoint.params, trained.model.checkpoint.params)
    first, last = (jaxpolya.evaluate(one, SUMS, samples=4, greedy=one is model, bootstrap=50, **SHORT) for one in (model, trained.model))
    assert sorted(first.measures.pass_) == [1, 2, 3, 4] and first.measures.greedy and first.measures.majority
    assert last.versus(first)["1"].mean == pytest.approx(last.measures.pass_[1].mean - first.measures.pass_[1].mean)
    written = jaxpolya.export(trained.model, tmp_path / "out")
    again = jaxpolya.load(written, mesh=model.mesh)
    assert same(again.checkpoint.params, trained.model.checkpoint.params)
    with pytest.raises(InputError, match="holds something already"):
        jaxpolya.rl(model, SUMS, steps=1, prompts=2, directory=tmp_path / "rl", **SHORT)


def test_a_call_that_was_cut_short_goes_on(model, catalogue, tmp_path):
    out = tmp_path / "samples.jsonl"
    asked = {"samples": 3, "heuristics": ["analogy"], "exemplars": 0, "catalogue": catalogue, "out": out, **SHORT}
    whole = jaxpolya.generate(model, SUMS, **asked)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    again = jaxpolya.generate(model, SUMS, **asked)
    assert [dataclasses.replace(sample, seconds=None) for sample in again] == [
        dataclasses.replace(sample, seconds=None) for sample in whole
    ]


def test_records_of_all_kinds_are_questions():
    from jaxpolya.api.questions import as_questions

    choice = {"question": "Which?", "answer": "blue", "choices": ["red", "blue"]}
    records = as_questions([SUMS[0], choice, jaxpolya.Question(id="x", question="1 + 1?", answer="2")], "rl")
    assert [(question.id, question.answer, question.verifier) for question in records] == [
        ("record-0", "3", "math"), ("record-1", "B", "choice"), ("x", "2", "math")
    ]  # fmt: skip


def test_pairs_of_question_and_response_are_learned(model):
    trained = jaxpolya.sft(model, [{"question": "What is 1 + 2?", "response": "The answer is \\boxed{3}."}], learning_rate=1e-3, quiet=True)
    assert trained.stats["rows"] == 1 and trained.stats["steps"] == 1


def test_adapters_are_merged_into_what_is_given(model):
    rows, lora = [{"question": "What is 1 + 2?", "response": "The answer is \\boxed{3}."}], {"rank": 2, "targets": ["v_proj"]}
    before = model.checkpoint.params
    tuned = jaxpolya.sft(model, rows, learning_rate=1e-3, lora=lora, quiet=True).model.checkpoint.params
    changed = {name for name, leaf in before["blocks"].items() if not np.array_equal(leaf, tuned["blocks"][name])}
    assert changed == {"v"} and tuned["blocks"].keys() == before["blocks"].keys() and np.array_equal(before["embed"], tuned["embed"])


QUESTION = {"question": "1 + 1?", "answer": "2"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: jaxpolya.generate(model, [], **SHORT), "^generate: there is no record"),
        (lambda model: jaxpolya.generate(model, QUESTION, **SHORT), "^generate: a list of records is needed"),
        (lambda model: jaxpolya.generate(model, ["1 + 1?"], **SHORT), "^generate, record 0: a dictionary with question and answer"),
        (lambda model: jaxpolya.rl(model, [{"question": "1 + 1?"}], steps=1, **SHORT), "^rl, record 0: there is no column 'answer'"),
        (lambda model: jaxpolya.evaluate(model, [QUESTION | {"answer": ""}], **SHORT), "^evaluate, record 0: empty answer"),
        (lambda model: jaxpolya.evaluate(model, [QUESTION | {"id": 7}] * 2, **SHORT), "^evaluate: 2 questions have the id '7'"),
        (lambda model: jaxpolya.sft(model, [{"question": "1 + 1?"}], quiet=True), "^sft, record 0: a dictionary with the texts"),
        (lambda model: jaxpolya.select(model, [], [QUESTION]), "^the selected arm has nothing to learn from"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, prompts=1, gruop=4, **SHORT), "^rl: gruop: no such key; did you mean g"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, **SHORT), r"^rl.prompts \(8\) is larger than the number of RL questions"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, algorithm="grop", **SHORT), "did you mean grpo"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, evaluate_at=[2], **SHORT), r"evaluate_at \(\[2\]\) must be steps in rising"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, validation=[QUESTION], **SHORT), "^rl.validation: a dictionary with `quest"),
        (lambda model: jaxpolya.rl(model, [], steps=1, replay="nowhere", **SHORT), "^rl: without questions nothing says how long a row"),
        (lambda model: jaxpolya.rl(model, [QUESTION], steps=1, prompts=1, replay="nowhere", **SHORT), "^rl.replay: nowhere isn't there"),
        (lambda model: jaxpolya.generate(model, [QUESTION], heuristics=["analgy"], **SHORT), "did you mean analogy"),
        (lambda model: jaxpolya.generate(model, [QUESTION], **SHORT | {"max_new_tokens": 128}), "leaves no room for a prompt"),
        (lambda model: jaxpolya.evaluate(model, [QUESTION], samples=0, **SHORT), "^evaluate: samples: "),
        (lambda model: jaxpolya.sft(model, [QUESTION | {"response": "x"}], learning_rate=-1, quiet=True), "^sft: optimizer.learning_rate"),
        (lambda model: jaxpolya.export(model, "x", dtype="bf16"), "^export: dtype 'bf16' is not bfloat16"),
        (lambda model: jaxpolya.load("nowhere", arm="rl"), "^load: nowhere is not a run directory, so it has no arm rl"),
    ],
)  # fmt: skip
def test_misuse_is_one_sentence(model, call, says):
    with pytest.raises((ConfigError, InputError, RunError), match=says):
        call(model)


@pytest.mark.soak
def test_the_readme_s_lines_run(monkeypatch, tmp_path):
    root = Path(__file__).resolve().parents[1]
    if not (root / "weights/SmolLM2-135M-Instruct.Q4_1.gguf").exists():
        pytest.skip("the quickstart's weights are not there: make weights")
    lines = (root / "README.md").read_text(encoding="utf-8").split("```python\n")[1].partition("```")[0]
    monkeypatch.chdir(root)
    exec(compile(lines.replace('"my-model"', repr(str(tmp_path / "my-model"))), "README.md", "exec"), {})
    assert (tmp_path / "my-model/model.safetensors").exists()


def test_the_readme_s_calls_are_the_functions_own(model):
    lines = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8").split("```python\n")[1].partition("```")[0]
    called = [node for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    owners = {"jaxpolya": jaxpolya, "model": model}
    called = [call for call in called if ast.unparse(call.func.value) in owners]
    for call in called:
        owner = owners[ast.unparse(call.func.value)]
        inspect.signature(getattr(owner, call.func.attr)).bind(*call.args, **{word.arg: word.value for word in call.keywords})
    assert {"load", "generate", "sft", "rl", "evaluate", "export"} <= {call.func.attr for call in called}


def test_json_of_what_comes_out(samples):
    json.dumps([sample.to_json() for sample in samples], allow_nan=False)
