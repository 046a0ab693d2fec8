"""Decode speed: new tokens a second, ours and peers' in turn; what a step takes beside what the device's bandwidth and products allow.

    JAX_PLATFORMS=cpu python benchmarks/decode.py [distinct] [grouped] [skewed] [uneven] [--model 75M] [--dtype float32] [--attention auto]
        [--decode auto] [--rounds 3] [--new TOKENS] [--json FILE] [--peer "NAME=COMMAND {workload}"]…

    distinct   16 prompts of 128 tokens, one sample each, 64 new tokens, temperature 1, no stop
    grouped    8 prompts of 512 tokens, 16 samples each, 64 new tokens
    skewed     16 prompts of 128 tokens, 16 samples each in 64 rows, up to 96 new tokens; a 28th of the vocabulary ends a response, so that
               lengths are as skewed as short answers' are
    uneven     256 prompts of 100 to 1,024 tokens, each answered in 100 to 1,024, uniformly drawn: what nano-vLLM is measured on

The first three are for CPUs; with `--model 1.5B` distinct is 256 prompts of 512 tokens and grouped 16 prompts of 512 with 16 samples each,
256 new tokens both, and skewed 64 prompts with 64 samples each in 256 rows. Only tokens of responses count, not what rows draw beyond
their ends. Weights are random, Qwen2-shaped; `--model` is a name or a shape, as in `train.py`.

`--decode` is `decode.attention`; of several, such as `--decode xla pallas` on a GPU, each has its turn.

A peer's command prints lines that end in "N new tokens/s"; its best line counts, as ours does. Rounds alternate, so that what else the
machine does hits all alike, and ratios are of medians over the rounds. The first run of each program compiles and is not counted.

`step` is the time of a decode step of all rows, and `prefill` the share of a run that it took, of one more run that waits for every
prefill. `bound` is what a step would take if it read its weights and each prompt's and row's keys and values once at this device's copying
rate, or did its products at the rate of a large one, whichever is longer; the share is bound / step.
"""

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is shared with a peer's process

import jax
import jax.numpy as jnp
import numpy as np
from train import decoder, matmul_rate, shape_of

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.engine import Engine, Request, Table
from jaxpolya.decode.kernel_choice import decode_attention
from jaxpolya.errors import ConfigError
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import abstract_params, init_params
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.parallel.mesh import make_mesh

STOP = 0


@dataclasses.dataclass(frozen=True)
class Workload:
    """Prompts and their samples; a length of two numbers is drawn uniformly between them."""

    prompts: int
    samples: int
    prompt: tuple[int, int]
    new: tuple[int, int]
    rows: int | None = None
    """Unset: one a sample."""
    stopping: int = 0
    """Of so many tokens of the vocabulary one ends a response; 0: none does."""


SMALL = {
    "distinct": Workload(16, 1, (128, 128), (64, 64)),
    "grouped": Workload(8, 16, (512, 512), (64, 64)),
    "skewed": Workload(16, 16, (128, 128), (96, 96), rows=64, stopping=28),
}
LARGE = {
    "distinct": Workload(256, 1, (512, 512), (256, 256)),
    "grouped": Workload(16, 16, (512, 512), (256, 256)),
    "skewed": Workload(64, 64, (128, 128), (96, 96), rows=256, stopping=28),
    "uneven": Workload(256, 1, (100, 1024), (100, 1024)),
}


class Lengths(Engine):
    """An engine whose responses end where the workload says, and that can wait for its prefills to know their time."""

    ends: np.ndarray
    """Of each sequence, by its id: tokens."""
    timed = False
    prefill_seconds = 0.0

    def _refill(self, weights: Any, lanes: Any, table: Table, beginnings: Any) -> Any:
        start = time.perf_counter()
        lanes = super()._refill(weights, lanes, table, beginnings)
        if self.timed:
            jax.block_until_ready(lanes)
            self.prefill_seconds += time.perf_counter() - start
        return lanes

    def _collect(self, table: Table, tokens_PGN: np.ndarray, logps_PGN: np.ndarray) -> Any:
        end_PG = self.ends[table.sequence_PG] - table.length_PG - 1
        if len(self.stop_ids) == 1:  # the workload alone ends responses
            tokens_PGN = np.where(tokens_PGN == STOP, STOP + 1, tokens_PGN)
        tokens_PGN = np.where(np.arange(tokens_PGN.shape[-1]) == end_PG[..., None], STOP, tokens_PGN)
        return super()._collect(table, tokens_PGN, logps_PGN)


