"""A whole run: its sections, its arms, and what must hold between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from jaxpolya.arms import ARMS, RECIPES, Arm, Recipe
from jaxpolya.config.base import HOW, LARGEST_SEED, NAME, Door, Seed, Strict, ours_or_own
from jaxpolya.config.data import GenerateConfig, SelectConfig
from jaxpolya.config.evaluation import ContaminationConfig, EvalConfig
from jaxpolya.config.machine import DecodeConfig, MeshConfig, VerifyConfig
from jaxpolya.config.model import ModelConfig
from jaxpolya.config.questions import AnySource
from jaxpolya.config.rl import RlConfig
from jaxpolya.config.training import SftConfig, ValidationConfig

SINKS = ("tensorboard", "wandb", "trackio")
"""What is built in of what training can log to; see `train.sinks`."""

SEEDED = ("generate", "select", "sft", "rl", "eval")
"""The parts of a run that have a seed."""


class RunConfig(Strict):
    """A whole run."""

    name: str = Field(pattern=NAME)
    """The run's directory is `output`/`name`; the same name and fields find what is done."""
    model: ModelConfig
    """The base model that everything starts from."""
    generate: GenerateConfig | None = None
    """The base model's own responses under heuristics; needed by arms that are fine-tuned."""
    select: SelectConfig = SelectConfig()
    """Which correct responses become fine-tuning data."""
    sft: SftConfig | None = None
    """Mid-training: fine-tuning on what was selected; needed by arms that are fine-tuned."""
    rl: RlConfig | None = None
    """Reinforcement learning with the verifier's reward; needed by arms with `rl`."""
    eval: EvalConfig
    """The questions that every arm is asked at the end."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Overlap of the training questions with the evaluation sets."""
    seeds: Annotated[list[Seed], Field(max_length=100)] = []
    """Do the run once for each of these, added to its five seeds (of `generate`, `select`, `sft`, `rl` and `eval`): what a seed changes is
    drawn anew, the rest is shared, and figures have intervals over seeds and questions. Three are few, five are better."""
    arms: list[Literal[tuple(ARMS)]] = ["base", "rl", "star+rl", "polya+rl"]  # type: ignore[valid-type]
    """The paths to compare; `base` is the untrained model, and docs/design.md (section 1) describes the others. They share stages."""
    output: Path = Path("runs")
    """Where run directories lie, from the working directory: a path that all hosts see (it needs locks and appending, so no bucket)."""
    mesh: MeshConfig = MeshConfig()
    """How the devices are laid out."""
    decode: DecodeConfig = DecodeConfig()
    """How many responses are decoded side by side."""
    verify: VerifyConfig = VerifyConfig()
    """The verifier's processes and limits, and what it accepts."""
    export: bool = True
    """Write the best arm as a Hugging Face directory at the end."""
    log: Annotated[list[Door], HOW] = []
    """Where else the numbers of training and evaluation go while the run works: `tensorboard`, `wandb` and `trackio` (each needs the extra
    of its name), or a sink of one's own, `module:attribute` or `path/to/file.py:attribute` (docs/extending.md)."""

    @pydantic.field_validator("log")
    @classmethod
    def _known_sinks(cls, names: list[str]) -> list[str]:
        for name in names:
            ours_or_own(name, SINKS)
        if len(set(names)) < len(names):
            raise ValueError("name each sink once")
        return names

    _file: Path | None = pydantic.PrivateAttr(None)

    def read_from(self, file: Path) -> "RunConfig":
        """This configuration, knowing the file that it was read from."""
        self._file = file
        return self

    @property
    def starts(self) -> tuple[Path, ...]:
        """The directories at which paths in it start, in the order in which they are tried (`config.paths`)."""
        return (self._file.parent, Path()) if self._file else (Path(),)

    def with_seed(self, seed: int) -> "RunConfig":
        """This run with a number added to every seed, alone. Raises `ValueError` where that is larger than a seed may be."""
        changed: dict[str, Any] = {"seeds": [], "export": False}
        for name in SEEDED:
            if (part := getattr(self, name)) is not None:
                changed[name] = part.model_copy(update={"seed": part.seed + seed})
                if part.seed + seed >= LARGEST_SEED:
                    raise ValueError(f"seeds: {seed} and {name}.seed ({part.seed}) are together more than a seed may be")
        return self.model_copy(update=changed)

    @property
    def sources(self) -> Iterator[tuple[str, AnySource]]:
        """All question sources that the arms need, with their keys."""
        sets = [("generate.questions", self.generate.questions)] if self.generate and self.recipes else []
        sets += [("rl.questions", self.rl.questions)] if self.rl and self.reinforced else []
        sets += [(f"{stage}.validation.questions", validation.questions) for stage, validation in self.validated.items()]
        sets += [(f"eval.questions.{name}", sources) for name, sources in self.eval.questions.items()]
        return ((f"{key}.{number}", source) for key, sources in sets for number, source in enumerate(sources))

    @property
    def compared(self) -> list[Arm]:
        """The arms, as values."""
        return [ARMS[name] for name in self.arms]

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes of fine-tuning data that the arms need, in the order of their table."""
        needed = {arm.recipe for arm in self.compared}
        return [recipe for recipe in RECIPES.values() if recipe.trained and recipe in needed]

    @property
    def reinforced(self) -> list[Arm]:
        """The arms that end in RL."""
        return [arm for arm in self.compared if arm.rl]

    @property
    def validated(self) -> dict[Literal["sft", "rl"], ValidationConfig]:
        """The validations of the trainings that the arms need."""
        validations: dict[Literal["sft", "rl"], ValidationConfig] = {}
        if self.recipes and self.sft and self.sft.validation:
            validations["sft"] = self.sft.validation
        if self.reinforced and self.rl and self.rl.validation:
            validations["rl"] = self.rl.validation
        return validations

    @property
    def doses(self) -> list[Arm]:
        """Those arms at the steps at which they are also looked at (`rl.evaluate_at`)."""
        return [Arm(arm.recipe, rl=True, step=step) for arm in self.reinforced for step in (self.rl.doses if self.rl else ())]

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: name each seed once")
        for seed in self.seeds:
            self.with_seed(seed)
        if len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError("arms: name each arm once, and at least one")
        named = ", ".join(recipe.name for recipe in self.recipes)
        if self.recipes and self.sft is None:
            raise ValueError(f"sft is missing, and the arms {named} need it")
        if self.recipes and self.generate is None:
            raise ValueError(f"generate is missing, and the arms {named} need its questions")
        if self.reinforced and self.rl is None:
            raise ValueError("rl is missing, and an arm needs it")
        if any(recipe.traces for recipe in self.recipes) and self.select.external is None:
            raise ValueError("select.external is missing, and the external arms need it")
        if self.select.adherence == "reward_model" and not self.select.reward_model:
            raise ValueError("select.reward_model is missing, and select.adherence asks for one")
        return self
