"""The decoder's own configuration: what a Hugging Face `config.json` says, in our letters.

One decoder serves all families; a family is a setting of the few switches below (`jaxpolya.hf.families` translates). Layers
differ in nothing but what they attend to and how they are told positions: their `LayerKind`. The object is frozen and
hashable, so it can be a static argument of a jitted function.
"""

import dataclasses
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Kernel = Literal["xla", "cudnn", "splash"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Stretching of rotary frequencies beyond the context that a model was first trained for.

    `linear` divides all by `factor`. `llama3` divides the low ones and blends between, as Llama 3.1's published code does. `yarn`
    blends over a ramp of dimensions and scales queries and keys (Peng et al., arXiv 2309.00071, §3.2 and §3.4). The numbers
    are those of `rope_scaling` in `config.json`.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    """Of cosine and sine (`yarn`)."""
    truncate: bool = True
    """Whether the ramp begins and ends at whole dimensions (`yarn`)."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """How a layer's queries and keys are rotated."""

    theta: float = 10_000.0
    scaling: RopeScaling | None = None


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What tells one layer from another."""

    window: int | None = None
    """Tokens that a token sees, itself and those just before it; None: all before it."""
    rope: Rope | None = Rope()
    """None: the layer isn't told positions (NoPE)."""


TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
"""The weights of a block that may have adapters."""


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters beside a block's weights: y = W x + scale · B (A x) (Hu et al., arXiv 2106.09685, §4.1)."""

    rank: int
    """r: rows of A, columns of B."""
    alpha: float
    """α."""
    targets: tuple[str, ...] = TARGETS
    """Weights that have one, in the order of `TARGETS`."""
    rank_stabilised: bool = False
    """Whether the scale is α / √r (Kalajdzievski, arXiv 2312.03732) instead of α / r."""

    @property
    def scale(self) -> float:
        """What B (A x) is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shapes and switches of a decoder-only transformer with grouped-query attention and a gated feed-forward."""

    family: str
    """The Hugging Face `model_type` that this came from, and goes back to."""
    vocab_size: int
    """V."""
    width: int
    """D."""
    ff_width: int
    """F."""
    layers: int
    """L."""
    heads: int
    """N, query heads."""
    kv_heads: int
    """K, key/value heads; N is a multiple of K."""
    head_width: int
    """H; N·H need not be D."""
    max_positions: int
    """`max_position_embeddings`; see `context`."""
    pattern: tuple[LayerKind, ...] = (LayerKind(),)
    """The kinds of the first layers; the others repeat them."""
    norm_eps: float = 1e-6
    tied_embeddings: bool = False
    """The output head is the embedding table."""
    activation: Activation = "silu"
    """Of the gate."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    pre_norms: bool = True
    """Attention and feed-forward read a normed residual stream."""
    post_norms: bool = False
    """What attention and feed-forward add to the residual stream is normed first (Gemma 2, OLMo 2)."""
    qk_norm: Literal["none", "head", "all"] = "none"
    """RMS norm of queries and keys before RoPE: of each head (Qwen3, Gemma 3), or of all heads together (OLMo 2)."""
    zero_centred_norms: bool = False
    """Norms multiply by 1 + their scale (Gemma)."""
    scaled_embeddings: bool = False
    """Embeddings are multiplied by √D on their way in (Gemma)."""
    query_scale: float | None = None
    """Multiplies attention scores; None: H^-1/2."""
    score_cap: float | None = None
    """c, where attention scores s become c·tanh(s / c) (Gemma 2)."""
    logit_cap: float | None = None
    """c, where logits s become c·tanh(s / c) (Gemma 2)."""
    value_head: bool = False
    """A linear read-out of the final hidden states beside the output head, for training alone; no file has it."""
    lora: Lora | None = None
    """Adapters, which are parameters of their own beside those of `base`; no file of a model says any."""
    attention: Kernel = "xla"
    """What computes the attention of many queries; a matter of the device, which no file says (`models.kernel_choice`)."""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads can't share {self.kv_heads} key/value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd; RoPE rotates pairs")
        if self.query_scale == self.head_width**-0.5:
            object.__setattr__(self, "query_scale", None)  # equal decoders have equal configurations

    @property
    def base(self) -> "DecoderConfig":
        """The decoder that files hold: without adapters and value head."""
        return dataclasses.replace(self, lora=None, value_head=False)

    @property
    def score_scale(self) -> float:
        """What attention scores are multiplied by."""
        return self.head_width**-0.5 if self.query_scale is None else self.query_scale

    @property
    def context(self) -> int:
        """Longest sequence that the model was made for, in tokens.

        Where rotary frequencies are stretched by `linear` or `yarn`, `max_positions` may say what they were stretched from (so in
        Vicuna 16k and Qwen2.5); with `llama3` it says what they were stretched to.
        """
        reach = [self.max_positions]
        for kind in self.kinds:
            match kind.rope and kind.rope.scaling:
                # Gemma 3's configurations say the stretched length.
                case RopeScaling(kind="linear", factor=factor) if self.family != "gemma3_text":
                    reach.append(int(self.max_positions * factor))
                case RopeScaling(kind="yarn", factor=factor, original_max_positions=original):
                    reach.append(int(original * factor))
        return max(reach)

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The different kinds of layers."""
        return tuple(dict.fromkeys(self.pattern[: self.layers]))

    @property
    def kind_of_layer(self) -> tuple[int, ...]:
        """The place of each layer's kind in `kinds`, [L]."""
        kinds = self.kinds
        return tuple(kinds.index(self.pattern[i % len(self.pattern)]) for i in range(self.layers))
