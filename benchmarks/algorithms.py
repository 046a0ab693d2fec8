"""Whether the algorithms learn: a tiny model and a task of one rule, several seeds, against plain REINFORCE at the same budget.

    python benchmarks/algorithms.py [--seeds 5] [--steps 40] [--rates 0.003 0.01] [--algorithms ppo …] [--out DIR]

Everything but the model and the verdict is what a run uses: `train.rl.run_rl` with the decode engine, the same questions, rollouts, updates
and old log-probs for all. The model is a decoder of two layers with fresh weights. A question names one of eight letters; the response has
three tokens of twelve, and is right where the second one is the letter that a fixed rule gives, which a fresh model hits once in twelve. A
round has eight questions with eight responses each, split into two updates and gone through twice, so that old and new policy differ and
what an algorithm does about it shows. `dapo` is asked without refills: they would be further rollouts.

Printed are, for each algorithm and learning rate, the mean reward over all rounds and over the last five, with 95 % t intervals over seeds,
and the difference from REINFORCE's at the same rate, paired by seed.
"""

import argparse
import json
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from jaxpolya.config import DecodeConfig, MeshConfig, RlConfig
from jaxpolya.decode.engine import Engine
from jaxpolya.files import write_whole
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.progress import Display
from jaxpolya.records import Question, Verdict
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rounds import Live
from jaxpolya.train.rl import run_rl
from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool

ALGORITHMS = ("reinforce", "ppo", "dapo", "gspo", "cispo", "grpo")
END, BEGIN, LETTERS, VOCABULARY = 0, 1, 8, 12
MODEL = DecoderConfig("llama", VOCABULARY, 32, 64, 2, 4, 2, 8, 32, tied_embeddings=True)
LAST = 5
"""Rounds whose mean is what was reached."""


class Rule:
    """Stands in the verifier's place: the second token has to be the one that the question's letter leads to."""

    deadline, memory_mb = 1.0, 0

    def submit(self, item: Item) -> Future[Verdict]:
        """The verdict, at once."""
        words = item.response.split()
        future: Future[Verdict] = Future()
        future.set_result(Verdict(verdict="correct" if words[1:2] == [item.answer] else "wrong", extracted=item.response))
        return future

    def results(self, futures: list[Future[Verdict]]) -> list[Verdict]:
        """What came of them."""
        return [future.result() for future in futures]


def questions() -> list[Prompt]:
    """One a letter."""
    made = []
    for letter in range(LETTERS):
        answer = 2 + (3 * letter + 1) % LETTERS
        made.append(Prompt(Question(id=f"letter-{letter}", question=f"{letter}", answer=f"t{answer}"), f"{letter}", (BEGIN, 2 + letter)))
    return made


def settings(algorithm: str, rate: float, steps: int, seed: int) -> RlConfig:
    """The stage; everything but the algorithm is alike."""
    tree: dict[str, Any] = {
        "questions": [{"kind": "jsonl", "path": "letters"}], "sampling": {"max_new_tokens": 3, "temperature": 1.0},
        "optimizer": {"learning_rate": rate, "warmup": 0.05}, "batching": {"row_tokens": 64, "micro_rows": 3, "remat": "none"},
        "steps": steps, "prompts": 8, "group": 8, "updates": 2, "epochs": 2, "algorithm": algorithm, "checkpoint_every": 10**6,
        "old_logprobs": "trainer", "seed": seed,
    }  # fmt: skip
    if algorithm == "dapo":
        tree |= {"refills": 0, "overlong_buffer": 0}
    if algorithm == "ppo":
        tree |= {"value": {"learning_rate": 0.03, "warmup": 3}}
    return RlConfig.model_validate(tree)


def learn(config: RlConfig, seed: int, mesh: Any) -> list[float]:
    """The mean reward of each round."""
    prompts = questions()
    engine = Engine(
        MODEL, mesh, sampling=config.sampling, prompts=config.prompts, samples=config.group, longest_prompt=2, stop_ids=[END],
        decode=lambda ids: " ".join(f"t{i}" for i in ids), engine=DecodeConfig(rows=64, burst=3), dtype=jnp.float32,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place, Display(quiet=True).task("rl", 1) as task:
        rounds = Live(config, prompts, engine, cast(Pool, Rule()), arm="rl", directory=Path(place), refills=0, task=task)
        result = run_rl(
            config, MODEL, lambda: init_params(MODEL, jax.random.key(seed)), mesh, rounds, dtype=jnp.dtype("float32"),
            directory=Path(place), task=task, note=lambda words: None, keep=lambda step, params: None,
        )  # fmt: skip
    return [step["reward"] for step in result.steps]


def interval(values: np.ndarray) -> tuple[float, float]:
    """(mean, half the width of the 95 % t interval)."""
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def trained(algorithm: str, rate: float, steps: int, seeds: int, place: Path | None) -> np.ndarray:
    """Mean rewards [seeds, steps], from `place` where they are there."""
    file = place / f"{algorithm}-{rate:g}-{steps}x{seeds}.json" if place else None
    if file and file.exists():
        return np.array(json.loads(file.read_text())["rewards"])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    runs = np.array([learn(settings(algorithm, rate, steps, seed), seed, mesh) for seed in range(seeds)])
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"algorithm": algorithm, "rate": rate, "rewards": runs.round(4).tolist()}) + "\n")
    return runs


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, help="reinforce is the first, whether named or not")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01])
    parser.add_argument(
        "--out", type=Path, help="a directory for the rewards, a file a row, of which those that are there aren't made again"
    )
    asked = parser.parse_args()
    title = f"Mean reward, {asked.seeds} seeds, {asked.steps} rounds of 64 responses; ± 95 % t interval over seeds"
    table = Table("algorithm", "rate", "all rounds", f"last {LAST}", f"last {LAST}, less reinforce's", title=title)
    for rate in asked.rates:
        rewards = {
            name: trained(name, rate, asked.steps, asked.seeds, asked.out) for name in dict.fromkeys(["reinforce", *asked.algorithms])
        }
        base = rewards["reinforce"][:, -LAST:].mean(axis=1)
        for algorithm, runs in rewards.items():
            reached = runs[:, -LAST:].mean(axis=1)
            (mean, half), (last, about), (more, within) = (interval(v) for v in (runs.mean(axis=1), reached, reached - base))
            difference = "" if algorithm == "reinforce" else f"{more:+.3f} ± {within:.3f}"
            table.add_row(algorithm, f"{rate:g}", f"{mean:.3f} ± {half:.3f}", f"{last:.3f} ± {about:.3f}", difference)
    Console().print(table)


if __name__ == "__main__":
    main()
