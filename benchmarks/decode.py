"""Decode speed: new tokens a second on two workloads, ours and peers' in turn.

    JAX_PLATFORMS=cpu python benchmarks/decode.py [distinct] [grouped] [--rounds 3] [--peer "NAME=COMMAND {workload}"]…

The model is Qwen2-shaped with random float32 weights: 16 layers, width 576, feed-forward 1536, 9 query and 3 key/value heads
of 64, vocabulary 32,000, tied embeddings (75 M parameters).

    distinct   16 prompts of 128 tokens, one sample each, 64 new tokens, temperature 1, no stop
    grouped    8 prompts of 512 tokens, 16 samples each, 64 new tokens

A peer's command prints lines that end in "N new tokens/s"; its best line counts, as ours does. Rounds alternate, so that what
else the machine does hits all alike, and ratios are of medians over the rounds. The first run of each program compiles and
is not counted.
"""

import argparse
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
NEW = 64
WORKLOADS = {"distinct": (16, 1, 128), "grouped": (8, 16, 512)}


class Ours:
    """The engine on one workload."""

    def __init__(self, workload: str, burst: int):
        prompts, samples, length = WORKLOADS[workload]
        mesh = make_mesh()
        self.params = init_params(CONFIG, jax.random.key(0))
        self.engine = Engine(
            CONFIG, mesh, sampling=Sampling(max_new_tokens=NEW), prompts=prompts, samples=samples, longest_prompt=length, stop_ids=[],
            decode=lambda ids: "", engine=DecodeConfig(rows=prompts * samples, burst=burst), dtype=jnp.float32,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        self.requests = [Request(str(i), rng.integers(3, 32_000, length).tolist(), i * samples, range(samples)) for i in range(prompts)]

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
    parser.add_argument("--burst", type=int, default=32)
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
