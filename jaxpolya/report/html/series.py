"""What the numbers of RL's log are called, what they mean, and in which unit they are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Series(NamedTuple):
    """One number of every step."""

    title: str
    words: str
    unit: str
    main: bool = False
    """Shown at once; the others on demand."""


SERIES = {
    "reward": Series("Reward", "What the verifier pays, 0 to 1.", "mean reward", True),
    "length": Series("Response length", "Stop token included.", "tokens", True),
    "entropy": Series("Entropy", "Of the next token's distribution; near 0 nothing is explored any more.", "nats a token", True),
    "kl": Series(
        "Divergence from the sampler", "How far the updated model is from the one that drew the rollouts (k3).", "nats a token", True
    ),
    "no_signal": Series("Groups without signal", "All rewards of the group are equal: nothing to learn from it.", "share of groups", True),
    "truncated": Series("Truncated", "Cut at the token limit.", "share of responses", True),
    "grad_norm": Series("Gradient norm", "Before clipping.", "", True),
    "distinct_responses": Series("Different responses", "In a group; near 1, the model says one thing only.", "responses a group", True),
    "distinct_answers": Series("Different answers", "In a group.", "answers a group", True),
    "loss": Series("Loss", "What is minimised; its size says little.", ""),
    "clip": Series("Clipped", "Tokens whose ratio was cut.", "share of tokens"),
    "unparseable": Series("No answer found", "The verifier could read none.", "share of responses"),
    "cut_short": Series("Cut short", "By the verifier's limits.", "share of responses"),
    "masked": Series(
        "Masked", "Out of the loss: the verifier's own failures, and what the configuration leaves out.", "share of responses"
    ),
    "sampler_kl": Series("Trainer against sampler", "Before a round's first update; it should be near 0.", "nats a token"),
    "ratio": Series("Ratio", "Trainer's over sampler's probability, mean.", ""),
    "ratio_max": Series("Largest ratio", "Trainer's over sampler's probability.", ""),
    "paid": Series("Paid responses", "", "responses a step"),
    "not_number": Series("Paid without a number", "Though the reference is one.", "share of paid answers"),
    "tokens": Series("Tokens learned from", "", "tokens a step"),
    "refills": Series("Refills", "Further questions asked, for groups without signal.", "a step"),
}
"""In the order in which they are shown; what isn't here is shown by its name in the log."""


def series(steps: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The numbers of a training's log, by name: [step, value] of every step that has one. `step` itself and nested facts are none."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in steps:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                found[name].append((row["step"], float(value)))
    return dict(found)
