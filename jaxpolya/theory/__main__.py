"""`python -m jaxpolya.theory DIR`: the figures of docs/theory.md, and the numbers that it quotes."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from jaxpolya.theory import closed_forms as exact
from jaxpolya.theory.simulate import Advantages, Trace, Training, train

SEEDS = 16
LINES = ("-", "--", ":", "-.")


def runs(p_A: np.ndarray, pays_QA: np.ndarray, training: Training, seeds: int = SEEDS) -> Trace:
    """The same training from many seeds, a leading axis of them."""
    keys = jax.random.split(jax.random.key(0), seeds)
    start_A, pays = jnp.log(jnp.asarray(p_A, jnp.float32)), jnp.asarray(pays_QA, jnp.float32)
    return jax.vmap(lambda key: train(start_A, pays, key, training))(keys)


def one_step(left: Axes, right: Axes) -> None:
    """How far a step goes, and what a group sees, by the number of equally likely approaches."""
    n = np.arange(1, 33)
    left.plot(n, exact.step_on_uniform(n), "k.-")
    left.set(xlabel="approaches N, equally likely", ylabel="Δp of a sampled one / (ηA)", title="One step favours two")
    for group, line in zip((4, 8, 16, 64), LINES, strict=True):
        right.plot(n, exact.seen(1 / n, group), line, color="black", label=f"G = {group}")
    right.set(
        xlabel="approaches n, equally likely", ylabel="chance that a given one is sampled", title="A group sees as many as it samples"
    )
    right.legend()
    print("seen at n = G:", {group: round(float(exact.seen(1 / group, group)), 3) for group in (4, 8, 16, 64)})


def signal(left: Axes, right: Axes) -> None:
    """The size of GRPO's expected step, and how long a rare right approach takes."""
    s = np.linspace(0.001, 0.999, 300)
    for group, line in zip((2, 4, 16), LINES[1:], strict=True):
        left.plot(s, [exact.group_signal(x, group) for x in s], line, color="black", label=f"G = {group}")
    left.plot(s, np.sqrt(s * (1 - s)), "k-", label="G → ∞")
    left.set(xlabel="chance s that a sample is right", ylabel="h_G(s)", title="What a group's advantages say")
    left.legend()
    starts, rate = np.array([0.003, 0.01, 0.03, 0.1]), 0.1
    fine = np.geomspace(0.001, 0.3)
    styles: list[tuple[Advantages, str, str]] = [("centred", "o", "-"), ("grpo", "s", "--")]
    for advantages, marker, line in styles:
        times = [exact.discovery_time(x, rate, normalised=advantages == "grpo") for x in fine]
        right.loglog(fine, times, "k" + line, label=f"{advantages}, flow")
        simulated = [_discovery(p0, Training(questions=8, group=64, rate=rate, steps=2500, advantages=advantages)) for p0 in starts]
        right.loglog(starts, simulated, "k" + marker, mfc="white", label=f"{advantages}, {SEEDS} simulations (median)")
        flow = [exact.discovery_time(p0, rate, normalised=advantages == "grpo") for p0 in starts]
        print(f"discovery, {advantages}: starts {starts}, simulated {simulated}, flow {np.round(flow)}")
    right.set(xlabel="starting mass of the right approach", ylabel="steps to one half", title="Finding a rare approach")
    right.legend()


def _discovery(p0: float, training: Training) -> float:
    p_ST = np.asarray(runs(np.array([p0, 1 - p0]), np.array([[1.0, 0.0]]), training).p_TA[:, :, 0])
    return float(np.median(np.where((p_ST > 0.5).any(axis=1), (p_ST > 0.5).argmax(axis=1), training.steps)))


def composing(left: Axes, right: Axes) -> None:
    """Questions that need two approaches in one response: found from which starting mass?"""
    steps = 300
    # Approaches A, B, and both in one response; a third of the questions need A, a third B, a third both. Composing pays everywhere, for
    # it holds either, but costs accuracy where one approach would do.
    pays = np.array([[0.6, 0.0, 0.5], [0.0, 0.6, 0.5], [0.0, 0.0, 0.5]])
    for p0, line in zip((0.001, 0.01, 0.05, 0.2), LINES[::-1], strict=True):
        p_ST = np.asarray(runs(np.array([(1 - p0) / 2, (1 - p0) / 2, p0]), pays, Training(rate=0.1, steps=steps)).p_TA[:, :, 2])
        left.plot(p_ST.mean(axis=0), line, color="black", label=f"{p0:g} at first")
        print(f"composing from {p0:g}: reached one half by step {steps} in {(p_ST[:, -1] > 0.5).mean():.2f} of {SEEDS} runs")
    left.set(xlabel="step", ylabel="mass of composing", title="Mid-training as a starting mass", ylim=(0, 1))
    left.legend()
    starts = np.geomspace(1e-4, 0.3, 40)
    for budget, line in zip((30, 100, 300), LINES, strict=False):
        right.semilogx(starts, exact.seen(starts, budget * 8 * 16), line, color="black", label=f"{budget} steps of 8 × 16")
    right.set(xlabel="starting mass", ylabel="chance that it is sampled at all", title="What is never sampled is never found")
    right.legend()


