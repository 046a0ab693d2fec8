"""Attention of a decode step: a row's query against what it has seen so far.

That is one softmax over three parts: the lane's prefixes, the row's suffix up to where the burst began, and the recent tokens of the burst
itself (see `burst`). `Plan.attention` says what computes it: products of XLA's, which run everywhere and stand here, or the kernel of
`decode.kernel`, which reads no more of a row than there is of it.

XLA's products read `live` slots of every row's suffix. They sum it in blocks of fixed size, oldest first, so that blocks beyond a row's end
add exact zeros, whoever its neighbours are.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxpolya.decode.lanes import Lanes, Plan, Rows, turns_keys
from jaxpolya.models.attention import MASKED, precision_of, softcap
from jaxpolya.models.config import LayerKind

SUFFIX_BLOCK = 256

KeysValues = tuple[jax.Array, jax.Array]
"""Of one layer."""
_Part = tuple[jax.Array, jax.Array, jax.Array]
"""Keys [..., H, S], values [..., S, H], and which of them are visible."""


class Read(NamedTuple):
    """What a layer's products read in all steps of a burst: keys [..., H, S], values [..., S, H]; for the kernel keys [..., S, H]."""

    prefix: KeysValues
    suffix: list[KeysValues]
    """Its live slots, in blocks; for the kernel all of them in one."""


class Seen(NamedTuple):
    """What rows see in a step, of one kind of layer."""

    prefix: jax.Array
    """[P, 1, W, G, 1, S_p]."""
    suffix: jax.Array
    """[P, 1, G, 1, live]."""
    recent: jax.Array
    """[N]."""


def reads(plan: Plan, lanes: Lanes, live: int, platform: str) -> list[Read]:
    """What each layer's attention reads.

    Where a suffix has more than one block, a CPU copies the live ones, so it reads once a burst. On accelerators slices and transposes are
    parts of the products, so they read within the step.
    """
    if plan.attention == "pallas":
        return [Read(prefix, [suffix]) for prefix, suffix in zip(lanes.prefix, lanes.suffix, strict=True)]

    def part(cache: KeysValues, start: int = 0, end: int | None = None) -> KeysValues:
        keys, values = cache
        keys = keys[..., start:end] if turns_keys(platform) else keys[..., start:end, :].swapaxes(-1, -2)
        return keys, values[..., start:end, :]

    def blocks(cache: KeysValues) -> list[KeysValues]:
        slots = min(live, cache[1].shape[-2])
        return [part(cache, start, min(start + SUFFIX_BLOCK, slots)) for start in range(0, slots, SUFFIX_BLOCK)]

    return [Read(part(prefix), blocks(suffix)) for prefix, suffix in zip(lanes.prefix, lanes.suffix, strict=True)]


def visible(plan: Plan, kind: LayerKind, live: int, rows: Rows, n: jax.Array) -> Seen:
    """What a row sees in step n of a burst."""
    slots, length_PG1, prompt_PG1 = plan.suffix_slots(kind), rows.length_PG[:, :, None], rows.prompt_PG[:, :, None]
    in_prefix_PGS = jnp.arange(plan.prefix) < prompt_PG1
    if kind.window is not None:
        in_prefix_PGS &= prompt_PG1 + length_PG1 + n - jnp.arange(plan.prefix) < kind.window
    in_suffix_PGS = sees_suffix(jnp.arange(min(live, slots)), slots, kind.window, length_PG1, n)
    in_recent_N = sees_recent(jnp.arange(plan.burst), kind.window, n)
    own_PWG = jnp.arange(plan.prompts)[:, None] == rows.place_PG[:, None, :]
    in_prefix_PWGS = own_PWG[..., None] & in_prefix_PGS[:, None]
    return Seen(in_prefix_PWGS[:, None, :, :, None], in_suffix_PGS[:, None, :, None], in_recent_N)


def sees_suffix(at: jax.Array, slots: int, window: int | None, length: jax.Array, n: jax.Array) -> jax.Array:
    """Which of the suffix' slots `at` a row that had `length` tokens before the burst sees in step n; with a window they are a ring."""
    back = length - at  # how many tokens before the burst a slot was written
    if window is None:
        return back > 0
    back = (back - 1) % slots + 1
    return (back <= length) & (back + n < window)


def sees_recent(at: jax.Array, window: int | None, n: jax.Array) -> jax.Array:
    """Which of the burst's tokens `at` a row sees in step n."""
    return at <= n if window is None else (at <= n) & (n - at < window)


