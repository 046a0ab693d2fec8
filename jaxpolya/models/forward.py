"""The forward pass over packed rows, as training and scoring take it.

Arrays are [B, T] and aligned to the token that they are about: entry t belongs to predicting token t from those before it.
The shift happens here and nowhere else.
"""

import dataclasses
from typing import Any

import jax

from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, head_table, hidden_states
from jaxpolya.models.heads import token_logprobs, values


@dataclasses.dataclass(frozen=True)
class Forward:
    """What is static about a forward pass over packed rows."""

    config: DecoderConfig
    dtype: Any
    """Compute dtype."""
    remat: bool = False
    """Recompute blocks in the backward pass."""
    temperature: float = 1.0
    """Divides the logits."""
    entropy_gradient: bool = False
    """Whether the entropy has a gradient."""

    def logprobs(self, params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """(log p of tokens 1 … T−1, entropy of their distributions), [B, T − 1] float32; entry t is about token t + 1."""
        return self._logprobs(params, batch, self._hidden(params, batch))

    def values(self, params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        """What the value head says of what stands before tokens 1 … T−1, [B, T − 1] float32."""
        return values(self._hidden(params, batch), params["value"], params["value_bias"])

    def logprobs_and_values(self, params: Params, batch: dict[str, jax.Array], share: float) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Both, of one pass. `share` of the values' gradient goes on into the decoder."""
        hidden_BTD = self._hidden(params, batch)
        for_values_BTD = share * hidden_BTD + (1 - share) * jax.lax.stop_gradient(hidden_BTD)
        return *self._logprobs(params, batch, hidden_BTD), values(for_values_BTD, params["value"], params["value_bias"])

    def _hidden(self, params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        hidden_BTD = hidden_states(
            params, self.config, batch["tokens"], batch["positions"], batch["segment_ids"],
            group_ids_BT=batch.get("group_ids"), dtype=self.dtype, remat=self.remat,
        )  # fmt: skip
        return hidden_BTD[:, :-1]

    def _logprobs(self, params: Params, batch: dict[str, jax.Array], hidden_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        table_VD, targets = head_table(params), batch["tokens"][:, 1:]
        return token_logprobs(
            self.config, hidden_BTD, table_VD, targets, temperature=self.temperature, entropy_gradient=self.entropy_gradient
        )