def coverage(left: Axes, right: Axes) -> None:
    """Entropy and pass@k along training: what it costs at large k, and what holds it."""
    rng = np.random.default_rng(0)
    best = rng.random((200, 6)) < np.array([0.5, 0.35, 0.3, 0.25, 0.2, 0.2])  # who can solve which question
    pays, k = best * 0.5, np.array([1, 4, 16, 64, 256])
    kinds = {
        "GRPO": Training(rate=0.2, steps=300),
        "clip-higher, 4 passes": Training(rate=0.2, steps=300, epochs=4, clip_high=0.28),
        "KL 0.1": Training(rate=0.2, steps=300, kl=0.1),
        "entropy 0.1": Training(rate=0.2, steps=300, entropy=0.1),
    }
    start = np.full(6, 1 / 6)
    left.semilogx(k, exact.pass_at_k(pays @ start, k), color="0.6", linewidth=3, label="before")
    print("pass@k before:", dict(zip(k.tolist(), exact.pass_at_k(pays @ start, k).round(3).tolist(), strict=True)))
    for (name, training), line in zip(kinds.items(), LINES, strict=True):
        p_STA = np.asarray(runs(start, pays, training).p_TA)
        after = np.mean([exact.pass_at_k(pays @ p_A, k) for p_A in p_STA[:, -1]], axis=0)
        left.semilogx(k, after, line, color="black", label=name)
        right.plot([np.mean([exact.entropy(p_A) for p_A in p_SA]) for p_SA in p_STA.swapaxes(0, 1)[::10]], line, color="black", label=name)
        print(f"pass@k after {name}:", dict(zip(k.tolist(), after.round(3).tolist(), strict=True)))
    left.set(xlabel="k", ylabel="pass@k", title="After 300 steps")
    right.set(xlabel="step / 10", ylabel="entropy, nats", title="What is left to draw from")
    left.legend()


def collapse(left: Axes, right: Axes) -> None:
    """A way that is always paid without solving, rare at first, beside honest approaches that are paid less."""
    arms = {  # mass of (four honest approaches, the hack)
        "base: one habit": np.array([0.9, 0.03, 0.03, 0.03, 0.01]),
        "after STaR: one, sharper": np.array([0.98, 0.005, 0.005, 0.008, 0.002]),
        "after Pólya: four": np.array([0.2475, 0.2475, 0.2475, 0.2475, 0.01]),
        "after Pólya that was paid for it": np.array([0.2, 0.2, 0.2, 0.2, 0.2]),
    }
    pays = np.tile(np.array([0.3, 0.3, 0.3, 0.3, 1.0]), (4, 1))
    training = Training(questions=32, group=16, rate=1.0, steps=400)
    for (name, p_A), line in zip(arms.items(), LINES, strict=True):
        trace = runs(p_A, pays, training, seeds=8)
        hack_ST, distinct_ST = np.asarray(trace.p_TA[:, :, -1]), np.asarray(trace.distinct_T)
        entropy_T = [np.mean([exact.entropy(p_A) for p_A in p_SA]) for p_SA in np.asarray(trace.p_TA).swapaxes(0, 1)]
        left.plot(hack_ST.mean(axis=0), line, color="black", label=name)
        right.plot(entropy_T, line, color="black", label=name)
        half = int((hack_ST.mean(axis=0) > 0.5).argmax()) if hack_ST.mean(axis=0)[-1] > 0.5 else training.steps - 1
        at = {"before": 0, "there": half, "at the end": -1}
        peak = int(np.argmax(entropy_T))
        print(f"hack, {name}: one half at step {half} of {training.steps}; entropy peaks at step {peak} with {entropy_T[peak]:.2f}")
        for when, step in at.items():
            print(f"  {when}: {distinct_ST[:, step].mean():.1f} approaches a group, entropy {entropy_T[step]:.2f}")
    left.set(xlabel="step", ylabel="mass of the way that is paid for nothing", title="A reward hack is found", ylim=(0, 1))
    right.set(xlabel="step", ylabel="entropy over approaches, nats", title="What could have warned")
    left.legend()


def clipping(left: Axes, right: Axes) -> None:
    """The bound that a clipped ratio puts on growth, where it holds and where it fails."""
    p0, many = 0.01, Training(questions=64, group=64, rate=0.1, steps=30, epochs=60)
    cases: list[tuple[Axes, Advantages, str]] = [
        (left, "plain", "Rewards alone: the bound holds"), (right, "centred", "With a baseline: it fails"),
    ]  # fmt: skip
    for axes, advantages, title in cases:
        for high, line in ((0.2, "-"), (0.28, "--")):
            training = dataclasses.replace(many, advantages=advantages, clip_high=high)
            p_STA = np.asarray(runs(np.array([p0, 1 - p0]), np.array([[1.0, 0.0]]), training, seeds=2).p_TA)
            axes.semilogy(p_STA[:, :, 0].mean(axis=0), line, color="black", label=f"ε_high = {high}")
            axes.semilogy(
                np.minimum(1, p0 * (1 + high) ** np.arange(many.steps)), line, color="0.6", linewidth=3, label=f"p₀(1 + {high})^t"
            )
        axes.set(xlabel="round", ylabel="mass of the rare right approach", title=title)
    left.legend()


FIGURES: dict[str, Callable[[Axes, Axes], None]] = {
    "one_step": one_step, "signal": signal, "composing": composing, "coverage": coverage, "collapse": collapse, "clipping": clipping,
}  # fmt: skip


def main() -> None:
    """Draws them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
        draw(left, right)
        figure.savefig(directory / f"{name}.png", dpi=100, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
