"""Validation of a training: its questions, how they are asked, and the models that are kept on the way."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import Arm
from jaxpolya.config import LoraConfig, Sampling, ValidationConfig
from jaxpolya.decode.engine import Engine
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import wait_for_all
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.rollout.respond import Prompt
from jaxpolya.runs.session import Session, kept_model
from jaxpolya.runs.stages import Stage
from jaxpolya.train.looks import make_looks
from jaxpolya.train.validation import Validation


@dataclasses.dataclass(frozen=True)
class ModelSnapshots:
    """The models that a training stage keeps on its way; `asked_for` are steps that are kept whatever happens."""

    directory: Path
    """Of the stage."""
    write: Callable[[Path, Params], None]
    """Writes a model into a directory; every host calls it."""
    asked_for: Sequence[int] = ()

    def save(self, step: int, params: Params) -> None:
        """Keeps a model; one of that step is replaced."""
        self.write(kept_model(self.directory, step), params)

    def keep_only(self, steps: Sequence[int]) -> None:
        """Drops all others, but those that were asked for."""
        if is_primary():
            named = {kept_model(self.directory, step).name for step in {*steps, *self.asked_for}}
            for path in (self.directory / "models").glob("*"):
                if path.name not in named:
                    shutil.rmtree(path)

    def make_final(self, step: int) -> None:
        """Makes the model of a step the one that the stage leaves; every host calls it."""
        if is_primary():
            aside, model = self.directory / ".model.partial", self.directory / "model"
            for path in (aside, model):
                shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(kept_model(self.directory, step), aside)
            aside.rename(model)
        wait_for_all(f"{self.directory.name}: the model of step {step}")


def validation_of(
    session: Session,
    config: ValidationConfig,
    prompts: Sequence[Prompt],
    arm: Arm,
    stage: Stage,
    kept: ModelSnapshots,
    lora: LoraConfig | None,
) -> Validation:
    """A stage's validation; `lora` are the adapters that it trains."""

    def engine_of(sampling: Sampling, samples: int) -> Engine:
        return session.engine(prompts, sampling, samples, stage.name, lora=lora)

    return Validation(config, make_looks(config, prompts, engine_of, session.pool, arm=arm.name, directory=stage.directory), kept)


def settled(validation: Validation, kept: ModelSnapshots, last: int, params: Params) -> dict[str, Any]:
    """Leaves the model that the configuration says, in `model/`; returns what a stage's manifest says of it."""
    chosen = validation.chosen(last)
    if chosen == last:
        kept.write(kept.directory / "model", params)
    else:
        kept.make_final(chosen)
    kept.keep_only(())
    return {"validation": {**validation.facts(last), "looks": {str(step): value for step, value in validation.looks.items()}}}