class Ours:
    """The engine on one workload."""

    def __init__(self, config: DecoderConfig, params: Any, work: Workload, dtype: Any, burst: int | None, attention: Any):
        rng, samples = np.random.default_rng(0), work.prompts * work.samples
        self.config, self.work, self.dtype, self.params = config, work, jnp.dtype(dtype), params
        self.rows = work.rows or samples
        self.engine = Lengths(
            config, make_mesh(), sampling=Sampling(max_new_tokens=work.new[1]), prompts=work.prompts, samples=work.samples,
            longest_prompt=work.prompt[1], stop_ids=range(config.vocab_size // work.stopping) if work.stopping else [STOP],
            decode=lambda ids: "", engine=DecodeConfig(rows=self.rows, burst=burst, attention=attention), dtype=self.dtype,
        )  # fmt: skip
        self.engine.ends = rng.integers(work.new[0], work.new[1] + 1, samples)
        lengths = rng.integers(work.prompt[0], work.prompt[1] + 1, work.prompts)
        prompts = [rng.integers(3, config.vocab_size, length).tolist() for length in lengths]
        self.requests = [Request(str(i), prompt, i * work.samples, range(work.samples)) for i, prompt in enumerate(prompts)]

    def rate(self, seed: int) -> float:
        """New tokens a second, prefill and the decode copy of the weights included."""
        start = time.perf_counter()
        tokens = sum(len(done.tokens) for burst in self.engine.run(self.params, self.requests, seed) for done in burst)
        return tokens / (time.perf_counter() - start)

    def step(self, seed: int) -> dict[str, float]:
        """Seconds of a step of all rows, and the share of a run that prefill took."""
        self.engine.timed, self.engine.prefill_seconds, before = True, 0.0, self.engine.usage
        start = time.perf_counter()
        self.rate(seed)
        seconds, self.engine.timed = time.perf_counter() - start, False
        used, prefill = self.engine.usage - before, self.engine.prefill_seconds
        steps = used.row_steps / (self.engine.plan.lanes * self.engine.plan.rows)
        return {"step": (seconds - prefill) / steps, "prefill": prefill / seconds, "rows_busy": used.busy or 0.0}

    def bound(self, copying: float, products: float) -> float:
        """Seconds of a step at so many bytes copied and FLOPs done a second."""
        config, plan = self.config, self.engine.plan
        weights = sum(int(np.prod(spec.shape)) for spec in jax.tree.leaves(abstract_params(config)))
        rows, new = plan.lanes * plan.rows, float(np.mean(self.engine.ends)) / 2
        prompt = float(np.mean([len(request.prompt) for request in self.requests]))
        token = 2 * config.layers * config.kv_heads * config.head_width * self.dtype.itemsize
        read = weights * self.dtype.itemsize + token * (plan.lanes * plan.prompts * prompt + rows * new)
        work = 2 * rows * (weights + 2 * config.layers * config.heads * config.head_width * (prompt + new))
        return max(read / copying, work / products)


def copy_rate() -> float:
    """Bytes a second of a large copy, what is read and written both counted."""
    x = jnp.ones(2**26, jnp.float32)
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)  # in its place: on a CPU new memory would cost more than the copy
    x, seconds = copy(x), []
    for _ in range(5):
        start = time.perf_counter()
        x = copy(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * x.nbytes / min(seconds)


def peer_rate(command: str, workload: str) -> float:
    """The best rate that a peer's script prints."""
    out = subprocess.run(command.format(workload=workload), shell=True, check=True, capture_output=True, text=True).stdout
    return max(float(rate) for rate in re.findall(r"([\d.]+) new tokens/s", out))


def measure(name: str, ours: dict[str, Ours], peers: dict[str, str], rounds: int, rates_of: tuple[float, float]) -> dict[str, Any]:
    """One workload's figures."""
    for engine in ours.values():
        engine.rate(seed=0)
    rates: dict[str, list[float]] = {tool: [] for tool in [*ours, *peers]}
    for number in range(rounds):
        for tool, engine in ours.items():
            rates[tool].append(max(engine.rate(seed=2 * number + i) for i in (1, 2)))
        for peer, command in peers.items():
            rates[peer].append(peer_rate(command, name))
    steps = {tool: {**engine.step(seed=1), "bound": engine.bound(*rates_of)} for tool, engine in ours.items()}
    return {"workload": name, "rates": rates, "steps": steps, "load": os.getloadavg()[0]}


def say(figures: dict[str, Any]) -> None:
    """Prints one workload's figures."""
    medians = {name: statistics.median(of_tool) for name, of_tool in figures["rates"].items()}
    first = next(iter(medians))
    for name, median in medians.items():
        ratio = f"  {first} is {medians[first] / median:.2f} times as fast" if name != first else ""
        each = ", ".join(f"{rate:,.0f}" for rate in figures["rates"][name])
        print(f"{figures['workload']:9} {name:15} {median:9,.0f} new tokens/s  ({each}){ratio}")
        if of_step := figures["steps"].get(name):
            share = of_step["bound"] / of_step["step"]
            step = f"a step {1e3 * of_step['step']:.2f} ms, bound {1e3 * of_step['bound']:.2f} ms ({share:.0%})"
            rest = f"prefill {of_step['prefill']:.0%} of the time; rows {of_step['rows_busy']:.0%} busy; load {figures['load']:.1f}"
            print(f"{'':9} {step}; {rest}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="default: distinct and grouped")
    parser.add_argument("--model", default="75M")
    parser.add_argument("--dtype", help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--attention", default="auto", choices=["auto", "xla", "cudnn", "splash"], help="of prefill, as model.attention")
    parser.add_argument("--decode", nargs="+", default=["auto"], choices=["auto", "xla", "pallas"], help="of steps, as decode.attention")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burst", type=int, help="default: as a run has it")
    parser.add_argument("--new", type=int, help="new tokens, in place of the workload's")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    works = LARGE if arguments.model == "1.5B" else SMALL | {"uneven": LARGE["uneven"]}
    names = arguments.workloads or ["distinct", "grouped"]
    if unknown := sorted(set(names) - set(works)):
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(works)}")
    dtype = arguments.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    config, said = with_kernel(decoder(shape_of(arguments.model)), arguments.attention, jnp.dtype(dtype), make_mesh())
    if said:
        print(said)
    device = jax.devices()[0]
    where = f"{device.device_kind} ({os.cpu_count()} cores), jax {jax.__version__}"
    print(f"{arguments.model}, {dtype}, prefill's attention by {config.attention}; {where}")
    for asked in arguments.decode:
        try:
            taken, lacking = decode_attention(config, asked, jnp.dtype(dtype), make_mesh())
        except ConfigError as error:
            parser.error(str(error))
        if lacking and asked == "pallas":
            parser.error(lacking)
        print(f"steps' attention, {asked}: {lacking or taken}" + " (where rows are enough)" * (asked == "auto" and taken == "pallas"))
    rates, params = (copy_rate(), matmul_rate(dtype)), init_params(config, jax.random.key(0))
    names_of_ours = ["jaxpolya"] if len(arguments.decode) == 1 else [f"jaxpolya {attention}" for attention in arguments.decode]
    found = []
    for name in names:
        work = works[name] if arguments.new is None else dataclasses.replace(works[name], new=(arguments.new,) * 2)
        ours = {
            of_ours: Ours(config, params, work, dtype, arguments.burst, attention)
            for of_ours, attention in zip(names_of_ours, arguments.decode, strict=True)
        }
        found.append(measure(name, ours, dict(peer.split("=", 1) for peer in arguments.peer), arguments.rounds, rates))
        say(found[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
