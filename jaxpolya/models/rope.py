"""Rotary position embedding (Su et al., arXiv 2104.09864), in the half-split layout of Hugging Face checkpoints.

Dimension h of a head is rotated together with dimension h + H/2. GGUF's llama files interleave the pairs instead; their
loader undoes that, so that this is the only layout in the program.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.models.config import DecoderConfig, RopeScaling


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Angular frequencies [H/2], float32, in radians per position."""
    exponents = np.arange(0, config.head_width, 2, dtype=np.float32) / np.float32(config.head_width)
    frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    return frequencies if config.rope_scaling is None else _scale(frequencies, config.rope_scaling)


def _scale(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    if scaling.kind == "linear":
        return frequencies / np.float32(scaling.factor)
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_positions / wavelengths
    blend = np.clip((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0, 1)
    return ((1 - blend) * frequencies / scaling.factor + blend * frequencies).astype(np.float32)


def rope_tables(config: DecoderConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) [B, T, H/2], float32, of integer positions [B, T]."""
    angles = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTNH: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates every head of x by its position; computed in float32, returned in x's dtype."""
    cos, sin = (table[:, :, None, :] for table in rope)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BTNH.dtype)
