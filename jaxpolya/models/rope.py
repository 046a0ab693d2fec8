"""Rotary position embedding (Su et al., arXiv 2104.09864), in the half-split layout of Hugging Face checkpoints.

Dimension h of a head is rotated together with dimension h + H/2. GGUF's llama files interleave the pairs instead; their
loader undoes that, so that this is the only layout in the program. A layer without positions rotates at frequency 0, which
changes nothing: so all layers run the same program.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.models.config import DecoderConfig, Rope, RopeScaling


def rope_frequencies(rope: Rope | None, head_width: int) -> np.ndarray:
    """Angular frequencies [H/2], float32, in radians per position; 0 without RoPE."""
    if rope is None:
        return np.zeros(head_width // 2, np.float32)
    # float32 as torch rounds it, which is rightly; numpy's own float32 power is off by a bit here and there, and angles multiply that by
    # the position (Gemma 3 270M, 1,196 tokens: logits that differ by 0.027 instead of 0.0015).
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    frequencies = np.float32(1) / (rope.theta ** exponents.astype(np.float64)).astype(np.float32)
    match rope.scaling:
        case None:
            return frequencies
        case RopeScaling(kind="linear", factor=factor):
            return frequencies / np.float32(factor)
        case RopeScaling(kind="llama3") as scaling:
            turns = scaling.original_max_positions * frequencies / (2 * math.pi)
            kept = np.clip((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0, 1)
        case RopeScaling(kind="yarn") as scaling:
            kept = 1 - _yarn_ramp(rope.theta, scaling, head_width)
    return ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(np.float32)


def _yarn_ramp(theta: float, scaling: RopeScaling, head_width: int) -> np.ndarray:
    """How much of each frequency is stretched, 0 to 1, [H/2]: none of those that turn often in the original context."""

    def dimension(turns: float) -> float:
        """The dimension whose frequency makes so many turns in the original context."""
        return head_width * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_width - 1)
    return np.clip((np.arange(head_width // 2, dtype=np.float32) - low) / max(high - low, 0.001), 0, 1)


def rope_tables(config: DecoderConfig, positions_BT: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """(cos, sin) [B, T, H/2], float32, of integer positions [B, T], for each of `config.kinds`."""

    def tables(rope: Rope | None) -> tuple[jax.Array, jax.Array]:
        angles = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(rope, config.head_width)
        factor = rope.scaling.attention_factor if rope and rope.scaling else 1.0
        return jnp.cos(angles) * factor, jnp.sin(angles) * factor

    return [tables(kind.rope) for kind in config.kinds]


def rotate(x_BTNH: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates every head of x by its position; computed in float32, returned in x's dtype."""
    cos, sin = (table[:, :, None, :] for table in rope)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BTNH.dtype)
