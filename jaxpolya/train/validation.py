"""Looks at a model while it is trained: which step was the best so far, and whether to go on.

Every so many steps the model answers questions that are neither learned from nor evaluated on. What comes of it stands in that step's row
of the log, and all decisions follow from those rows and nothing else: a resumed training, and every host, decides alike.

The best model is kept on disk before a checkpoint goes past its step. One that was best before is dropped only when a checkpoint behind
its successor is whole: a training that is resumed from before that still finds it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jaxpolya.config import ValidationConfig
from jaxpolya.models.decoder import Params

ROW = "validation"
"""Where a row of the step log has the figures of a look."""

HELDOUT = "heldout_loss"
"""The one metric that is better the lower it is."""


class Snapshots(Protocol):
    """The models that a training keeps on its way, by the number of steps done."""

    def save(self, step: int, params: Params) -> None:
        """Keeps a model; one of that step is replaced."""

    def keep_only(self, steps: Sequence[int]) -> None:
        """Drops all others, but those that were asked for."""


class Validation:
    """The looks at one training."""

    def __init__(self, config: ValidationConfig, ask: Callable[[int, Params], Mapping[str, float]], kept: Snapshots):
        """config: how often, and what counts. ask: puts the questions to the parameters after so many steps. kept: where the best goes."""
        self.config, self._ask, self._kept = config, ask, kept
        self.looks: dict[int, float] = {}
        """Steps done → the metric, in their order."""
        self._whole = 0

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Goes on behind the rows of a log, the last of which a whole checkpoint stands for."""
        self.looks = {row["step"] + 1: row[ROW][self.config.metric] for row in rows if ROW in row}
        self._whole = len(rows)

    def due(self, done: int, last: int) -> bool:
        """Whether a look is due after `done` of `last` steps."""
        return done % self.config.every == 0 or done == last

    def look(self, done: int, params: Params, more: Mapping[str, float] | None = None) -> dict[str, float]:
        """The figures after so many steps, with those that were measured elsewhere; keeps the model where it is the best so far."""
        figures = {**self._ask(done, params), **(more or {})}
        self.looks[done] = figures[self.config.metric]
        if self.config.keep == "best" and self.best == done:
            self._kept.save(done, params)
        return figures

    def saving(self, done: int) -> None:
        """A checkpoint of this step is being written, so the one before it is whole."""
        self._kept.keep_only([step for step in (self.best, self._best_of(self._whole)) if step is not None])
        self._whole = done

    @property
    def best(self) -> int | None:
        """The steps done at the best look, the first of equals; None before any."""
        return self._best_of(max(self.looks, default=0))

    def chosen(self, last: int) -> int:
        """The steps after which the model is the one that is left, of a training that did `last`."""
        return self.best if self.config.keep == "best" and self.best is not None else last

    def facts(self, last: int) -> dict[str, Any]:
        """What is to be said of a training that did `last` steps."""
        best = {"metric": self.config.metric, "kept": self.chosen(last), "best": self.best, "last": last, "stopped": self.stops}
        return {**best, "looks": dict(self.looks)}

    @property
    def stops(self) -> bool:
        """Whether the metric hasn't risen for as many looks as are waited for."""
        best = self.best
        return self.config.patience is not None and best is not None and sum(step > best for step in self.looks) >= self.config.patience

    def _best_of(self, until: int) -> int | None:
        sign = -1 if self.config.metric == HELDOUT else 1
        looks = {step: sign * value for step, value in self.looks.items() if step <= until}
        return max(looks, key=lambda step: (looks[step], -step)) if looks else None
