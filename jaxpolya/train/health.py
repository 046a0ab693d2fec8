"""Whether a training is worth going on with, told from what its steps measure anyway.

A learning rate that is far too high ends in one of two ways. Numbers overflow, which shows in the next step (`metrics.StepLog`), or at the
end of a stage in nothing but the parameters. Or the network dies: no input reaches its output any more, it gives all V tokens the same
chance, and no gradient leads out of that; every number is finite, and nothing is learnt ever after.
"""

import math
from pathlib import Path
from typing import Any

from jaxpolya.errors import InputError, RunError
from jaxpolya.models.decoder import Params
from jaxpolya.train.state import all_finite

DEAD = 1e-5
"""How near to ln V, as a share of it, a dead network's loss is. Rounding keeps it from 0; a fresh network of random weights is farther."""


class Health:
    """Watches one stage's training."""

    def __init__(self, directory: Path, vocabulary: int, model: str):
        """directory: of the stage. vocabulary: V. model: that training starts from, as errors name it."""
        self._directory, self._blind, self._model = directory, math.log(vocabulary), model

    def check_step(self, row: dict[str, Any]) -> None:
        """Looks at a step's metrics: `loss` or, in RL, `entropy`, which are ln V in a dead network, and `grad_norm`.

        Raises:
          InputError: the first step is not finite, before anything was learnt: the model was broken.
          RunError: the network is dead.
        """
        strange = [name for name, value in row.items() if not math.isfinite(value)]
        if strange and row["step"] == 0:
            raise InputError(
                f"{self._model}: in the first step of {self._directory.name}, before anything was learnt, {', '.join(strange)} is not "
                "finite: the weights are damaged, or overflow in the compute dtype; take another checkpoint, or compute in float32"
            )
        if row["grad_norm"] == 0 and self._is_blind(row.get("entropy", row["loss"])):
            self._refuse(f"step {row['step']}: the network is dead", "and the gradient is 0, so that no step can mend it")

    def check_end(self, params: Params, means: dict[str, float]) -> None:
        """Looks at what the last update left, which no step has measured. Raises `RunError` where it must not be saved.

        Args:
          params: the parameters.
          means: as a step's metrics, of the last batch under these parameters.
        """
        if not all_finite(params):
            raise RunError(
                f"{self._directory.name}: the last update left parameters that are not finite, the training has diverged; {self._remedy}"
            )
        if self._is_blind(means.get("entropy", means["loss"])):
            self._refuse("the last update left a dead network", "and no step could mend that")

    def _is_blind(self, loss: float) -> bool:
        return abs(loss - self._blind) <= DEAD * self._blind

    def _refuse(self, what: str, more: str) -> None:
        raise RunError(
            f"{self._directory.name}, {what}: it gives all tokens the same chance, whatever it is asked (loss ln V = {self._blind:.2f}), "
            f"{more}; {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        return "lower its optimizer.learning_rate"
