"""Whether the algorithms learn: a tiny model and a task of one rule, each algorithm at its best rate of a grid, against plain REINFORCE.

    python benchmarks/algorithms.py [--task plain | offset] [--seeds 4] [--steps 30] [--rates 0.001 0.003 0.01] [--out DIR]

Everything but the model and the verdict is what a run uses: `train.rl.run_rl` with the decode engine, the same questions, rollouts, updates
and old log-probs for all. The model is a decoder of two layers with fresh weights. A question names one of eight letters; the response has
three tokens of twelve, and is right where the second one is the letter that a fixed rule gives, which a fresh model hits once in twelve. A
round has eight questions with eight responses each, split into two updates and gone through twice, so that old and new policy differ and
what an algorithm does about it shows. `dapo` is asked without refills: they would be further rollouts.

In the task `plain` a right response is paid 1 and a wrong one 0. Then plain REINFORCE learns from right responses alone, and nothing that
it does is ever wrong. In `offset` a wrong one is paid 0.5, as partial credit is: REINFORCE, which has no baseline, takes it for a success.

`gspo` clips by the ε of its paper, which belong to responses of thousands of tokens; `gspo, ε 0.2` by 0.2 and 0.28, as `dapo` does.

A learning rate is another step under another algorithm, so each has its own: of the grid, the one with the highest share of right responses
over the last five rounds, over `--tuning` seeds of their own. The final figures are of other seeds. Printed are all tries, and at the
chosen rates the share of right responses over all rounds and over the last five, with 95 % t intervals over seeds, the difference from
REINFORCE's, paired by seed, and the share of tokens whose gradient a bound took away.
"""

import argparse
import dataclasses
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

WIDE = "gspo, ε 0.2"
"""GSPO with bounds for short responses."""
ALGORITHMS = ("reinforce", "ppo", "dapo", "gspo", WIDE, "cispo")
END, BEGIN, LETTERS, VOCABULARY = 0, 1, 8, 12
MODEL = DecoderConfig("llama", VOCABULARY, 32, 64, 2, 4, 2, 8, 32, tied_embeddings=True)
LAST = 5
"""Rounds whose mean is what was reached."""
FRESH = 100
"""The first seed of the final figures."""
TASKS = {"plain": 0.0, "offset": 0.5}
"""What a wrong response is paid."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Stands in the verifier's place: the second token has to be the one that the question's letter leads to."""

    offset: float
    """What a wrong response is paid."""
    deadline, memory_mb = 1.0, 0

    def submit(self, item: Item) -> Future[Verdict]:
        """The verdict, at once."""
        words = item.response.split()
        future: Future[Verdict] = Future()
        right = words[1:2] == [item.answer]
        future.set_result(Verdict(verdict="correct" if right else "wrong", extracted=item.response, score=1.0 if right else self.offset))
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
        "steps": steps, "prompts": 8, "group": 8, "updates": 2, "epochs": 2, "checkpoint_every": 10**6,
        "algorithm": "gspo" if algorithm == WIDE else algorithm,
        "old_logprobs": "trainer", "seed": seed,
    }  # fmt: skip
    if algorithm == "dapo":
        tree |= {"refills": 0, "overlong_buffer": 0}
    if algorithm == WIDE:
        tree |= {"clip_low": 0.2, "clip_high": 0.28}
    if algorithm == "ppo":
        tree |= {"value": {"learning_rate": 0.03, "warmup": 3}}
    return RlConfig.model_validate(tree)


Run = dict[str, list[float]]
"""Of each round: `right`, the share of right responses, and `clip`, the share of tokens whose gradient a bound took away."""


def learn(config: RlConfig, seed: int, offset: float, mesh: Any) -> Run:
    """One training."""
    prompts = questions()
    engine = Engine(
        MODEL, mesh, sampling=config.sampling, prompts=config.prompts, samples=config.group, longest_prompt=2, stop_ids=[END],
        decode=lambda ids: " ".join(f"t{i}" for i in ids), engine=DecodeConfig(rows=64, burst=3), dtype=jnp.float32,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place, Display(quiet=True).task("rl", 1) as task:
        rounds = Live(config, prompts, engine, cast(Pool, Rule(offset)), arm="rl", directory=Path(place), refills=0, task=task)
        steps = run_rl(
            config, MODEL, lambda: init_params(MODEL, jax.random.key(seed)), mesh, rounds, dtype=jnp.dtype("float32"),
            directory=Path(place), task=task, note=lambda words: None, keep=lambda step, params: None,
        ).steps  # fmt: skip
    return {"right": [step["correct"] for step in steps], "clip": [step.get("clip", 0.0) for step in steps]}


@dataclasses.dataclass(frozen=True)
class Trials:
    """Trainings of one task; those that lie in `place` aren't made again."""

    task: str
    steps: int
    place: Path | None

    def run(self, algorithm: str, rate: float, seed: int) -> Run:
        """One training, by its algorithm, learning rate and seed."""
        file = self.place / f"{self.task}-{algorithm}-{rate:g}-{self.steps}-{seed}.json" if self.place else None
        if file and file.exists():
            return cast(Run, json.loads(file.read_text()))
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        run = learn(settings(algorithm, rate, self.steps, seed), seed, TASKS[self.task], mesh)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps({name: np.round(values, 4).tolist() for name, values in run.items()}) + "\n")
        return run

    def right(self, algorithm: str, rate: float, seeds: range) -> np.ndarray:
        """Shares of right responses [seeds, steps]."""
        return np.array([self.run(algorithm, rate, seed)["right"] for seed in seeds])


def interval(values: np.ndarray) -> str:
    """The mean and half the width of the 95 % t interval."""
    if len(values) < 2:
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f} ± {stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, default="plain")
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, help="reinforce is the first, whether named or not")
    parser.add_argument("--seeds", type=int, default=4, help="of the final figures")
    parser.add_argument("--tuning", type=int, default=2, help="seeds that choose the rates")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.003, 0.01])
    parser.add_argument(
        "--out", type=Path, help="a directory for the trainings, a file each, of which those that are there aren't made again"
    )
    asked = parser.parse_args()
    trials, names = Trials(asked.task, asked.steps, asked.out), list(dict.fromkeys(["reinforce", *asked.algorithms]))
    title = f"{asked.task}: last {LAST} rounds, {asked.tuning} seed(s)"
    tries = Table("algorithm", *(f"rate {rate:g}" for rate in asked.rates), title=title)
    best = {}
    for name in names:
        reached = {rate: trials.right(name, rate, range(asked.tuning))[:, -LAST:].mean() for rate in asked.rates}
        best[name] = max(reached, key=lambda rate: reached[rate])
        tries.add_row(name, *(f"{value:.3f}" for value in reached.values()))
    Console().print(tries)
    seeds = range(FRESH, FRESH + asked.seeds)
    title = f"{asked.task}: share of right responses, {asked.seeds} other seeds, {asked.steps} rounds of 64; ± 95 % t interval over seeds"
    table = Table("algorithm", "rate", "all rounds", f"last {LAST}", f"last {LAST}, less reinforce's", "clipped", title=title)
    base = trials.right("reinforce", best["reinforce"], seeds)[:, -LAST:].mean(axis=1)
    for name, rate in best.items():
        right, clip = trials.right(name, rate, seeds), np.mean([trials.run(name, rate, seed)["clip"] for seed in seeds])
        reached = right[:, -LAST:].mean(axis=1)
        difference = "" if name == "reinforce" else interval(reached - base)
        table.add_row(name, f"{rate:g}", interval(right.mean(axis=1)), interval(reached), difference, f"{clip:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
