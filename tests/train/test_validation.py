"""Looks at a training: which model is kept, when it ends, and that a resumed one decides alike."""

import json
import shutil

import jax
import numpy as np
import pytest
from guesser import comparable, questions

from jaxpolya.config import MeshConfig, ValidationConfig
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.progress import Display
from jaxpolya.records import dump
from jaxpolya.runs import pipeline
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.validation import ROW, Validation


class Snapshots:
    """Models on no disk."""

    def __init__(self):
        self.there, self.saved = {}, []

    def save(self, step, params):
        self.there[step] = params
        self.saved.append(step)

    def keep_only(self, steps):
        self.there = {step: model for step, model in self.there.items() if step in steps}


def config(**changes) -> ValidationConfig:
    tree = {"questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": {"max_new_tokens": 8}, "every": 2} | changes
    return ValidationConfig.model_validate(tree)


def looked(values, last=None, whole=(), **changes):
    """A validation after looks of these values at every second step; `whole` are steps of checkpoints."""
    kept = Snapshots()
    metric = changes.get("metric", "pass@1")
    validation = Validation(config(**changes), lambda done, params: {metric: values[done // 2 - 1]}, kept)
    rows, last = [], last or 2 * len(values)
    for done in range(1, last + 1):
        if validation.due(done, last):
            validation.look(done, f"model {done}")
        rows.append({"step": done - 1, **({ROW: {metric: validation.looks[done]}} if done in validation.looks else {})})
        if validation.stops:
            break
        if done in whole:
            validation.saving(done)
    return validation, kept, rows


def test_the_first_of_the_best_is_kept():
    validation, kept, _ = looked([0.1, 0.4, 0.4, 0.2])
    assert validation.best == 4 and kept.saved == [2, 4] and not validation.stops
    assert looked([0.9, 0.4, 0.4], metric="heldout_loss")[0].best == 4
    assert looked([0.1, 0.4], keep="last")[1].saved == []
    assert [done for done in range(1, 6) if validation.due(done, 5)] == [2, 4, 5]


def test_patience_ends_a_training():
    validation, _, rows = looked([0.1, 0.4, 0.3, 0.4, 0.9], patience=2)
    assert validation.stops and len(rows) == 8 and validation.best == 4
    assert not looked([0.1, 0.2, 0.3, 0.4], patience=1)[0].stops


def test_what_was_best_goes_when_a_checkpoint_has_passed_its_successor():
    """Killed at any time, the newest whole checkpoint finds the model that was best by its step."""
    _, kept, _ = looked([0.1, 0.2, 0.3, 0.4], whole=(2, 4, 6))
    # The checkpoint of 6 may not be whole yet; the one of 4 is, and 4 was best then.
    assert sorted(kept.there) == [4, 6, 8]
    assert sorted(looked([0.1, 0.2, 0.3, 0.4])[1].there) == [2, 4, 6, 8], "without a checkpoint nothing may go"


def test_a_resumed_training_decides_alike():
    values = [0.1, 0.4, 0.3, 0.2, 0.1]
    whole, _, rows = looked(values, patience=3)
    for done in range(len(rows)):
        later = Validation(config(patience=3), lambda *_: {}, Snapshots())
        later.resume(rows[:done])
        assert later.looks == {step: value for step, value in whole.looks.items() if step <= done}
        assert later.stops == (done >= 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "greedy", "greedy": False}, "greedy is off"),
        ({"metric": "pass@8"}, r"k must be a power of two up to samples \(4\)"),
        ({"metric": "pass@3"}, "k must be a power of two"),
        ({"metric": "accuracy"}, "metric"),
    ],
)
def test_a_metric_that_is_not_measured_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)
    assert config(metric="pass@3", samples=3).metric == "pass@3"


@pytest.fixture
def validated(tiny_run):
    """A run whose validation asks sums that no other set asks."""
    known = {question.id for use, count in ((1, 16), (2, 12), (3, 10)) for question in questions(count, use)}
    fresh = [question for question in questions(55, 0) if question.id not in known][:5]
    (tiny_run.directory / "validation.jsonl").write_text("".join(dump(question) for question in fresh))

    def tree(**changes):
        made = tiny_run(arms=["star+rl"], export=False, verify={"workers": 1, "deadline": 120})
        looks = {"questions": [{"kind": "jsonl", "path": str(tiny_run.directory / "validation.jsonl")}], "sampling": {"max_new_tokens": 16}}
        looks |= {"every": 1, "samples": 2, "greedy": False}
        made["rl"] |= {"validation": looks | changes, "optimizer": {"learning_rate": 3e-3}, "drift": ["start", "base"]}
        made["sft"] |= {"validation": looks | {"metric": "heldout_loss", "every": 100}}
        made["eval"] |= {"samples": 1, "composition": "none"}
        return made

    tree.directory = tiny_run.directory
    return tree


