"""What a stage is known by, and what its manifest says of its result.

A stage's identity holds all that changes its result and nothing else: how often it saves, how many rows a device takes at a
time, or where a file lies doesn't count; what lies in the file does.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxpolya.artifacts import file_digest, files_digest
from jaxpolya.config import AnySource, HubSource, JsonlSource, Strict, TfdsSource
from jaxpolya.errors import InputError
from jaxpolya.records import Sample, SftRow


def stage_fields(config: Strict) -> dict[str, Any]:
    """A stage's configuration without the fields that don't change its result."""
    tree = config.model_dump(mode="json", exclude={"questions", "checkpoint_every", "bootstrap", "external", "reward_model"})
    for key in ("micro_rows", "remat"):
        tree.get("batching", {}).pop(key, None)
    return tree


def source_identity(source: AnySource) -> dict[str, Any]:
    """A question source's configuration, with the content of local files. Raises `InputError` if a file of questions is missing."""
    identity = source.model_dump(mode="json")
    if isinstance(source, JsonlSource):
        if not source.path.is_file():
            raise InputError(f"{source.path}: no such file of questions")
        identity |= {"path": source.path.name, "content": file_digest(source.path)}
    elif isinstance(source, HubSource | TfdsSource) and (local := Path(source.name)).is_dir():
        files = {path.relative_to(local).as_posix(): path for path in sorted(local.rglob("*")) if path.is_file()}
        identity |= {"name": local.name, "content": files_digest(files)}
    return identity


def digest_or_none(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none."""
    return file_digest(path) if path.exists() else None


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
