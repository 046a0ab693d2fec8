"""Reward models: a sequence-classification checkpoint of the same bodies, with one label.

The score of a text is the final hidden state of its last token, times one weight vector. Rows are padded on the right to a
power of two and scored in small batches, so that few shapes are compiled; attention is causal, so padding changes nothing.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpolya.errors import InputError, not_finite
from jaxpolya.hf.families import iter_tensors
from jaxpolya.hf.meta import CheckpointMeta, read_meta
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.hf.source import locate
from jaxpolya.hf.tensors import check_tensors, read_params, usual_names
from jaxpolya.models.config import DecoderConfig, Kernel
from jaxpolya.models.decoder import Params, hidden_states
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, to_host

SCORE = "score.weight"
ROWS_PER_SHARD = 4
SHORTEST = 64


class RewardModel:
    """Scores token rows on a mesh."""

    def __init__(self, meta: CheckpointMeta, params: Params, score_D: np.ndarray, mesh: Mesh, dtype: Any):
        self.meta = meta
        self._params, self._score_D, self._mesh, self._dtype = params, score_D, mesh, jnp.dtype(dtype)

    def score(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Scores [rows], float32, of token rows (as the model's own chat template makes them). The higher, the better.

        Raises:
          InputError: a row is empty or longer than the model allows.
        """
        longest = self.meta.config.context
        for i, row in enumerate(rows):
            if not 0 < len(row) <= longest:
                raise InputError(f"row {i} has {len(row)} tokens; the reward model {self.meta.source} takes 1 to {longest}")
        scores = np.empty(len(rows), np.float32)
        batch = ROWS_PER_SHARD * data_shards(self._mesh)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(rows), batch):
            chosen = by_length[start : start + batch]
            width = max(SHORTEST, 1 << (len(rows[chosen[-1]]) - 1).bit_length())
            tokens_BT, lengths_B = np.zeros((batch, width), np.int32), np.ones(batch, np.int32)
            for b, i in enumerate(chosen):
                tokens_BT[b, : len(rows[i])] = rows[i]
                lengths_B[b] = len(rows[i])
            placed = batch_to_mesh((tokens_BT, lengths_B), self._mesh)
            with jax.set_mesh(self._mesh):
                scores_B = _score(self._params, self._score_D, self.meta.config, self._dtype, *placed)
            scores[chosen] = to_host(scores_B)[: len(chosen)]
        if not np.isfinite(scores).all():
            raise not_finite(self.meta.source, "scores", self._dtype)
        return scores


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _score(params: Params, score_D: jax.Array, config: DecoderConfig, dtype: Any, tokens_BT: jax.Array, lengths_B: jax.Array) -> jax.Array:
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    segment_ids_BT = (positions_BT < lengths_B[:, None]).astype(jnp.int32)
    hidden_BTD = hidden_states(params, config, tokens_BT, positions_BT, segment_ids_BT, dtype=dtype)
    last_BD = jnp.take_along_axis(hidden_BTD, lengths_B[:, None, None] - 1, axis=1)[:, 0].astype(jnp.float32)
    return jnp.einsum("bd,d->b", last_BD, score_D, precision=jax.lax.Precision.HIGHEST)


def inspect_reward_model(source: str) -> CheckpointMeta:
    """What is known of a reward model without its weights.

    Args:
      source: a Hugging Face directory or hub name of a …ForSequenceClassification checkpoint with one label.

    Raises:
      InputError: it is missing, not a reward model, has several labels, or can't be shown a conversation.
    """
    location = locate(source, weights=False)
    if location.kind != "safetensors":
        raise InputError(f"{source} is not a reward model: give a Hugging Face directory or hub name of a …ForSequenceClassification model")
    meta = read_meta(source, location.path, "ForSequenceClassification")
    if (labels := len(meta.hf_config.get("id2label") or {}) or meta.hf_config.get("num_labels", 2)) != 1:
        raise InputError(f"{source} scores {labels} labels; a reward model has one")
    if not meta.tokenizer.chat_template:
        raise InputError(f"{source}: this reward model's tokenizer has no chat template; it can't be shown a conversation")
    # There is no output head, whatever the configuration says of it.
    return dataclasses.replace(meta, config=dataclasses.replace(meta.config, tied_embeddings=True))


def load_reward_model(source: str, mesh: Mesh, dtype: Any = jnp.float32, attention: Kernel = "xla") -> RewardModel:
    """Loads what `inspect_reward_model` accepts.

    Args:
      source: a Hugging Face directory or a hub name.
      mesh: where it runs.
      dtype: compute dtype; parameters stay float32, as does the score.
      attention: what computes attention, where it can.

    Raises:
      InputError: as `inspect_reward_model`, or weights are missing.
    """
    meta = inspect_reward_model(source)
    files, D = Safetensors(locate(source, weights=True).path), meta.config.width
    files.rename(usual_names(files.shapes, meta.config))
    check_tensors(files, meta.config, {SCORE: (1, D)})
    files.check_readable([SCORE, *(tensor.name for tensor, _, _ in iter_tensors(meta.config))])
    score_D = files.read(SCORE, (slice(0, 1), slice(0, D)))[0].astype(np.float32)
    params = read_params(files, meta.config, mesh)
    meta = dataclasses.replace(meta, config=with_kernel(meta.config, attention, dtype, mesh)[0])
    return RewardModel(meta, params, score_D, mesh, dtype)
