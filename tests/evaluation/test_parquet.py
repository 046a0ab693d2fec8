"""samples.parquet: what a person finds in it."""

import dataclasses

import pyarrow.parquet

from jaxpolya.evaluation.parquet import SCHEMA, write_parquet
from jaxpolya.records import Question, Sample


def test_the_table_joins_responses_to_their_questions(tmp_path):
    question = Question(id="q", question="1 + 1?", answer="2", source="sums")
    right = Sample(
        id="q#0", question_id="q", arm="base", stage="eval", index=0, prompt="Question: 1 + 1?", response="It is 2.", token_ids=[5, 6, 7],
        logprobs=[0.0] * 3, finish="stop", seed=0, verdict="correct", extracted="2",
    )  # fmt: skip
    lost = dataclasses.replace(right, id="q#1", index=1, response="", verdict="unparseable", extracted=None, finish="length", token_ids=[])
    write_parquet(tmp_path / "samples.parquet", [right, lost], {"q": question})
    rows = pyarrow.parquet.read_table(tmp_path / "samples.parquet").to_pylist()
    assert rows[0] == {
        "question_id": "q", "index": 0, "verdict": "correct", "extracted": "2", "answer": "2", "finish": "stop", "tokens": 3,
        "question": "1 + 1?", "response": "It is 2.", "prompt": "Question: 1 + 1?", "detail": None, "source": "sums", "arm": "base",
    }  # fmt: skip
    assert (rows[1]["verdict"], rows[1]["extracted"], rows[1]["tokens"]) == ("unparseable", None, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.parquet"] and list(rows[0]) == SCHEMA.names
