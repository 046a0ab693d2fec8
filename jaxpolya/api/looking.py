"""What a training of the Python interface has on its way: a validation with questions of its own, and models that are kept in memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.api.asking import RECORDS, ROWS, ending, fitting
from jaxpolya.api.model import Model
from jaxpolya.api.questions import as_questions
from jaxpolya.config import LoraConfig, Sampling, ValidationConfig
from jaxpolya.decode.engine import Engine
from jaxpolya.errors import ConfigError
from jaxpolya.models.decoder import Params
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.train.looks import make_looks
from jaxpolya.train.validation import Validation
from jaxpolya.verify.pool import Pool


class Best:
    """The model of the best look so far, in memory. Nothing goes on from before it, so that no other is kept beside it."""

    def __init__(self, leave: Callable[[Params], Model]):
        """leave: makes a model of a training's parameters, which go on being trained."""
        self._leave, self.models = leave, dict[int, Model]()

    def save(self, step: int, params: Params) -> None:
        """Keeps a model in place of the one before."""
        self.models = {step: self._leave(params)}

    def keep_only(self, steps: Sequence[int]) -> None:
        """Nothing is left to drop."""


def as_fields(validation: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """The `validation` of a configuration; its questions are the caller's records, which `look_at` is given."""
    if validation is None:
        return {}
    if not isinstance(validation, Mapping) or "questions" not in validation:
        raise ConfigError(f"{what}.validation: a dictionary with `questions` (a list) and `sampling` is needed, not {validation!r:.60}")
    return {"validation": {**validation, "questions": RECORDS}}


def look_at(
    model: Model,
    builder: PromptBuilder,
    records: Any,
    config: ValidationConfig,
    best: Best,
    *,
    what: str,
    pool: Pool,
    directory: Path,
    lora: LoraConfig | None,
) -> Validation:
    """A validation that asks a caller's records; `lora` are the adapters that are trained."""
    key = f"{what}.validation"
    prompts = fitting(model, builder, [(question, None) for question in as_questions(records, key)], config.sampling, key)

    def engine_of(sampling: Sampling, samples: int) -> Engine:
        ids = [prompt.ids for prompt in prompts]
        return model.engine(builder, ids, ending(sampling, builder), samples, rows=ROWS, lora=lora)

    return Validation(config, make_looks(config, prompts, engine_of, pool, arm=what, directory=directory), best)


def settle(validation: Validation | None, best: Best, last: int, left: Callable[[], Model]) -> tuple[Model, dict[str, Any]]:
    """(the model that a training of `last` steps leaves, what is said of it); `left` makes the one of the last step."""
    if validation is None:
        return left(), {}
    chosen = validation.chosen(last)
    return (left() if chosen == last else best.models[chosen]), {"validation": validation.facts(last)}
