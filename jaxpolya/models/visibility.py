"""Which tokens of a packed row see which: what every attention over such rows agrees on.

A token sees itself and earlier tokens of its own segment, as far as a window goes. Where prompts are shared (`data.sharing`) it sees,
within its group, segment 0 besides, and how far a window goes is counted in positions: a prompt may lie far back in the row.
"""

from typing import NamedTuple

import jax

Window = int | jax.Array | None
"""Tokens that a token sees, itself included; None: all before it."""


class SharedPrompts(NamedTuple):
    """Of rows in which a prompt stands once for all responses to it: int32 [B, T] each."""

    group_ids: jax.Array
    positions: jax.Array


Ids = tuple[jax.Array, SharedPrompts | None]
"""Segments [B, T], int32, and what shared prompts need besides."""


def visible(queries: Ids, keys: Ids, distance_TS: jax.Array, window: Window) -> jax.Array:
    """Which of S keys each of T queries sees, [B, T, S].

    Args:
      queries: [B, T] each.
      keys: [B, S] each.
      distance_TS: how many places of the row a key lies before a query.
      window: of the layer.
    """
    (q_segments, q_shared), (k_segments, k_shared) = (
        jax.tree.map(lambda ids_BT: ids_BT[:, :, None], queries),
        jax.tree.map(lambda ids_BS: ids_BS[:, None], keys),
    )
    seen, distance = (q_segments == k_segments) & (distance_TS >= 0), distance_TS
    if q_shared and k_shared:
        seen = ((q_segments == k_segments) | (k_segments == 0)) & (q_shared.group_ids == k_shared.group_ids) & (distance_TS >= 0)
        distance = q_shared.positions - k_shared.positions
    return seen if window is None else seen & (distance < window)
