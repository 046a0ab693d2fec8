"""The decoder's own configuration: what a Hugging Face `config.json` says, in our letters.

One decoder serves all families; a family is a setting of the few switches below (`jaxpolya.hf.families` translates). The
object is frozen and hashable, so it can be a static argument of a jitted function.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Stretching of rotary frequencies. `linear` divides all by `factor`; `llama3` divides the low ones and blends between.

    Source of `llama3`: Llama 3.1's published code; the four numbers are those of `rope_scaling` in `config.json`.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


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
    """Longest sequence that the model was made for."""
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    tied_embeddings: bool = False
    """The output head is the embedding table."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMS norm of each query and key head before RoPE (Qwen3)."""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads can't share {self.kv_heads} key/value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd; RoPE rotates pairs")
