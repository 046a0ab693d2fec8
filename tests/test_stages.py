"""What a stage is known by: all that changes its result, and nothing else."""

import os
from pathlib import Path
from typing import Annotated

import pytest

from jaxpolya.config import HOW, LATER, Batching, HubSource, JsonlSource, LeftOut, Optimizer, SftConfig, Strict, TfdsSource
from jaxpolya.config.file import parse_config
from jaxpolya.errors import InputError
from jaxpolya.files import file_digest
from jaxpolya.records import Sample
from jaxpolya.runs import configurations
from jaxpolya.runs.identity import samples_digest, source_identity, stage_fields
from jaxpolya.runs.stages import RunDirectory

ROW = '{"question": "1 + 1?", "answer": "2"}\n'


def at(kind: str, path):
    if kind == "jsonl":
        path.mkdir()
        (path / "q.jsonl").write_text(ROW)
        return JsonlSource(kind="jsonl", path=path / "q.jsonl")
    (path / "deeper").mkdir(parents=True)
    (path / "deeper" / "q.jsonl").write_text(ROW)
    return HubSource(kind="hub", name=str(path)) if kind == "hub" else TfdsSource(kind="tfds", name=str(path))


@pytest.mark.parametrize("kind", ["jsonl", "hub", "tfds"])
def test_local_questions_are_known_by_their_content(kind, tmp_path):
    here, there = at(kind, tmp_path / "a" / "set" if kind != "jsonl" else tmp_path / "a"), at(kind, tmp_path / "set")
    before = source_identity(here)
    assert before == source_identity(there), "the same content elsewhere is the same"
    next(tmp_path.glob("set/**/q.jsonl")).write_text(ROW.replace("1 + 1", "1 + 2"))
    assert source_identity(there) != before
    assert source_identity(here) == before


def test_a_model_file_is_hashed_once_for_all_seeds_and_anew_when_it_changed(tmp_path, monkeypatch):
    model, hashed = tmp_path / "model.gguf", []
    monkeypatch.setattr(configurations, "file_digest", lambda path: hashed.append(path) or file_digest(path))
    questions = {"sums": [{"kind": "reasoning_gym", "name": "chain_sum", "size": 1}]}
    tree = {
        "name": "x",
        "model": {"source": str(model)},
        "arms": ["base"],
        "eval": {"questions": questions, "sampling": {"max_new_tokens": 1}},
    }
    model.write_text("one")
    one, other = (configurations.settings_of(parse_config(tree, [f"eval.seed={seed}"])) for seed in (0, 1))
    assert one["model.source.content"] == other["model.source.content"] and hashed == [model]
    model.write_text("another")
    assert configurations.settings_of(parse_config(tree))["model.source.content"] != one["model.source.content"] and len(hashed) == 2


def test_a_missing_file_of_questions_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: no such file"):
        source_identity(JsonlSource(kind="jsonl", path=tmp_path / "gone.jsonl"))


def test_how_a_stage_works_is_not_what_it_is():
    def sft(rate=1e-4, micro_rows=2, remat="block", every=100):
        return SftConfig(
            optimizer=Optimizer(learning_rate=rate), batching=Batching(row_tokens=128, micro_rows=micro_rows, remat=remat),
            batch_rows=4, checkpoint_every=every,
        )  # fmt: skip

    assert stage_fields(sft()) == stage_fields(sft(micro_rows=4, remat="none", every=7))
    assert stage_fields(sft()) != stage_fields(sft(rate=1e-5))


def models(kind=Strict):
    for model in kind.__subclasses__():
        if model.__module__.startswith("jaxpolya.config."):
            yield model
        yield from models(model)


def test_every_field_is_part_of_the_identity_unless_it_says_why_not():
    left_out = {f"{model.__name__}.{name}" for model in models() for name, field in model.model_fields.items() if is_left_out(field)}
    assert left_out == {
        "ModelConfig.source", "ModelConfig.revision", "ModelConfig.attention",
        "DecodeConfig.rows", "DecodeConfig.burst", "DecodeConfig.attention",
        "VerifyConfig.workers",
        "VerifyConfig.deadline", "VerifyConfig.memory_mb", "GenerateConfig.questions", "GenerateConfig.catalogue",
        "SelectConfig.reward_model", "SelectConfig.external", "Batching.micro_rows", "Batching.remat", "SftConfig.checkpoint_every",
        "RlConfig.questions", "RlConfig.replay", "RlConfig.checkpoint_every", "RlConfig.evaluate_at", "RlConfig.drift",
        "ValidationConfig.questions", "EvalConfig.questions", "EvalConfig.bootstrap", "EvalConfig.kernel",
        "RunConfig.log",
    }  # fmt: skip


def is_left_out(field) -> bool:
    return any(isinstance(mark, LeftOut) and mark.why for mark in field.metadata)


def test_a_new_field_counts_without_anybody_thinking_of_it():
    class Inner(Strict):
        old: int = 1
        new: tuple[float, ...] = (0.5,)
        rows: Annotated[int, HOW] = 3

    class Outer(Strict):
        inner: Inner = Inner()
        several: dict[str, list[Inner]]

    outer = Outer(several={"a": [Inner(new=())]})
    assert stage_fields(outer) == {"inner": {"old": 1, "new": [0.5]}, "several": {"a": [{"old": 1, "new": []}]}}
    assert stage_fields(outer, without=("several",)) == {"inner": {"old": 1, "new": [0.5]}}
    with pytest.raises(KeyError, match="Outer has no gone"):
        stage_fields(outer, without=("gone",))


def test_a_field_that_came_later_leaves_older_stages_found():
    class Before(Strict):
        old: int = 1

    class After(Before):
        later: Annotated[tuple[int, ...], LATER] = (3,)

    assert stage_fields(After()) == stage_fields(Before())
    assert stage_fields(After(later=(4,))) == {"old": 1, "later": [4]}


def test_samples_are_known_by_what_later_stages_take_from_them():
    def digest(**changes):
        fields = {"id": "q#0", "response": "r", "token_ids": [1], "verdict": "wrong", "seconds": 1.0, "logprobs": [-1.0]} | changes
        sample = Sample(question_id="q", arm="polya", stage="generate", index=0, prompt="p", finish="stop", seed=0, **fields)
        return samples_digest([sample]), samples_digest([sample], verdicts=False)

    assert digest() == digest(seconds=9.0, deadline=1.0, detail="slow", logprobs=[])
    assert digest()[0] != digest(verdict="correct")[0] and digest()[1] == digest(verdict="correct")[1]
    assert len({digest(response="other"), digest(token_ids=[2]), digest(), digest(id="q#1")}) == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know a process's open files")
def test_a_lock_is_free_again_though_a_child_still_holds_a_copy_of_its_file(tmp_path):
    """A worker that is just being started has copies of all open files until it is a program of its own."""
    directory = RunDirectory(tmp_path)
    with directory.lock():
        (held,) = (int(file.name) for file in Path("/proc/self/fd").iterdir() if file.exists() and file.samefile(tmp_path / ".lock"))
        copy = os.dup(held)
    try:
        with directory.lock():
            pass
    finally:
        os.close(copy)