def turned(plan: Plan, recent: jax.Array) -> jax.Array:
    """Recent keys or values from [P, K, G, N, H] to what the plan's attention takes, or back. The GPU's kernel takes [P, G, K, N, H]: so
    XLA writes what comes out of a product, and doesn't turn it around before by kernels of its own."""
    return recent.swapaxes(1, 2) if plan.attention == "pallas" else recent


def attend(
    plan: Plan, mesh: Mesh, kind: LayerKind, q_PKGMH: jax.Array, read: Read, recent: KeysValues, rows: Rows, n: jax.Array, seen: Seen
) -> jax.Array:
    """Attention [P, G, K, M, H] of step n's queries in a layer of one kind.

    Args:
      plan: what is static.
      mesh: what the arrays lie on.
      kind: of the layer.
      q_PKGMH: queries, rotated.
      read: the layer's caches.
      recent: keys and values of the burst's tokens, the step's own among them, as `turned` has them.
      rows: where each row stands.
      n: the step, int32.
      seen: by `visible`; the kernel doesn't need it.
    """
    if plan.attention == "pallas":
        from jaxpolya.decode import kernel

        return kernel.attention(plan, mesh, kind, q_PKGMH, read.prefix, read.suffix[0], recent, rows, n)
    own = [(*block, seen.suffix[..., i * SUFFIX_BLOCK :][..., :SUFFIX_BLOCK]) for i, block in enumerate(read.suffix)]
    own.append((recent[0].swapaxes(-1, -2), recent[1], seen.recent))
    return jnp.moveaxis(_by_products(plan, q_PKGMH, (*read.prefix, seen.prefix), own), 1, 2)


def _by_products(plan: Plan, q_PKGMH: jax.Array, prefix: _Part, own: list[_Part]) -> jax.Array:
    """One softmax over the lane's prefixes and what is a row's own: [P, K, G, M, H]. Scores and sums are float32.

    What is a row's own is summed part by part (see the module), and so are the prefixes: those of a lane's other prompts add exact zeros,
    whichever of them is the row's.
    """
    precision, config = precision_of(q_PKGMH), plan.config

    def scores(q: jax.Array, keys: jax.Array, axes: str, mask: jax.Array) -> jax.Array:
        out = jnp.einsum(axes, q, keys, precision=precision, preferred_element_type=jnp.float32)
        return jnp.where(mask, softcap(out * config.score_scale, config.score_cap), MASKED)

    def weighted(axes: str, weights: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.einsum(axes, weights.astype(values.dtype), values, precision=precision, preferred_element_type=jnp.float32)

    # The prefixes are a batch of products: one of [G, W·S_p] might sum a prompt in another order, depending on its place.
    q_PKWGMH = jnp.broadcast_to(q_PKGMH[:, :, None], (*q_PKGMH.shape[:2], plan.prompts, *q_PKGMH.shape[2:]))
    keys, prefix_values, visible = prefix
    prefix_PKWGMS = scores(q_PKWGMH, keys, "pkwgmh,pkwhs->pkwgms", visible)
    # A GPU's compiler would make one product of all that share their queries, and copy all keys side by side for it in every step (a third
    # of a step's bytes); hence the barrier, which gives each part queries of its own.
    queries = jax.lax.platform_dependent((q_PKGMH,) * len(own), cuda=jax.lax.optimization_barrier, default=lambda queries: queries)
    parts = [
        (scores(q_PKGMH, keys, "pkgmh,pkghs->pkgms", visible), values)
        for q_PKGMH, (keys, values, visible) in zip(queries, own, strict=True)
    ]

    peaks = [jnp.max(prefix_PKWGMS, axis=(2, -1))[..., None], *(jnp.max(part, axis=-1, keepdims=True) for part, _ in parts)]
    peak_PKGM1 = functools.reduce(jnp.maximum, peaks)
    weights = jnp.exp(prefix_PKWGMS - peak_PKGM1[:, :, None])
    total = jnp.sum(jnp.sum(weights, axis=-1, keepdims=True), axis=2)
    out = jnp.sum(weighted("pkwgms,pkwsh->pkwgmh", weights, prefix_values), axis=2)
    for part, values in parts:
        weights = jnp.exp(part - peak_PKGM1)
        total += jnp.sum(weights, axis=-1, keepdims=True)
        out += weighted("pkgms,pkgsh->pkgmh", weights, values)
    return (out / total).astype(q_PKGMH.dtype)