ADAPTERS = {"lora": {"rank": 2}, "algorithm": "ppo", "value": {"warmup": 1}}


@pytest.mark.parametrize("trained", [{}, pytest.param(ADAPTERS, marks=pytest.mark.soak)], ids=["all", "adapters and a value head"])
def test_a_validated_run_leaves_its_best_model_over_kills(validated, monkeypatch, trained):
    """Which look is best is given to it, so that the best isn't the last; everything else is real."""
    figures = {1: 0.2, 2: 0.9, 3: 0.5}
    look = Validation.look

    def told(self, done, params, more=None):
        self._ask, ask = (lambda step, p: {**ask(step, p), "pass@1": figures.get(step, 0.0)}), self._ask
        try:
            return look(self, done, params, more)
        finally:
            self._ask = ask

    monkeypatch.setattr(Validation, "look", told)
    tree = validated()
    tree["rl"] |= trained
    results = pipeline.run(parse_config(tree), Display(quiet=True))
    directory = validated.directory / "runs" / "tiny"
    (rl,) = directory.glob("stages/rl-star-rl-*")
    entry = results.arms["star+rl"]
    assert entry.rl.validation.model_dump() == {
        "metric": "pass@1", "kept": 2, "best": 2, "last": 3, "stopped": False, "looks": figures,
    }  # fmt: skip
    assert entry.sft.validation.metric == "heldout_loss" and list(entry.sft.validation.looks) == [entry.sft.steps]
    report = (directory / "report.md").read_text()
    assert "which model each training left" in report and "| star+rl, rl | pass@1 | 2 | 3 | 0.200 | 0.900 | 0.500 |" in report
    assert not list(rl.glob("models/*")), "the best is the stage's model; what it was taken from has gone"
    assert sorted(path.name for path in (rl / "validation").iterdir()) == [f"{step:06d}-sampled.jsonl" for step in (1, 2, 3)]
    rows = [json.loads(line) for line in (rl / "steps.jsonl").read_text().splitlines()]
    assert set(rows[0][ROW]) == {"pass@1", "pass@2", "length"} and 0 <= rows[0][ROW]["pass@2"] <= 1
    assert rows[0]["kl_start"] < 1e-8 < rows[-1]["kl_start"] and all(row["kl_base"] > 1e-5 for row in rows), "two models, not one"
    # Killed in its third step, and again while the model of the best is put in its place.
    known = comparable(directory)
    model = load_checkpoint(rl / "model", mesh=make_mesh(MeshConfig(), jax.devices()[:1])).params
    append = StepLog.append

    def killed(log, row):
        if row["step"] == 2:
            raise KeyboardInterrupt
        append(log, row)

    shutil.rmtree(rl)
    for patched in (
        (StepLog, "append", killed),
        ("jaxpolya.runs.validate.ModelSnapshots", "make_final", lambda *_: killed(None, {"step": 2})),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            target = patched[:2] if not isinstance(patched[0], str) else (f"{patched[0]}.{patched[1]}",)
            patch.setattr(*target, patched[2])
            pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    assert comparable(directory) == known
    jax.tree.map(
        np.testing.assert_array_equal, model, load_checkpoint(rl / "model", mesh=make_mesh(MeshConfig(), jax.devices()[:1])).params
    )


def test_questions_that_are_evaluated_on_are_refused(validated):
    tree = validated()
    tree["rl"]["validation"]["questions"] = tree["eval"]["questions"]["sums"]
    with pytest.raises(InputError, match=r"rl\.validation: 10 of its 10 questions are asked by an evaluation set too, such as .*\(sums: "):
        pipeline.run(parse_config(tree), Display(quiet=True), only="questions")


def test_a_kind_that_only_a_validation_has_is_tried_before_anybody_is_asked(validated, tmp_path):
    own, tree = tmp_path / "own.py", validated()
    own.write_text("def mine(question, answer): return None\n")
    for source in tree["rl"]["validation"]["questions"]:
        source["verifier"] = f"{own}:mine"
    with pytest.raises(ConfigError, match=r"verifier: tried on the question .*own\.py:mine: .*NoneType"):
        pipeline.run(parse_config(tree), Display(quiet=True), only="questions")


def test_what_cant_go_together_is_refused(validated):
    for use, changes, message in (
        ("rl", {"metric": "heldout_loss"}, "heldout_loss is a fine-tuning's"),
        ("rl", {"patience": 1}, "may not come to"),
    ):
        tree = validated(**changes)
        tree[use]["evaluate_at"] = [2]
        with pytest.raises(ConfigError, match=message):
            parse_config(tree)
    tree = validated()
    tree["rl"]["evaluate_at"] = [2, 3]
    assert parse_config(tree).rl.doses == [2, 3], "the arm's own model is the best one, which the last needn't be"
