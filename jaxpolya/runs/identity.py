"""What a stage is known by, and what its manifest says of its result.

A stage's identity holds all that changes its result and nothing else: how often it saves, how many rows a device takes at a
time, or where a file lies doesn't count; what lies in the file does.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pydantic_core
from pydantic.fields import FieldInfo

from jaxpolya.config import AnySource, HubSource, JsonlSource, Later, LeftOut, PythonSource, Strict, TfdsSource
from jaxpolya.doors import bring, is_reference
from jaxpolya.errors import InputError
from jaxpolya.files import file_digest, files_digest
from jaxpolya.records import Sample, SftRow

MEANINGS = {
    "questions": 1,
    "contamination": 1,
    "prompts": 1,
    "verdicts": 2,
    "selection": 1,
    "training": 1,
    "composition": 3,
}
"""What our own code means: raise a number where code gives other results for the same configuration and inputs (another wording of
prompts, another extraction or comparison, another order of batches), and the stages that rest on it are done anew."""


def meaning(*parts: str) -> dict[str, int]:
    """The versions of the code that a stage rests on, for its identity."""
    return {part: MEANINGS[part] for part in parts}


def stage_fields(config: Strict, *, without: Collection[str] = ()) -> dict[str, Any]:
    """A configuration for an identity: every field, at any depth, but those that are marked `LeftOut`, those that are marked `Later` and
    have their default, and those named here.

    Args:
      config: of a stage, or a part of one.
      without: fields that this stage doesn't look at, or whose value stands elsewhere in its identity.
    """
    fields = type(config).model_fields
    if unknown := set(without) - set(fields):
        raise KeyError(f"{type(config).__name__} has no {', '.join(unknown)}")
    marked = {name for name, field in fields.items() if any(_leaves_out(mark, field, getattr(config, name)) for mark in field.metadata)}
    return {name: _plain(getattr(config, name)) for name in fields if name not in marked and name not in without}


def _leaves_out(mark: Any, field: FieldInfo, value: Any) -> bool:
    return isinstance(mark, LeftOut) or (
        isinstance(mark, Later) and value == field.get_default(call_default_factory=True, validated_data={})
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Strict):
        return stage_fields(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return pydantic_core.to_jsonable_python(value)


def source_identity(source: AnySource) -> dict[str, Any]:
    """A question source's configuration, with the content of local files, and of what a user brought. Raises `InputError` if a file of
    questions is missing."""
    identity = source.model_dump(mode="json")
    if source.verifier and is_reference(source.verifier):
        identity["verifier"] = bring(source.verifier, "verifier").identity
    if isinstance(source, PythonSource):
        identity["source"] = bring(source.source, "source").identity
    if isinstance(source, JsonlSource):
        if not source.path.is_file():
            raise InputError(f"{source.path}: no such file of questions")
        identity |= {"path": source.path.name, "content": file_digest(source.path)}
    elif isinstance(source, HubSource | TfdsSource) and (local := Path(source.name)).is_dir():
        files = {path.relative_to(local).as_posix(): path for path in sorted(local.rglob("*")) if path.is_file()}
        identity |= {"name": local.name, "content": files_digest(files)}
    return identity


def samples_digest(samples: Iterable[Sample], *, verdicts: bool = True) -> str:
    """SHA-256 of what later stages may take from samples: what was asked and said and, if wanted, the verdicts; not how long those took.

    The name of the samples' stage would not do: verdicts that were cut short are judged again under larger limits.
    """
    total = hashlib.sha256()
    for sample in samples:
        row = [sample.id, sample.prompt, sample.response, sample.token_ids, sample.finish, sample.verdict if verdicts else None]
        total.update(json.dumps(row).encode())
    return total.hexdigest()


def sample_stats(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts of one stage's samples."""
    return {
        "samples": len(samples),
        "verdicts": dict(Counter(sample.verdict for sample in samples).most_common()),
        "tokens": sum(len(sample.token_ids) for sample in samples),
        "truncated": sum(sample.finish == "length" for sample in samples),
    }


def row_stats(rows: Sequence[SftRow]) -> dict[str, Any]:
    """How many fine-tuning rows there are, and how they spread over questions and heuristics."""
    per_question = Counter(Counter(row.question_id for row in rows).values())
    return {
        "rows": len(rows),
        "questions": sum(per_question.values()),
        "per_question": {str(count): number for count, number in sorted(per_question.items())},
        "by_heuristic": dict(Counter(row.heuristic or "plain" for row in rows).most_common()),
    }
