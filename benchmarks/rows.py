"""How busy the decode engine's rows are, on lengths that are as skewed as responses are; no model, only the engine's table.

    python benchmarks/rows.py [--rows 64 256] [--seed 0]

A row-step is busy where its token stands in a response. What is lost: a response ends within a burst; rows without a sample to begin; the
last responses of a stage, while no other is left. `bound` is what rows that may take any sample at any time would reach in bursts of the
same length, given that a stage ends with its longest responses; `waiting` is a lane that waits for its slowest sample, as batched
generation does. Lengths are log-normal around a mean of each prompt's own, cut off at the limit.
"""

import argparse
import heapq

import numpy as np

from jaxpolya.config import DecodeConfig
from jaxpolya.decode.engine import Request, Table, lane_shape
from jaxpolya.decode.lanes import Plan
from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig

CONFIG = DecoderConfig("qwen2", 97, 32, 48, 2, 4, 2, 8, 512)
WORK = {
    "evaluation, short answers": (210, 64, 28, 96),
    "heuristics, short answers": (360, 8, 40, 128),
    "evaluation, 4 samples": (300, 4, 150, 512),
    "greedy": (500, 1, 150, 512),
    "RL round, groups of 16": (64, 16, 150, 512),
    "RL round, groups of 8": (128, 8, 150, 512),
    "RL round, long": (64, 16, 800, 3072),
}
"""Prompts, samples of each, mean length, limit."""


def lengths(work: str, seed: int) -> np.ndarray:
    """Of all samples [prompts, samples]."""
    prompts, samples, mean, limit = WORK[work]
    rng = np.random.default_rng(seed)
    means = mean * rng.lognormal(-(0.3**2) / 2, 0.3, (prompts, 1))
    return np.clip(means * rng.lognormal(-(0.6**2) / 2, 0.6, (prompts, samples)), 1, limit).astype(int)


def ours(lengths_QG: np.ndarray, rows: int, burst: int) -> tuple[float, float]:
    """(share of row-steps that are busy, prefills a prompt)."""
    prompts, samples = lengths_QG.shape
    lanes, group, held = lane_shape(rows, prompts, samples)
    plan = Plan(CONFIG, lanes, group, 32, burst, burst, Draw(), prompts=held)
    table = Table(plan, 1, [Request(str(i), (1,), i * samples, range(samples)) for i in range(prompts)])
    left = np.zeros((lanes, group), int)
    bursts = prefills = 0
    while table.busy:
        begun_before = table.live_PG.copy()
        prefills += len(table.refill())
        begun = table.live_PG & ~begun_before
        left[begun] = -(-lengths_QG.ravel()[table.sequence_PG[begun]] // burst)
        bursts += 1
        left[table.live_PG] -= 1
        for lane, row in np.argwhere(table.live_PG & (left == 0)).tolist():
            table.end(lane, row)
    return lengths_QG.sum() / (bursts * burst * rows), prefills / prompts


def bound(lengths_QG: np.ndarray, rows: int, burst: int) -> float:
    """Of rows that take any sample."""
    ends = [0] * rows
    for length in lengths_QG.ravel().tolist():
        heapq.heappush(ends, heapq.heappop(ends) + -(-length // burst))
    return lengths_QG.sum() / (max(ends) * burst * rows)


def waiting(lengths_QG: np.ndarray, rows: int, burst: int) -> float:
    """Of lanes that take a prompt's samples together."""
    samples = lengths_QG.shape[1]
    group = min(samples, rows)
    ends = [0] * (rows // group)
    for of_prompt in lengths_QG:
        for first in range(0, samples, group):
            heapq.heappush(ends, heapq.heappop(ends) + -(-int(of_prompt[first : first + group].max()) // burst))
    return lengths_QG.sum() / (max(ends) * burst * rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{'':28}{'rows':>5}{'burst':>6}{'mean':>7}{'busy %':>8}{'bound %':>8}{'waiting %':>10}{'prefills':>9}")
    for work, (_, _, _, limit) in WORK.items():
        of_work = lengths(work, arguments.seed)
        burst = DecodeConfig().burst_of(limit)
        for rows in arguments.rows:
            busy, prefills = ours(of_work, rows, burst)
            shares = f"{100 * busy:8.0f}{100 * bound(of_work, rows, burst):8.0f}{100 * waiting(of_work, rows, burst):10.0f}"
            print(f"{work:28}{rows:5}{burst:6}{of_work.mean():7.1f}{shares}{prefills:9.1f}", flush=True)


if __name__ == "__main__":
    main()
