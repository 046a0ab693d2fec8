"""A response with its reference, as callers have it: `{response, answer | tests | choices | entry, …}`, a row of a file or a dictionary."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxpolya.errors import InputError
from jaxpolya.records import Question
from jaxpolya.verify.judge import Item, problem, reference_text
from jaxpolya.verify.kinds import is_own
from jaxpolya.verify.speech import opened_thought


def item_of(row: Mapping[str, Any], id: str, kind: str | None = None) -> Item:
    """What the verifier is asked about a row. Raises `InputError` that says why it can't be judged, whatever the response is.

    Args:
      row: `response`, and `answer` (with `choices` for multiple choice), `tests` or reasoning-gym's `entry`. `kind` or `verifier` names its
        judge, one of ours, else the fields tell; `extraction` its style. `question` is what was asked: an answer that only restates it
        is not right. `prompt` is the text that the response goes on with: where that ends in the opening tag of a thought, the response
        begins inside of it. A user's kind is shown the further fields as the question's `entry`.
      id: what the verifier calls it.
      kind: who judges it instead, as records say it (`kinds.name_of`).
    """
    response, prompt = row.get("response"), row.get("prompt") or ""
    if not isinstance(response, str):
        raise InputError(f"response must be a string, not {type(response).__name__}")
    if not isinstance(prompt, str):
        raise InputError("prompt must be a string, the text that the response goes on with")
    item = Item(id=id, kind=kind or _kind(row), response=opened_thought(prompt) + response, **_reference(row))
    if kind is not None and is_own(kind):
        item = dataclasses.replace(item, asked=_question(row, item).to_json())
    if trouble := problem(item):
        raise InputError(trouble)
    return item


def _question(row: Mapping[str, Any], item: Item) -> Question:
    """The question of a row, for a kind of the user's own; its `entry` is the row's own, else the fields that are not ours."""
    ours = {field.name for field in dataclasses.fields(Item)} | {"prompt", "verifier", "context"}
    further = {name: value for name, value in row.items() if name not in ours}
    context = row.get("context")
    return Question(
        id=str(row.get("id", item.id)), question=item.question, answer=item.answer, verifier=item.kind, extraction=item.extraction,
        choices=item.choices, context=context if isinstance(context, str) else None, tests=item.tests, entry=item.entry or further or None,
    )  # fmt: skip


def _kind(row: Mapping[str, Any]) -> str:
    """What judges a row: its own word, which must be a kind of ours, or what its fields are for."""
    if name := row.get("kind") or row.get("verifier"):
        return str(name)
    return "choice" if row.get("choices") else "code" if row.get("tests") else "reasoning_gym" if row.get("entry") else "math"


def _reference(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row that its answer is judged by, checked."""
    choices, entry, question = row.get("choices"), row.get("entry"), row.get("question")
    if question is not None and not isinstance(question, str):
        raise InputError("question must be a string")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)):
        raise InputError("choices must be a list of strings")
    if entry is not None and not isinstance(entry, dict):
        raise InputError("entry must be an object, as reasoning-gym makes it")
    return {
        "question": question or "",
        "answer": reference_text(row.get("answer", "")),
        "extraction": row.get("extraction") or "statement",
        "choices": choices,
        "tests": row.get("tests"),
        "entry": entry,
    }
