"""What the numbers of a training's log are called, what they mean, and in which unit they are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple


class Series(NamedTuple):
    """One number of every step."""

    title: str
    words: str
    unit: str
    main: bool = False
    """Shown at once; the others on demand."""


SERIES = {
    "reward": Series("Reward", "What is paid for a response: 0 to 1, where the verifier alone pays.", "mean reward", True),
    "length": Series("Response length", "Stop token included.", "tokens", True),
    "entropy": Series("Entropy", "Of the next token's distribution; near 0 nothing is explored any more.", "nats a token", True),
    "kl_start": Series("Divergence from the start", "How far the policy is from the model that RL began with (k3).", "nats a token", True),
    "kl_base": Series("Divergence from the base model", "How far the policy is from it, fine-tuning included (k3).", "nats a token", True),
    "kl": Series("Divergence within a round", "From the policy that drew the round to the updated one (k3).", "nats a token", True),
    "no_signal": Series("Groups without signal", "All rewards of the group are equal: nothing to learn from it.", "share of groups", True),
    "truncated": Series("Truncated", "Cut at the token limit.", "share of responses", True),
    "grad_norm": Series("Gradient norm", "Before clipping.", "norm", True),
    "distinct_responses": Series("Different responses", "In a group; near 1, the model says one thing only.", "responses a group", True),
    "distinct_answers": Series("Different answers", "In a group.", "answers a group", True),
    "vendi": Series("Vendi score", "Effective number of different rollouts in a group; near 1, all are alike.", "rollouts a group", True),
    "loss": Series("Loss", "What is minimised; its size says little.", "loss"),
    "clip": Series("Clipped", "Tokens whose ratio was cut.", "share of tokens"),
    "unparseable": Series("No answer found", "The verifier could read none.", "share of responses"),
    "cut_short": Series("Cut short", "By the verifier's limits.", "share of responses"),
    "masked": Series(
        "Masked", "Out of the loss: the verifier's own failures, and what the configuration leaves out.", "share of responses"
    ),
    "sampler_kl": Series("Trainer against sampler", "Before a round's first update; it should be near 0.", "nats a token"),
    "ratio": Series("Ratio", "Trainer's over sampler's probability, mean.", "ratio"),
    "ratio_max": Series("Largest ratio", "Trainer's over sampler's probability.", "ratio"),
    "learning_rate": Series("Learning rate", "Of the step's last update.", "rate"),
    "paid": Series("Paid responses", "", "responses a step"),
    "not_number": Series("Paid without a number", "Though the reference is one.", "share of paid answers"),
    "tokens": Series("Tokens learned from", "", "tokens a step"),
    "refills": Series("Refills", "Further questions asked, for groups without signal.", "a step"),
    "speed.seconds": Series("Time", "By the clock.", "seconds a step"),
}
"""In the order in which they are shown; what isn't here is shown by its name in the log."""

SERIES_ORDER = {name: i for i, name in enumerate(SERIES)}

OF_SFT = {"loss": Series("Fine-tuning loss", "Of each step's batch.", "nats a token", True)}
"""What is another thing in fine-tuning."""

LOOKS = "validation."
"""Begins the names of what the looks of a validation found."""


def describe(name: str, kind: Literal["sft", "rl"]) -> Series:
    """What a series of a training is called."""
    if name.startswith(LOOKS):
        return Series(
            f"Validation: {name.removeprefix(LOOKS)}", "At each look, on questions of its own; the same draws every time.", "", True
        )
    return (OF_SFT if kind == "sft" else {}).get(name) or SERIES.get(name) or Series(name, "", "")


def series(steps: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The numbers of a training's log, by name: [step, value] of every step that has one.

    `step` itself is none. Facts in a fact are named with a dot; the audit's counts are left out, for what they say has a section.
    """
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in steps:
        inside = {f"{name}.{part}": value for name, facts in row.items() if isinstance(facts, Mapping) for part, value in facts.items()}
        for name, value in {**row, **inside}.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and name != "step" and not name.startswith("audit."):
                points[name].append((row["step"], float(value)))
    return dict(points)
