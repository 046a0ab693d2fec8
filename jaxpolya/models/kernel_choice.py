"""Which attention a decoder takes on a mesh.

A kernel is tried before it is relied on: on one device, packed rows with their gradient and prefill, all small, for each of the model's
windows, beside the reference. So it says itself what it lacks (a width of heads, a version of cuDNN, a newer chip), and the model goes on
with XLA's attention, which takes everything, instead of ending in somebody else's traceback or in NaN. The trial costs some seconds of
compiling, which the cache of programs saves the next time, and nothing on a CPU.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpolya.errors import ConfigError
from jaxpolya.models.attention import causal_attention, packed_attention
from jaxpolya.models.config import DecoderConfig, Kernel
from jaxpolya.parallel.hosts import from_primary

PLATFORMS: dict[Kernel, str] = {"cudnn": "gpu", "splash": "tpu"}
NAMES: dict[Kernel, str] = {"cudnn": "cuDNN", "splash": "Splash"}
LENGTH = 192  # not in whole tiles; a multiple of 6
Trial = Callable[[int | None], Mapping[str, np.ndarray]]
"""A layer's window → what comes of a computation, by name."""
TOLERANCE = 0.05
"""Of the largest number in the reference's output or gradient; bfloat16 has 3 digits, and what it makes of these inputs is within 0.02."""


def with_kernel(
    config: DecoderConfig, asked: Literal["auto", "xla", "cudnn", "splash"], dtype: Any, mesh: Mesh
) -> tuple[DecoderConfig, str | None]:
    """(the decoder with the attention that it takes, what a person should know of the choice).

    Args:
      config: the decoder.
      asked: `model.attention`.
      dtype: compute dtype.
      mesh: what it runs on.

    Raises:
      ConfigError: the kernel that was asked for is another device's.
    """
    device = mesh.devices.flat[0]
    ours = next((kernel for kernel, platform in PLATFORMS.items() if platform == device.platform), None)
    if asked != "auto" and asked not in ("xla", ours):
        raise ConfigError(
            f"model.attention: {asked} runs on a {PLATFORMS[asked].upper()}, and this is a {device.platform.upper()}; "
            "write auto, which takes what the device has"
        )
    exact = asked == "auto" and dtype == jnp.float32  # is what the reference is for, and nothing to be told of
    if asked == "xla" or ours is None or exact:
        return dataclasses.replace(config, attention="xla"), None
    chosen = dataclasses.replace(config, attention=ours)
    if lacking := from_primary(_lacks(chosen, dtype)):
        return dataclasses.replace(config, attention="xla"), f"attention is computed by XLA and not by {NAMES[ours]}: {lacking}"
    return chosen, None


@functools.cache  # several seeds are several sessions
def _lacks(config: DecoderConfig, dtype: Any) -> str | None:
    """Why the kernel can't compute a decoder's attention, if it can't."""
    if dtype == jnp.float32:
        return "it rounds what is to be computed in float32"
    if config.attention == "cudnn" and config.score_cap is not None:
        return "it has no cap on scores"
    reference = dataclasses.replace(config, attention="xla")
    return failure(config, LENGTH // 2, partial(_trial, config, dtype), partial(_trial, reference, dtype))


def failure(config: DecoderConfig, longest: int, by_kernel: Trial, by_reference: Trial) -> str | None:
    """What is wrong with what a kernel gives in trials beside the reference, one for each of the decoder's windows, of which none is longer
    than `longest` tokens there; None where nothing is."""
    try:
        for window in {kind.window and min(kind.window, longest) for kind in config.kinds}:
            found_by_name, expected_by_name = by_kernel(window), by_reference(window)
            for name, expected in expected_by_name.items():
                error, scale = np.abs(found_by_name[name] - expected).max(), np.abs(expected).max()
                if not error <= TOLERANCE * scale:
                    return f"in a trial its {name} was {error:.3g} off, of numbers up to {scale:.3g}"
    except Exception as error:  # whatever a kernel, its compiler or its libraries raise
        words = str(error).strip().partition("\n")[0]
        return f"in a trial it ended with {type(error).__name__}: {words}"
    return None


def _trial(config: DecoderConfig, dtype: Any, window: int | None) -> dict[str, np.ndarray]:
    """Output and gradient, flat, on this host's first device, of the heads of at most two key/value heads.

    Outputs are of two rows of segments and padding, and of prefill, of a prompt and of what follows on a shared beginning; gradients of
    the rows.
    """
    K, H = min(2, config.kv_heads), config.head_width
    N = config.heads // config.kv_heads * K
    rng, segments = np.random.default_rng(0), np.repeat([[1, 2, 0], [1, 1, 2]], [LENGTH // 2, LENGTH // 3, LENGTH // 6], axis=1)
    q, k, v, wanted = (rng.normal(size=(2, LENGTH, count, H)).astype(dtype) for count in (N, K, K, N))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jnp.where((segments > 0)[..., None, None], packed_attention(config, q, k, v, jnp.asarray(segments), window), 0)
        return jnp.sum(out.astype(jnp.float32) * wanted.astype(np.float32)), out

    def run(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[Any, ...]:
        gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
        prefill = [causal_attention(config, q[:, -last:], k, v, window) for last in (LENGTH, LENGTH // 2)]
        return (out, *prefill), gradients

    with jax.default_device(jax.local_devices()[0]):
        outputs, gradients = jax.jit(run)(q, k, v)
    flat = [np.concatenate([np.asarray(x, np.float32).ravel() for x in arrays]) for arrays in (outputs, gradients)]
    return {"output": flat[0], "gradient": flat[1]}
