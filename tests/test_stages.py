"""What a stage is known by: all that changes its result, and nothing else."""

import pytest

from jaxpolya.config import Batching, HubSource, JsonlSource, Optimizer, SftConfig, TfdsSource
from jaxpolya.errors import InputError
from jaxpolya.stages import source_identity, stage_fields

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
