"""Grading a file: every row in its place, or a sentence and nothing written."""

import json
import os
import threading

import pytest

from jaxpolya.errors import ConfigError, InputError, MachineError
from jaxpolya.verify.files import verify_file

ROWS = [
    {"id": "a", "response": r"\boxed{4}", "answer": "4"},
    {"id": 2, "response": "The answer is (B).", "answer": "B", "choices": ["x", "y"]},
    {"id": "c", "response": "no answer", "answer": 4},
    {"id": "d", "response": "I count 3 and then 5", "answer": "5", "extraction": "number", "source": "ignored"},
    {"id": "e", "response": "#### 2", "entry": {"question": "1+1", "answer": "2", "metadata": {"source_dataset": "chain_sum"}}},
    {"id": "f", "response": r"\boxed{5}", "answer": "4"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_graded_in_order(tmp_path):
    out = tmp_path / "new" / "verdicts.jsonl"
    seen = []
    summary = verify_file(write(tmp_path / "rows.jsonl", ROWS), out, workers=2, progress=lambda done, total: seen.append((done, total)))
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(row) for row in graded] == [["id", "verdict", "extracted"]] * len(ROWS)
    assert [row["id"] for row in graded] == ["a", 2, "c", "d", "e", "f"]
    assert [row["verdict"] for row in graded] == ["correct", "correct", "unparseable", "correct", "correct", "wrong"]
    assert [row["extracted"] for row in graded] == ["4", "B", None, "5", "2", "5"]
    assert summary["rows"] == 6 and summary["verdicts"] == {"correct": 4, "unparseable": 1, "wrong": 1} and summary["seconds"] > 0
    assert seen == [(done, 6) for done in range(1, 7)]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not JSON"), ("[1]", "JSON object"), ('{"id": ' + "[" * 200_000, "not JSON .*recursion"),
        ({"response": "x", "answer": "1"}, "id is missing"),
        ({"id": "b", "answer": "1"}, "response is missing"),
        ({"id": "b", "response": "x"}, "needs an answer"), ({"id": "b", "response": 3, "answer": "1"}, "response must be a string"),
        ({"id": "b", "response": "x", "answer": ["1"]}, "answer must be"),
        ({"id": "b", "response": "x", "answer": "1", "prompt": ["Hi"]}, "prompt must be"),
        ({"id": "b", "response": "x", "answer": "Q", "choices": ["x"]}, "none of the choices"),
        ({"id": "b", "response": "x", "choices": "AB", "answer": "A"}, "list of strings"),
        ({"id": "b", "response": "x", "tests": ["assert 1"]}, "no function"),
        ({"id": "b", "response": "x", "answer": "1", "kind": "maths"}, "not a kind"),
        ({"id": "b", "response": "x", "answer": "1", "extraction": "first"}, "extraction"),
        ({"id": "b", "response": "x", "entry": "e"}, "entry must be"),
        ({"id": "b", "response": "x", "entry": {}, "kind": "reasoning_gym"}, "metadata"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named_and_nothing_is_written(tmp_path, row, complaint):
    source, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    out.write_text("old")
    with pytest.raises(InputError, match=complaint) as caught:
        verify_file(source, out, workers=1)
    assert f"{source}:2" in str(caught.value)
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_no_rows_and_no_file_are_named(tmp_path):
    with pytest.raises(InputError, match="has no rows"):
        verify_file(write(tmp_path / "rows.jsonl", []), tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"nosuch\.jsonl"):
        verify_file(tmp_path / "nosuch.jsonl", tmp_path / "out.jsonl")


def test_an_output_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file is not a directory"):
        verify_file(write(tmp_path / "rows.jsonl", ROWS), tmp_path / "file" / "out.jsonl", workers=1)


def test_the_output_is_a_file_of_its_own(tmp_path, monkeypatch):
    source = write(tmp_path / "rows.jsonl", ROWS)
    whole = source.read_bytes()
    os.link(source, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(source)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("jaxpolya.verify.files.Pool", None)  # all is said before a worker starts
    for out, says in ((source, "the input itself"), (tmp_path / "hard", "the input itself"), (tmp_path / "soft", "the input itself"),
                      (tmp_path, "is a directory; name a file"), (tmp_path / "pipe", "not a regular file")):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            verify_file(source, out)
    assert source.read_bytes() == whole


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "verdicts.jsonl")
    verify_file(write(tmp_path / "rows.jsonl", ROWS[:1]), tmp_path / "link", workers=1)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "verdicts.jsonl").is_file()


def test_a_pipe_is_read_once(tmp_path):
    pipe, text = tmp_path / "pipe", write(tmp_path / "rows.jsonl", ROWS).read_text()
    os.mkfifo(pipe)
    for content, works in ((text, True), (text + "{", False)):
        writer = threading.Thread(target=pipe.write_text, args=[content])
        writer.start()
        if works:
            assert verify_file(pipe, tmp_path / "out.jsonl", workers=1)["rows"] == len(ROWS)
        else:
            with pytest.raises(InputError, match=f"{pipe}:{len(ROWS) + 1}: not JSON"):
                verify_file(pipe, tmp_path / "out.jsonl", workers=1)
        writer.join()


def test_a_kind_given_by_the_caller_wins(tmp_path):
    source = write(tmp_path / "rows.jsonl", [{"id": "a", "response": r"\boxed{B}", "answer": "B", "choices": ["x", "y"]}])
    assert verify_file(source, tmp_path / "out.jsonl", kind="math", workers=1)["verdicts"] == {"correct": 1}


def test_half_a_character_spoils_no_other_row(tmp_path):
    """JSON can escape half of a surrogate pair, and some writers put its bytes into the file: both are judged in their place."""
    source, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    rows = [
        r'{"id": "a", "response": "caf\ud83d: \\boxed{4}", "answer": "4"}',
        r'{"id": "b", "response": "\\boxed{4\udc00}", "answer": "4"}',
        r'{"id": "c", "response": "\ud83d\ude00 Answer: B", "answer": "B", "choices": ["\ud800x", "y"]}',
        r'{"id": "\udfff", "response": "x\ud800", "answer": "1", "tests": null}',
        '{"id": "e", "response": "\ud800 \\\\boxed{4}", "answer": "4"}',
        r'{"id": "f", "response": "\\boxed{4}", "answer": "4"}',
    ]
    source.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    verify_file(source, out, workers=1)
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in graded] == ["a", "b", "c", "\ufffd", "e", "f"]
    assert [row["verdict"] for row in graded] == ["correct", "wrong", "correct", "unparseable", "correct", "correct"]


@pytest.mark.parametrize("fields", [{"answer": "4", "extraction": "number"}, {"answer": "B", "choices": ["3", "4"]}])
def test_a_thought_that_the_prompt_opened_must_end(tmp_path, fields):
    answer = fields["answer"]
    rows = [
        {"response": f"So it is. Answer: {answer}", "prompt": "How many?\n<think>\n"},
        {"response": f"So it is.</think> Answer: {answer}", "prompt": "How many?\n<think>\n"},
        {"response": f"So it is. Answer: {answer}", "prompt": "How many?\n<think>\n\n</think>\n"},
        {"response": f"So it is. Answer: {answer}", "prompt": None},
    ]
    source = write(tmp_path / "rows.jsonl", [{"id": index, **row, **fields} for index, row in enumerate(rows)])
    verify_file(source, tmp_path / "out.jsonl", workers=1)
    graded = [json.loads(line)["verdict"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert graded == ["unparseable", "correct", "correct", "correct"]
