"""samples.parquet: every response of an evaluation as a table that people open (pandas, DuckDB, the hub's viewer).

samples.jsonl stays the record that programs resume and compute from. This table joins to each response what a reader looks for beside it,
the question and its reference, and leaves out token ids and log-probs, which are most of the bytes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet

from jaxpolya.files import write_whole
from jaxpolya.records import Question, Sample

SCHEMA = pyarrow.schema(
    [
        ("question_id", pyarrow.string()),
        ("index", pyarrow.int32()),
        ("verdict", pyarrow.string()),
        ("extracted", pyarrow.string()),
        ("answer", pyarrow.string()),
        ("finish", pyarrow.string()),
        ("tokens", pyarrow.int32()),
        ("question", pyarrow.string()),
        ("response", pyarrow.string()),
        ("prompt", pyarrow.string()),
        ("detail", pyarrow.string()),
        ("source", pyarrow.string()),
        ("arm", pyarrow.string()),
    ]
)
"""One row a response; `answer` is the reference, `tokens` the response's length."""


def write_parquet(path: Path, samples: Iterable[Sample], questions: Mapping[str, Question]) -> None:
    """Writes the samples, whole or not at all (aside, then renamed); `questions` by id has all of theirs."""
    rows = [
        {
            **{name: getattr(sample, name) for name in SCHEMA.names if hasattr(sample, name)},
            "tokens": len(sample.token_ids),
            "question": questions[sample.question_id].question,
            "answer": questions[sample.question_id].answer,
            "source": questions[sample.question_id].source,
        }
        for sample in samples
    ]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes())
