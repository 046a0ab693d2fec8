"""Attention by kernels that others keep: cuDNN's on NVIDIA GPUs, Splash (jax's Pallas kernel) on TPUs.

Both compute what `models.attention` defines, of half-precision inputs, without a [T, S] array in float32. Which one a decoder takes stands
in its configuration (`DecoderConfig.attention`); `kernel_choice` decides on it where the devices are known.

- Lengths are padded to whole tiles of 128. A padded query sees the padded key at its own place, so that no softmax is empty: 0 / 0 would
  get into the gradients of keys. (cuDNN's gradients with a mask are NaN at lengths of 64 beyond a multiple of 128, too.)
- Neither kernel can be split by XLA's partitioner: on a mesh each device takes its rows and its heads (`shard_map`).
- Splash leaves out tiles that nothing in them sees, but has to know windows when it is compiled. Where a window is data (in the scan over
  layers of several kinds) there is one kernel for each of the decoder's windows, and the data says which runs.
- cuDNN is told segments as a mask, as jax's public function takes no offsets, so it computes what lies between segments too. Windows are in
  the same mask: it takes none beside one. Where all is one segment, as in prefill, it needs no mask.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.visibility import Ids, visible
from jaxpolya.parallel.sharding import spec

TILE = 128
LARGEST_BLOCK = 512
"""Of queries or keys that Splash has on the chip at one time."""

Segments = tuple[Ids, Ids] | None
"""Of queries [B, T] and of keys [B, S]; None: all is one segment. Splash takes no shared prompts."""

OneDevice = Callable[[jax.Array, jax.Array, jax.Array, Segments], jax.Array]


def kernel_attention(
    config: DecoderConfig,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments: Segments,
    window: int | jax.Array | None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Attention [B, T, N, H] of the last T of S positions, by the kernel that the configuration names.

    Args:
      config: how scores are scaled and capped, and which kernel; where `window` is data it is one of this decoder's.
      q_BTNH: queries, rotated, bfloat16 or float16.
      k_BSKH, v_BSKH: keys and values.
      segments: of queries and keys.
      window: tokens that a token sees, itself included.
      mesh: what the arrays lie on, where no mesh is in context.
    """

    if config.attention == "cudnn":
        kernel = partial(cudnn, scale=config.score_scale, window=window)
        return _on_each_device(kernel, mesh, q_BTNH, k_BSKH, v_BSKH, segments)

    def of(window: int | None) -> jax.Array:
        kernel = partial(splash, scale=config.score_scale, cap=config.score_cap, window=window)
        return _on_each_device(kernel, mesh, q_BTNH, k_BSKH, v_BSKH, segments)

    if not isinstance(window, jax.Array):
        return of(window)
    windows = {kind.window for kind in config.kinds}
    finite = sorted(width for width in windows if width is not None)
    choices = [*finite, *([None] if None in windows else [])]
    if len(choices) == 1:
        return of(choices[0])
    return jax.lax.switch(jnp.sum(window > jnp.array(finite)), [partial(of, width) for width in choices])


def splash(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments: Segments,
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    interpret: bool = False,
) -> jax.Array:
    """Attention [B, T, N, H] by Splash on one TPU; `interpret` runs it on whatever device is there, for tests."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    (T, N), S = q_BTNH.shape[1:3], k_BSKH.shape[1]
    (q, k, v), segments = _in_tiles((q_BTNH * scale, k_BSKH, v_BSKH), segments)
    shape = q.shape[1], k.shape[1]
    near = None if window is None else window - 1
    mask = splash_attention_mask.LocalMask(shape, (near, 0), offset=S - T)
    block_q, block_k = (next(size for size in range(LARGEST_BLOCK, 0, -TILE) if length % size == 0) for length in shape)
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * N),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block_q, block_kv=block_k, block_q_dkv=block_q, block_kv_dkv=block_k, block_q_dq=block_q, block_kv_dq=block_k
        ),
        attn_logits_soft_cap=cap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    by_head = (x.swapaxes(1, 2) for x in (q, k, v))
    if segments is None:
        out_BNTH = jax.vmap(kernel)(*by_head)
    else:
        out_BNTH = jax.vmap(kernel)(*by_head, splash_attention_kernel.SegmentIds(segments[0][0], segments[1][0]))
    return out_BNTH.swapaxes(1, 2)[:, :T]


def cudnn(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments: Segments,
    *,
    scale: float,
    window: int | jax.Array | None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attention [B, T, N, H] by cuDNN on one GPU; with `implementation="xla"` the same call on whatever device is there, for tests."""
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    attention = partial(jax.nn.dot_product_attention, scale=scale, implementation=implementation)
    if segments is None and T == S and not isinstance(window, jax.Array):
        return attention(q_BTNH, k_BSKH, v_BSKH, is_causal=True, local_window_size=None if window is None else (window - 1, 0))
    (q, k, v), segments = _in_tiles((q_BTNH, k_BSKH, v_BSKH), segments)
    distance_TS = S - T + jnp.arange(q.shape[1])[:, None] - jnp.arange(k.shape[1])
    queries, keys = segments or ((jnp.ones((1, q.shape[1]), jnp.int32), None), (jnp.ones((1, k.shape[1]), jnp.int32), None))
    mask_BTS = visible(queries, keys, distance_TS, window)
    # Where queries and keys begin together the kernel leaves out what lies after a query; cuDNN has no causal mask that ends with them.
    return attention(q, k, v, mask=mask_BTS[:, None], is_causal=T == S)[:, :T]


def _in_tiles(arrays: tuple[jax.Array, jax.Array, jax.Array], segments: Segments) -> tuple[tuple[jax.Array, ...], Segments]:
    """Queries, keys, values and their segments, padded behind their ends to whole tiles, with a key in the place of each query."""
    T, S = arrays[0].shape[1], arrays[1].shape[1]
    more_T = -T % TILE
    more_S = more_T + -(S + more_T) % TILE

    def padded(x: jax.Array, more: int) -> jax.Array:
        return jnp.pad(x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)])

    mores = (more_T, more_S, more_S)
    return (
        tuple(padded(x, more) for x, more in zip(arrays, mores, strict=True)),
        segments and (jax.tree.map(partial(padded, more=more_T), segments[0]), jax.tree.map(partial(padded, more=more_S), segments[1])),
    )


def _on_each_device(
    kernel: OneDevice, mesh: Mesh | AbstractMesh | None, q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, segments: Segments
) -> jax.Array:
    """The kernel on every device of the mesh, for its rows and heads; what the mesh doesn't divide is whole everywhere."""
    if (mesh := mesh or jax.sharding.get_abstract_mesh()).empty or mesh.size == 1:
        return kernel(q_BTNH, k_BSKH, v_BSKH, segments)
    # Heads of queries go with the head of keys that they share.
    rows_heads = spec(mesh, ("batch", None, "kv_heads", None), k_BSKH.shape, "train")
    split = jax.shard_map(
        kernel,
        mesh=mesh,
        in_specs=(rows_heads, rows_heads, rows_heads, PartitionSpec(rows_heads[0])),
        out_specs=rows_heads,
        check_vma=False,
    )
    return split(q_BTNH, k_BSKH, v_BSKH, segments)
