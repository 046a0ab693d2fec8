"""Which attention decoding takes on a mesh: the kernel where there is an NVIDIA GPU, and where a trial shows that it computes what XLA's
products do, as `models.kernel_choice` has it for the attention of many queries."""

import dataclasses
import functools
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpolya.decode.attention import attend, reads, turned, visible
from jaxpolya.decode.lanes import DecodeKernel, Lanes, Plan, Rows
from jaxpolya.decode.sampling import Draw
from jaxpolya.errors import ConfigError
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.kernel_choice import failure
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import make_mesh

PREFIX, SUFFIX, BURST = 96, 80, 16  # slots of the trial; not all in whole blocks
FEWEST_PROGRAMS = 64
"""Of the kernel on a device: it has one for each row and key/value head, and with fewer most of a GPU has nothing to do."""


def decode_attention(
    config: DecoderConfig, asked: Literal["auto", "xla", "pallas"], dtype: Any, mesh: Mesh, rows: int | None = None
) -> tuple[DecodeKernel, str | None]:
    """(what computes attention in decoding, what a person should know of the choice).

    Args:
      config: the decoder.
      asked: `decode.attention`.
      dtype: compute dtype.
      mesh: what it runs on.
      rows: of an engine, over the whole mesh; None: as many as the kernel needs.

    Raises:
      ConfigError: the kernel was asked for on another device than a GPU.
    """
    platform = mesh.devices.flat[0].platform
    if asked == "pallas" and platform != "gpu":
        raise ConfigError(
            f"decode.attention: pallas runs on NVIDIA GPUs, and this is a {platform.upper()}; write auto, which takes what the device has"
        )
    few = rows is not None and rows * config.kv_heads < FEWEST_PROGRAMS * mesh.size
    if asked == "xla" or platform != "gpu" or (asked == "auto" and (few or dtype == jnp.float32)):
        return "xla", None
    if lacking := from_primary(_lacks(config.base, jnp.dtype(dtype))):
        return "xla", f"decoding's attention is computed by XLA and not by a kernel: {lacking}"
    return "pallas", None


@functools.cache
def _lacks(config: DecoderConfig, dtype: Any) -> str | None:
    """Why the kernel can't compute a decoder's attention, if it can't."""
    if dtype == jnp.float32:
        return "it rounds what is to be computed in float32"
    if config.head_width & (config.head_width - 1):
        return f"it takes heads whose width is a power of two, and these have {config.head_width}"
    K = min(2, config.kv_heads)
    one_layer = dataclasses.replace(config, layers=1, kv_heads=K, heads=config.heads // config.kv_heads * K)
    return failure(config, SUFFIX // 2, partial(_trial, one_layer, dtype, "pallas"), partial(_trial, one_layer, dtype, "xla"))


def _trial(config: DecoderConfig, dtype: Any, by: DecodeKernel, window: int | None) -> dict[str, np.ndarray]:
    """Output, flat, on this host's first device: of 2 lanes of 3 rows and 2 prompts each, at several lengths."""
    config, kind = dataclasses.replace(config, pattern=(LayerKind(window),)), LayerKind(window)
    plan = Plan(config, 2, 3, PREFIX, SUFFIX, BURST, Draw(), dtype, prompts=2, attention=by)
    P, G, K, M, H = plan.lanes, plan.rows, config.kv_heads, config.heads // config.kv_heads, config.head_width
    rng, slots = np.random.default_rng(0), plan.suffix_slots(kind)
    shapes = [(P, K, G, M, H), *[(P, K, plan.prompts, PREFIX, H)] * 2, *[(P, K, G, slots, H)] * 2, *[(P, K, G, BURST, H)] * 2]
    q, *caches = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    rows = (
        np.array([[0, 1, 0], [1, 1, 0]]),
        np.array([[PREFIX, 5, 0], [33, 64, 1]]),
        np.zeros((P, G)),
        np.array([[0, BURST, SUFFIX - BURST], [SUFFIX, 0, SUFFIX // 2]]),
        np.zeros((P, G)),
    )
    device = jax.local_devices()[0]
    mesh = make_mesh(devices=[device])

    def run(q: jax.Array, caches: Any, rows: Rows) -> jax.Array:
        (prefix, suffix, recent), n = zip(caches[::2], caches[1::2], strict=True), jnp.int32(2 * BURST // 3)
        recent = turned(plan, recent[0]), turned(plan, recent[1])
        read = reads(plan, Lanes([prefix], [suffix], rows.place_PG), plan.suffix, "gpu")[0]
        return attend(plan, mesh, kind, q, read, recent, rows, n, visible(plan, kind, plan.suffix, rows, n))

    with jax.default_device(device):
        out = jax.jit(run)(q, caches, Rows(*(jnp.asarray(array, jnp.int32) for array in rows)))
    return {"output": np.asarray(out, np.float32).ravel()}
