"""Mid-training, and what it shares with RL: optimizer, batches, validation, adapters."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from jaxpolya.config.base import CONTENT, HOW, LATER, Fraction, Seed, Strict
from jaxpolya.config.model import Sampling
from jaxpolya.config.questions import Sources


class Optimizer(Strict):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: PositiveFloat
    """The peak of the schedule, which warm-up ends with."""
    warmup: Fraction = 0.1
    """Share of the steps over which the rate rises linearly to its peak."""
    final: Fraction = 0.1
    """Rate at the end of the cosine, as a share of the peak; 1 keeps it constant."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay (AdamW's), on matrices only; 0 is off."""
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """β₁ of Adam: how slowly the mean of the gradients moves."""
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """β₂ of Adam: how slowly the mean of their squares moves."""
    max_grad_norm: PositiveFloat = 1.0
    """Global norm above which a step's gradient is scaled down to it."""


class Batching(Strict):
    """How sequences become device batches: packed rows with segment ids, micro-batches accumulated."""

    row_tokens: PositiveInt
    """T: tokens of a packed row; longer sequences are left out and counted."""
    micro_rows: Annotated[PositiveInt, HOW] = 8
    """B: rows of one forward and backward pass, over the whole mesh."""
    remat: Annotated[Literal["none", "block"], HOW] = "block"
    """What the backward pass makes again: whole blocks, or (none) their norms and activations alone, from products that are kept."""


class ValidationConfig(Strict):
    """Looks at a model while it is trained, on questions that are neither learned from nor evaluated on."""

    questions: Annotated[Sources, CONTENT]
    """The questions; none of them may be an evaluation set's."""
    sampling: Sampling
    """How responses are drawn."""
    every: PositiveInt = 10
    """Steps between two looks; there is one after the last step too."""
    samples: PositiveInt = 4
    """Responses per question; pass@k is measured for k up to it."""
    greedy: bool = True
    """Ask each question once more at temperature 0."""
    metric: Annotated[str, Field(pattern=r"^(greedy|heldout_loss|pass@[1-9][0-9]*)$")] = "pass@1"
    """What counts: `pass@k` (k a power of two, or `samples`), `greedy`, or in sft `heldout_loss`, of which less is better."""
    keep: Literal["best", "last"] = "best"
    """Which model the training leaves: that of the best look, the first of equals, or that of the last step."""
    patience: PositiveInt | None = None
    """Stop after so many looks in a row that weren't better than the best; unset never does."""
    seed: Seed = 0
    """Seed of the draws, the same ones at every look."""

    @pydantic.model_validator(mode="after")
    def _measured(self) -> "ValidationConfig":
        if self.metric == "greedy" and not self.greedy:
            raise ValueError("metric is greedy, and greedy is off: turn it on")
        k = int(self.metric.removeprefix("pass@")) if self.metric.startswith("pass@") else 1
        if k > self.samples or (k & (k - 1) and k != self.samples):
            raise ValueError(f"metric {self.metric}: k must be a power of two up to samples ({self.samples}), or samples itself")
        return self


LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A weight that may have an adapter, by the name that PEFT and transformers have for it."""


class LoraConfig(Strict):
    """Low-rank adapters: the model stays as it is, and small matrices beside its weights are trained (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """r: rows of A, and columns of B."""
    alpha: PositiveFloat = 32.0
    """α; what an adapter adds is multiplied by α / r."""
    targets: Annotated[list[LoraTarget], Field(min_length=1)] | Literal["all-linear"] = "all-linear"
    """The weights of each layer that have an adapter, by PEFT's names."""
    rslora: bool = False
    """Multiply by α / √r instead, so that the learning rate need not follow the rank (arXiv 2312.03732)."""

    @pydantic.field_validator("targets")
    @classmethod
    def _each_once(cls, targets: list[LoraTarget] | Literal["all-linear"]) -> list[LoraTarget] | Literal["all-linear"]:
        if isinstance(targets, list) and len(set(targets)) < len(targets):
            raise ValueError("name each target once")
        return targets


class SftConfig(Strict):
    """Mid-training: next-token loss on the kept responses, given the bare question."""

    optimizer: Optimizer
    """AdamW, its learning rate and its schedule."""
    batching: Batching
    """How sequences are packed, and how many a device takes at a time."""
    batch_rows: PositiveInt
    """Packed rows per optimizer step, a multiple of `batching.micro_rows`."""
    epochs: PositiveInt = 1
    """Passes over the fine-tuning data."""
    lora: Annotated[LoraConfig | None, LATER] = None
    """Train low-rank adapters instead of all parameters (docs/adapters.md); unset trains all."""
    heldout: Fraction = 0.02
    """Share of the questions whose rows are not learned but measure the held-out loss; 0 holds none out."""
    checkpoint_every: Annotated[PositiveInt, HOW] = 100
    """Steps between two checkpoints, from which a killed stage goes on."""
    seed: Seed = 0
    """Seed of the order of the data and of the held-out split."""
    validation: Annotated[ValidationConfig | None, LATER] = None
    """Looks at the model on the way, keeps the best, and may stop early; unset does nothing of it."""

    @pydantic.model_validator(mode="after")
    def _whole_micro_batches(self) -> "SftConfig":
        if self.batch_rows % self.batching.micro_rows:
            raise ValueError(f"batch_rows ({self.batch_rows}) is not a multiple of batching.micro_rows ({self.batching.micro_rows})")
        if self.validation and self.validation.metric == "heldout_loss" and not self.heldout:
            raise ValueError("validation.metric is heldout_loss, and heldout is 0: hold some questions out")
        return self
