"""Records are standard JSON, whatever a model computed."""

import json
from pathlib import Path

import pytest

from jaxpolya.errors import InputError, RunError
from jaxpolya.files import digest
from jaxpolya.records import Appender, SftRow, dump, iter_json, read_json, read_records, write_records
from jaxpolya.runs.stages import read_manifest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_written(tmp_path, value):
    row = SftRow(question_id="q", prompt="p", response="r", adherence=value)
    path = tmp_path / "rows.jsonl"
    for write in (lambda: write_records(path, [row]), lambda: write_records(path, [{"id": "x", "deep": [{"a": value}]}])):
        with pytest.raises(RunError, match="not finite, and is not written"):
            write()
    assert not path.exists()
    with Appender(path) as appender:
        with pytest.raises(RunError, match="x holds a number"):
            appender.append({"id": "x", "logprobs": [value]})
        appender.append({"id": "y"})
    assert [row for _, row in iter_json(path)] == [{"id": "y"}]
    with pytest.raises(RunError):
        digest({"seed": value})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+400", "1" * 320 + ".0"])
def test_a_number_that_is_not_finite_is_not_read(tmp_path, number):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"question_id": "q", "prompt": "p", "response": "NaN 1e999"}}\n{{"question_id": "q", "adherence": {number}}}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:2: not JSON"):
        read_records(path, SftRow)
    manifest = {"stage": "s", "finished": "f", "seconds": 1.0, "stats": {}, "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest).replace("1.0", number))
    with pytest.raises(InputError, match="is damaged; delete"):
        read_manifest(tmp_path / "manifest.json")


def test_large_and_small_numbers_are_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1e-999, "b": 1e300, "c": %s, "d": "1e999"}\n' % ("7" * 400))
    ((_, row),) = iter_json(path)
    assert row == {"a": 0.0, "b": 1e300, "c": int("7" * 400), "d": "1e999"}


@pytest.mark.parametrize(
    "value",
    [
        {"n": 2**63, "m": -(2**64) - 1, "k": 12345678901234567890123}, {"n": 2**63 - 1, "small": -1.2345678901234567e-05},
        {"a": [0.1 + 0.2, -0.0, 1e-300]},
        {"text": "ordinals 12345678901234567890 and \u2028 é 😀\x00\x7f"}, {"deep": [[[[{"x": None}]]]], "null": "null"},
    ],
    ids=["beyond 64 bits", "within", "floats", "texts", "null"],
)  # fmt: skip
def test_what_is_written_is_what_the_standard_library_reads(tmp_path, value):
    path = tmp_path / "rows.jsonl"
    write_records(path, [value])
    (line,) = path.read_text(encoding="utf-8").split("\n")[:-1]
    ((_, row),) = iter_json(path)
    assert json.loads(line) == row == value and repr(row) == repr(value)
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")  # as others, and earlier versions, write it
    assert [row for _, row in iter_json(path)] == [value]


def test_a_bare_number_is_read_as_it_is():
    assert [read_json(text) for text in ("99999999999999999999", "[-99999999999999999999]", "7")] == [10**20 - 1, [1 - 10**20], 7]


@pytest.mark.parametrize("value", [object(), Path(), {1, 2}])
def test_what_is_no_json_is_not_written(value):
    with pytest.raises(TypeError):
        dump({"id": "q1", "value": value})


@pytest.mark.parametrize("text", ['{"n": 1e999}', '{"n": -1E400}', '{"n": NaN}', '{"t": "\\ud800"}', '{"n": 01}', '{"n": 1', "[1]", "null"])
def test_nothing_is_read_that_others_refuse(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:1"):
        list(iter_json(tmp_path / "rows.jsonl"))
