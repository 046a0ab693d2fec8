"""Validation of a training: its questions, how they are asked, and the models that are kept on the way."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpolya.arms import Arm
from jaxpolya.config import LoraConfig, ValidationConfig
from jaxpolya.evaluation.measures import Answers
from jaxpolya.evaluation.passk import pass_at_k
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import wait_for_all
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.records import Sample, write_records
from jaxpolya.rollout.respond import Draws, Prompt, respond
from jaxpolya.runs.session import Session, kept_model
from jaxpolya.runs.stages import Stage
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
    return Validation(config, _asks(session, config, prompts, arm, stage, lora), kept)


def settled(validation: Validation, kept: ModelSnapshots, last: int, params: Params) -> dict[str, Any]:
    """Leaves the model that the configuration says, in `model/`; returns what a stage's manifest says of it."""
    config, best = validation.config, validation.best
    chosen = best if config.keep == "best" and best is not None else last
    if chosen == last:
        kept.write(kept.directory / "model", params)
    else:
        kept.make_final(chosen)
    kept.keep_only(())
    looks = {str(step): value for step, value in validation.looks.items()}
    facts = {"metric": config.metric, "kept": chosen, "best": best, "last": last, "stopped": validation.stops, "looks": looks}
    return {"validation": facts}


def _asks(
    session: Session, config: ValidationConfig, prompts: Sequence[Prompt], arm: Arm, stage: Stage, lora: LoraConfig | None
) -> Callable[[int, Params], Mapping[str, float]]:
    once = config.sampling.model_copy(update={"temperature": 0.0, "top_k": 0, "top_p": 1.0})
    kinds = [("sampled", config.sampling, config.samples)] + [("greedy", once, 1)] * config.greedy
    engines = {name: (session.engine(prompts, sampling, samples, stage.name, lora=lora), samples) for name, sampling, samples in kinds}

    def ask(done: int, params: Params) -> dict[str, float]:
        drawn: dict[str, list[Sample]] = {}
        for name, (engine, samples) in engines.items():
            draws = Draws(arm.name, "validation", samples, config.seed, step=done)
            file = stage.directory / "validation" / f"{done:06d}-{name}.jsonl"
            drawn[name] = respond(engine, lambda: params, prompts, draws, pool=session.pool, out=file)
            if is_primary():
                write_records(file, drawn[name])
        answers = Answers.of([prompt.question for prompt in prompts], drawn["sampled"], drawn.get("greedy"))
        return figures(answers, config.samples)

    return ask


def figures(answers: Answers, samples: int) -> dict[str, float]:
    """`pass@k` for the powers of two and the number of samples, `greedy` where it was asked, and the mean `length`."""
    n, c = np.array(list(answers.counts.values())).T
    ks = sorted({1 << power for power in range(samples.bit_length())} | {samples})
    shares = {f"pass@{k}": float(pass_at_k(n, c, k).mean()) for k in ks}
    if answers.greedy:
        shares["greedy"] = sum(sample.verdict == "correct" for sample in answers.greedy) / len(answers.greedy)
    return shares | {"length": sum(len(sample.token_ids) for sample in answers.samples) / len(answers.samples)}
