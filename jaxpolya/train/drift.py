"""How far a policy has drifted, how alike its responses have become, and how fast it goes: what a step's log says beside its loss.

Nothing here steers: these numbers are for people and for `evaluation.collapse`.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from jaxpolya.evaluation.collapse import vendi_of_round
from jaxpolya.records import Sample
from jaxpolya.train.advantages import MAX_LOG_RATIO


def divergence(logp: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """KL(p ‖ q) in nats a token, estimated by k3 over tokens that were drawn from p; both hold each response's log-probs."""
    log_ratio = np.concatenate([np.asarray(q, np.float64) - np.asarray(p, np.float64) for p, q in zip(logp, other, strict=True)])
    log_ratio = np.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return float(np.mean(np.expm1(log_ratio) - log_ratio))


def drift_facts(samples: Sequence[Sample], group: int, logps: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """`vendi` of a round's responses and, for each of `start` and `base` whose log-probs there are, `kl_start` and `kl_base`.

    Args:
      samples: of the round, group by group.
      group: G.
      logps: `start`, `base`: each response's log-probs under that model.
    """
    drawn = [np.asarray(sample.logprobs) for sample in samples]
    return {"vendi": vendi_of_round(samples, group)} | {f"kl_{name}": divergence(drawn, scores) for name, scores in logps.items()}


class Speed:
    """How fast a step was, by the clock of this host; the one thing in a log that no two runs have alike."""

    def __init__(self) -> None:
        self._before = time.monotonic()

    def lap(self, tokens: float, rows_busy: float | None = None) -> dict[str, float]:
        """`seconds` since the last lap, `tokens_per_second`, and the share of the engine's row-steps that gave them, where there is one."""
        now = time.monotonic()
        seconds, self._before = now - self._before, now
        busy = {} if rows_busy is None else {"rows_busy": round(rows_busy, 3)}
        return {"seconds": round(seconds, 3), "tokens_per_second": round(tokens / max(seconds, 1e-3), 1), **busy}
