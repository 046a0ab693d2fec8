"""The sinks that are built in: TensorBoard, Weights & Biases, trackio. Their packages are optional, and imported where a sink is opened.

Each takes its settings from where its users keep them (`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE`, `TRACKIO_SPACE_ID`, …); a project
that isn't named so is `jaxpolya`. A stage is one of their runs; those of one run of ours are a group.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxpolya.train.sinks import LoggedStage

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
"""Which Python package each one needs; the extras of pyproject.toml have their names."""

PROJECT = "jaxpolya"


class TensorBoard:
    """Event files in the stage's directory: `tensorboard --logdir runs/NAME/stages` shows a run's stages side by side.

    They are a picture of the log: made anew, whole, at every start, so that no kill leaves a step twice, torn or lost.
    """

    written = 0

    def __init__(self, stage: "LoggedStage"):
        from tensorboardX import SummaryWriter

        for old in stage.directory.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(stage.directory))

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """One scalar a number."""
        for name, value in facts.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B, known by the stage's id and resumed by it. Where its server knows the run, the server says which steps it holds."""

    def __init__(self, stage: "LoggedStage"):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=stage.run,
            name=f"{stage.run}/{stage.name}",
            id=stage.id,
            resume="allow",
            reinit="create_new",  # stages of one process follow each other, and one may still be closing
            config=dict(stage.settings),
            dir=str(stage.directory),
            settings=wandb.Settings(console="off"),  # what the terminal shows is for people
        )
        if self._run.resumed:
            self.written = self._run.step

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """One row of the run's history."""
        self._run.log(dict(facts), step=step, commit=True)

    def close(self) -> None:
        """Waits for the upload."""
        self._run.finish()


class Trackio:
    """A run of trackio: in its local database, or in the Space that `TRACKIO_SPACE_ID` names."""

    def __init__(self, stage: "LoggedStage"):
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            group=stage.run,
            name=f"{stage.run}/{stage.name} {stage.id}",  # the name is what it resumes by
            resume="allow",
            config=dict(stage.settings),
            embed=False,
            auto_log_gpu=False,  # the numbers of training are asked for, and nothing else
            auto_log_cpu=False,
        )

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """One row of the run's history."""
        self._run.log(dict(facts), step=step)

    def close(self) -> None:
        """Waits for what is on its way."""
        self._run.finish()
