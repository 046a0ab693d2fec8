"""What the machine is used for: the mesh, the decode engine, the verifier's processes and what they accept."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from jaxpolya.config.base import HOW, Strict
from jaxpolya.records import Unevaluated


class MeshConfig(Strict):
    """The device mesh; `replica` spans slices over the data-centre network. −1 on one axis takes what is left."""

    replica: int = 1
    """Data parallel over slices: parameters are copied."""
    fsdp: int = -1
    """Data parallel with sharded parameters."""
    tensor: int = 1
    """Tensor parallel: heads, feed-forward and vocabulary are split."""

    @pydantic.model_validator(mode="after")
    def _one_free_axis(self) -> "MeshConfig":
        sizes = [self.replica, self.fsdp, self.tensor]
        if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError("axis sizes are positive, and at most one of them is -1 (what is left)")
        return self


class DecodeConfig(Strict):
    """Shape of the decode engine. Changes speed and memory (and floating-point rounding), not what is asked of the model."""

    rows: Annotated[PositiveInt, HOW] = 64
    """B: responses decoded side by side over the whole mesh; where there are more samples than that, they stream through
    these rows, and up to 16 rows read a prompt's keys and values together."""
    burst: Annotated[PositiveInt | None, HOW] = None
    """Tokens between two looks of the host: only then does a row that has ended get another sample. Unset is 8 to 32, by
    the stage's max_new_tokens."""
    attention: Annotated[Literal["auto", "xla", "pallas"], HOW] = "auto"
    """What computes the attention of a step: XLA's products on any device, or on NVIDIA GPUs a Pallas kernel, which reads no more of a row
    than there is of it; they differ in rounding. `auto` takes the kernel for rows enough to fill a GPU, where a trial at the start shows
    that it does what the model needs."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_window(cls, given: Any) -> Any:
        """`burst` was called `window`, which means something else in attention; older configurations are read."""
        if isinstance(given, dict) and "window" in given and "burst" not in given:
            return {("burst" if key == "window" else key): value for key, value in given.items()}
        return given

    def burst_of(self, max_new_tokens: int) -> int:
        """N for responses of up to so many tokens. Unset is about a 32nd of that: what rows draw beyond an end stays a small part."""
        unset = min(max(2 ** ((max_new_tokens // 32).bit_length() - 1), 8), 32)
        return min(self.burst or unset, max_new_tokens)


class MathConfig(Strict):
    """What counts as an answer in mathematics."""

    unevaluated: Unevaluated = "refuse"
    """An answer that equals the reference without having been worked out (97 * 49 for 4753): `refuse` judges it wrong; `accept` pays it,
    which RL exploits, and is for comparing with other graders' figures only."""


class CodeConfig(Strict):
    """What programs may do."""

    modules: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]] = []
    """Third-party modules that a program may import, with what they require, beside the standard library; installed on this machine."""


class VerifyConfig(Strict):
    """The verifier: its process pool, and what it accepts."""

    workers: Annotated[PositiveInt | None, HOW] = None
    """Processes on this host; unset is the number of cores, at most 16."""
    deadline: Annotated[PositiveFloat, HOW] = 10.0
    """Seconds for one verdict; then the worker is killed and the verdict is `timeout`. Under a larger one, generate and eval judge their
    time-outs and crashes again."""
    memory_mb: Annotated[PositiveInt, HOW] = 2048
    """Address-space limit of a worker, in MiB; larger, it has the same effect as a larger deadline."""
    math: MathConfig = MathConfig()
    """What counts as an answer in mathematics."""
    code: CodeConfig = CodeConfig()
    """What programs may do."""
