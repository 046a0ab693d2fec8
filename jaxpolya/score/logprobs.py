"""Log-probabilities of given responses under given weights: what adherence scores and tests of the sampler rest on."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpolya.data.packing import Batch, Example
from jaxpolya.data.sharing import pack_rows, unpack_rows
from jaxpolya.errors import not_finite
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, to_host
from jaxpolya.parallel.sharding import batch_sharding, param_shardings, replicated

SHORTEST_ROW = 256  # tokens, a whole number of 128 as all rows
PACKED_AT_ONCE = 4096  # examples; a run may have hundreds of thousands, and their log-probs come back to the host


def scoring_shape(examples: Sequence[Example], mesh: Mesh, pass_tokens: int, *, shortest: int = SHORTEST_ROW) -> dict[str, int]:
    """`row_tokens` and `micro_rows` of `score_examples`: rows as long as the longest example, about `pass_tokens` on a data shard."""
    row_tokens = -(-max(shortest, *map(len, examples)) // 128) * 128
    return {"row_tokens": row_tokens, "micro_rows": max(1, pass_tokens // row_tokens) * data_shards(mesh)}


def score_examples(
    params: Params, forward: Forward, mesh: Mesh, examples: Sequence[Example],
    *, row_tokens: int, micro_rows: int, group: int | None = None, model: str = "the model",
) -> Iterator[np.ndarray]:  # fmt: skip
    """Log-probs [n] of each example's tokens (nats; entry 0 is 0, for nothing comes before it), in the examples' order.

    Args:
      params: the plain tree on the mesh.
      forward: what is static.
      mesh: where it runs.
      examples: none longer than `row_tokens`.
      row_tokens: T.
      micro_rows: B, a multiple of the mesh's data shards.
      group: how many examples in a row share a prompt, which is computed once for them (`data.sharing`) and has no log-probs then: its
        tokens' entries are 0. None where each example stands by itself.
      model: its name in errors.

    Raises `InputError` where its log-probs are not finite.
    """
    size = group or 1
    at_once = max(1, PACKED_AT_ONCE // size) * size
    for start in range(0, len(examples), at_once):
        some = examples[start : start + at_once]
        packed = pack_rows(some, group, row_tokens=row_tokens, rows_multiple=micro_rows)
        logp_RT = score_rows(params, forward, mesh, packed, micro_rows)
        for values in unpack_rows(logp_RT, some, group):
            # What an earlier segment's last token says of the next one's first means nothing.
            if not np.isfinite(values[1:]).all():
                raise not_finite(model, "log-probs", forward.dtype)
            yield np.concatenate([np.zeros(1, np.float32), values[1:]])


def score_rows(
    params: Params, forward: Forward, mesh: Mesh, batch: Batch, micro_rows: int, what: Literal["logprobs", "values"] = "logprobs"
) -> np.ndarray:
    """Log-probs [R, T] of packed rows' tokens, entry t about token t; those of a row's and a segment's first token mean nothing.

    `values` are what a value head says of what stands before each token.
    """
    program, scored = _program(forward, mesh, what), []
    inputs = {name: batch[name] for name in ("tokens", "positions", "segment_ids", "group_ids") if name in batch}
    with jax.set_mesh(mesh):
        for row in range(0, len(batch["tokens"]), micro_rows):
            micro = {name: values[row : row + micro_rows] for name, values in inputs.items()}
            scored.append(to_host(program(params, batch_to_mesh(micro, mesh))))
    return np.pad(np.concatenate(scored), ((0, 0), (1, 0)))


def scoring_copy(params: Params, config: DecoderConfig, mesh: Mesh, dtype: Any) -> Params:
    """The parameters as a forward pass in `dtype` reads them, in new arrays: norms as they are, all else in `dtype`."""
    shardings = param_shardings(mesh, abstract_params(config), "train")

    def copy(params: Params) -> Params:
        cast = jax.tree.map(lambda spec, x: spec.cast(x, dtype), abstract_params(config), params)
        return jax.tree.map(jnp.copy, cast)  # what isn't cast would be the caller's own array, which an update may consume

    return jax.jit(copy, out_shardings=shardings)(params)


@functools.cache
def _program(forward: Forward, mesh: Mesh, what: Literal["logprobs", "values"]) -> Callable[..., jax.Array]:
    shardings = param_shardings(mesh, abstract_params(forward.config), "train")
    return jax.jit(
        forward.values if what == "values" else lambda params, batch: forward.logprobs(params, batch)[0],
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )
