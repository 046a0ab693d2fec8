"""Decode speed: new tokens a second on three workloads, ours and peers' in turn.

    JAX_PLATFORMS=cpu python benchmarks/decode.py [distinct] [grouped] [skewed] [--rounds 3] [--peer "NAME=COMMAND {workload}"]…

The model is Qwen2-shaped with random float32 weights: 16 layers, width 576, feed-forward 1536, 9 query and 3 key/value heads
of 64, vocabulary 32,000, tied embeddings (75 M parameters).

    distinct   16 prompts of 128 tokens, one sample each, 64 new tokens, temperature 1, no stop
    grouped    8 prompts of 512 tokens, 16 samples each, 64 new tokens
    skewed     16 prompts of 128 tokens, 16 samples each in 64 rows, up to 96 new tokens; a 28th of the vocabulary ends a response, so
               that lengths are as skewed as short answers' are, and tokens of responses count, not what rows draw beyond their ends

A peer's command prints lines that end in "N new tokens/s"; its best line counts, as ours does. Rounds alternate, so that what
else the machine does hits all alike, and ratios are of medians over the rounds. The first run of each program compiles and
is not counted.
"""

import argparse
import dataclasses
import re
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.engine import Engine, Request
from jaxpolya.models.config import DecoderConfig, LayerKind, Rope
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh

CONFIG = DecoderConfig("qwen2", 32_000, 576, 1536, 16, 9, 3, 64, 2048, (LayerKind(rope=Rope(1e6)),), tied_embeddings=True, qkv_bias=True)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Prompts of one length and their samples."""

    prompts: int
    samples: int
    length: int
    new: int = 64
    rows: int | None = None
    """Unset: one a sample."""
    stops: int = 0
    """Token ids that end a response."""


WORKLOADS = {
    "distinct": Workload(16, 1, 128),
    "grouped": Workload(8, 16, 512),
    "skewed": Workload(16, 16, 128, new=96, rows=64, stops=CONFIG.vocab_size // 28),
}


class Ours:
    """The engine on one workload."""

    def __init__(self, name: str, burst: int | None):
        work = WORKLOADS[name]
        prompts, samples, length = work.prompts, work.samples, work.length
        mesh = make_mesh()
        self.params = init_params(CONFIG, jax.random.key(0))
        self.engine = Engine(
            CONFIG, mesh, sampling=Sampling(max_new_tokens=work.new), prompts=prompts, samples=samples, longest_prompt=length,
            stop_ids=range(work.stops), decode=lambda ids: "", engine=DecodeConfig(rows=work.rows or prompts * samples, burst=burst),
            dtype=jnp.float32,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        self.requests = [
            Request(str(i), rng.integers(3, CONFIG.vocab_size, length).tolist(), i * samples, range(samples)) for i in range(prompts)
        ]

    def rate(self, seed: int) -> float:
        """New tokens a second, prefill and the decode copy of the weights included."""
        start = time.perf_counter()
        tokens = sum(len(done.tokens) for burst in self.engine.run(self.params, self.requests, seed) for done in burst)
        return tokens / (time.perf_counter() - start)


def peer_rate(command: str, workload: str) -> float:
    """The best rate that a peer's script prints."""
    out = subprocess.run(command.format(workload=workload), shell=True, check=True, capture_output=True, text=True).stdout
    return max(float(rate) for rate in re.findall(r"([\d.]+) new tokens/s", out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help=" or ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burst", type=int, help="default: as a run has it")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    arguments = parser.parse_args()
    peers = dict(peer.split("=", 1) for peer in arguments.peer)
    for workload in arguments.workloads:
        ours = Ours(workload, arguments.burst)
        ours.rate(seed=0)
        rates: dict[str, list[float]] = {"jaxpolya": []} | {name: [] for name in peers}
        for round_ in range(arguments.rounds):
            rates["jaxpolya"].append(max(ours.rate(seed=2 * round_ + i) for i in (1, 2)))
            for name, command in peers.items():
                rates[name].append(peer_rate(command, workload))
        medians = {name: statistics.median(of_tool) for name, of_tool in rates.items()}
        for name, median in medians.items():
            ratio = f"  jaxpolya is {medians['jaxpolya'] / median:.2f} times as fast" if name != "jaxpolya" else ""
            each = ", ".join(f"{rate:.0f}" for rate in rates[name])
            print(f"{workload:9} {name:13} {median:7.0f} new tokens/s  ({each}){ratio}", flush=True)


if __name__ == "__main__":
    main()
