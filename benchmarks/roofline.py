"""What decoding and training would take on an H100 by the program that XLA compiles for it; no GPU is needed.

    python benchmarks/roofline.py [distinct] [grouped] [prefill] [sft] [--model 1.5B] [--decode xla pallas] [--remat none block] [--top 8]
        [--json FILE]

    distinct   a step of 256 rows, each with a prompt of its own of 512 tokens, and 256 slots for responses
    grouped    a step of 16 prompts' 16 rows each, the same lengths
    prefill    a batch of prompts of 512 tokens, as many as the engine takes together, with cuDNN's attention
    sft        a step of 16 rows of 2,048 packed tokens: two gradients of 8 rows, with cuDNN's attention, and an update by AdamW

Every instruction of the compiled program counts with the bytes that it reads and writes and with its FLOPs: the longer of bytes at
2.7 TB/s and FLOPs at 700 TFLOP/s (what a large copy and nine tenths of a large product were measured to reach), and 1.5 µs for a kernel.
cuDNN's attention counts as causal at 450 TFLOP/s. Loops count as often as they run. A kernel of ours counts as if caches were full.

So these figures are modelled. Nothing here knows what a kernel reaches of its roofline, what stays in the cache, or which products the
autotuner would choose, which needs a GPU: without it, XLA splits the sums of small products, which costs bytes. They are for finding
copies and passes over large arrays, and for comparing programs. `bound` of a step is reading the weights and all caches once.

Needs XLA's compiler for GPUs, which `make test` fetches into .venv/cuda.
"""

import argparse
import collections
import dataclasses
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.append(str(Path(sys.prefix) / "cuda"))

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from train import decoder, flops, shape_of

from jaxpolya.config import MeshConfig, Optimizer
from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.lanes import Plan, Rows, abstract_decode_copy, make_empty
from jaxpolya.decode.prefill import make_prefill, prompts_together
from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.forward import Forward
from jaxpolya.models.heads import CHUNK_SHARE
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import batch_sharding
from jaxpolya.train.objectives import sft_objective
from jaxpolya.train.state import Step, abstract_state, make_optimizer

H100 = Path(__file__).with_name("h100.textproto").read_text()
BANDWIDTH, PRODUCTS, ATTENTION, LAUNCH = 2.7e12, 7e14, 4.5e14, 1.5e-6
MATMUL_RATE = 784e12
"""Of a large product, as measured."""
MEMORY = 85e9
DTYPE_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8, "u64": 8}
CUDNN = mock.patch("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
"""jax asks the library for it, which isn't here."""
PROGRAMS = ("distinct", "grouped", "prefill", "sft")
NO_KERNELS = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}


# Programs --------------------------------------------------------------------------------------------------------------


def h100() -> Any:
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices


def decode_step(config: DecoderConfig, lanes: int, rows: int, attention: Any) -> tuple[str, int, float]:
    """(a burst's program, its steps, bytes of weights and full caches)."""
    mesh = make_mesh(MeshConfig(), h100())
    plan = Plan(config, lanes, rows, 512, 256, 16, Draw(), attention=attention)
    weights = abstract_decode_copy(config, mesh, jnp.dtype(plan.dtype))
    given = Rows(*(jax.ShapeDtypeStruct((lanes, rows), dtype) for dtype in [jnp.int32] * 4 + [jnp.uint32]))
    scalar, key = jax.ShapeDtypeStruct((), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    empty = make_empty(plan, mesh).eval_shape()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # Pallas asks what kind of device it is
        program = make_burst(plan, mesh, plan.suffix).lower(weights, empty, given, key, scalar, scalar).compile()
    read = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves((weights, empty)))
    return program.as_text(), plan.burst, read


def prefill(config: DecoderConfig) -> tuple[str, int]:
    """(the program of a batch of prompts, how many)."""
    config, mesh = dataclasses.replace(config, attention="cudnn"), make_mesh(MeshConfig(), h100())
    plan, prompts = Plan(config, 256, 1, 512, 256, 16, Draw()), prompts_together(512, "gpu")
    weights, empty = abstract_decode_copy(config, mesh, jnp.dtype(plan.dtype)), make_empty(plan, mesh).eval_shape()
    tokens, at = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((prompts, 512), (prompts, 2)))
    with CUDNN, jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return make_prefill(plan, mesh).lower(weights, empty, [], tokens, at).compile().as_text(), prompts


def training(config: DecoderConfig, rows: int, tokens: int, remat: bool) -> tuple[str, str, float]:
    """(the program of a micro-batch's gradient, that of an update, bytes that training holds in the first, Adam's moments included)."""
    config, mesh = dataclasses.replace(config, attention="cudnn"), make_mesh(MeshConfig(), h100())
    optimizer = make_optimizer(Optimizer(learning_rate=1e-4), config, 10)
    step = Step(sft_objective(Forward(config, jnp.dtype("bfloat16"), remat=remat)), config, mesh, optimizer)
    state = abstract_state(config, mesh, optimizer)
    fields = {"tokens": jnp.int32, "positions": jnp.int32, "segment_ids": jnp.int32, "weights": jnp.float32}
    batch = {name: jax.ShapeDtypeStruct((rows, tokens), dtype, sharding=batch_sharding(mesh)) for name, dtype in fields.items()}
    chunk = mock.patch("jaxpolya.models.heads._chunk_bytes", lambda: int(0.75 * MEMORY * CHUNK_SHARE))  # jax takes so much of the memory
    with CUDNN, chunk, jax.set_mesh(mesh):
        program = step._accumulate.lower(state["params"], {}, state["params"], batch).compile()
        update = step._update.lower(state, state["params"], jax.ShapeDtypeStruct((), jnp.float32)).compile()
    memory = program.memory_analysis()
    moments = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state["opt"]))
    return program.as_text(), update.as_text(), memory.argument_size_in_bytes + memory.temp_size_in_bytes + moments


# Their instructions ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Of a computation; shapes as HLO has them."""

    name: str
    kind: str
    shape: str
    operands: list[str]
    line: str

    def names(self, attribute: str) -> str | None:
        found = re.search(rf"{attribute}=%([\w.\-]+)", self.line)
        return found and found[1]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of an instruction, as often as it runs."""

    scope: str
    shape: str
    times: int
    bytes: float
    seconds: float


class Program:
    """The text of a compiled program, taken apart."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        for line in text.splitlines():
            if begins := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                here = self.computations.setdefault(begins[2], {})
                self.entry = begins[2] if begins[1] else getattr(self, "entry", "")
            elif found := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line):
                operands = re.findall(r"%([\w.\-]+)", _closed(found[4]))
                here[found[1]] = Instruction(found[1], found[3], found[2], operands, line)

    def costs(self, computation: str | None = None, times: int = 1) -> Iterator[Cost]:
        """Of everything that is run."""
        here = self.computations[computation or self.entry]
        for step in here.values():
            if step.kind == "while":
                count = re.search(r'"known_trip_count":\{"n":"(\d+)"', step.line)
                yield from self.costs(step.names("body"), times * int(count[1] if count else 1))
            elif step.kind not in NO_KERNELS and not step.kind.endswith("-done"):
                yield self._cost(step, here, times)

    def _cost(self, step: Instruction, here: dict[str, Instruction], times: int) -> Cost:
        called = step.names("calls")
        if called:
            moved = sum(self._read(called, i, here[name].shape) for i, name in enumerate(step.operands)) + self._written(called)
            work = self._flops(called)
        else:
            moved, work = sum(size(here[name].shape) for name in step.operands) + size(step.shape), 0.0
        seconds = max(moved / BANDWIDTH, work / PRODUCTS)
        if "__cudnn$fmha" in step.line:
            B, *tokens_and_heads, H = sizes(here[step.operands[0]].shape)[0]  # of queries, whichever way they lie
            work = 2.0 * B * min(tokens_and_heads) * max(tokens_and_heads) ** 2 * H * (2.5 if "Backward" in step.line else 1)
            seconds = max(moved / BANDWIDTH, work / ATTENTION)
        scope = re.search(r'op_name="([^"]*)"', step.line)
        return Cost(scope[1].split("closed_call/")[-1] if scope else step.kind, step.shape, times, moved, times * (seconds + LAUNCH))

    def _read(self, computation: str, number: int, shape: str) -> float:
        """Bytes that a fusion reads of one of its parameters: what it only slices or updates it doesn't read whole."""
        inside = self.computations[computation].values()
        parameter = next((step for step in inside if step.kind == "parameter" and f"parameter({number})" in step.line), None)

        def of(name: str, whole: float) -> float:
            total = 0.0
            for user in (step for step in inside if name in step.operands):
                if user.kind in ("dynamic-slice", "slice") or (user.kind == "gather" and user.operands[0] == name):
                    total += size(user.shape)
                elif user.kind == "bitcast":
                    total += of(user.name, whole)
                elif not (user.kind in ("dynamic-update-slice", "scatter") and user.operands[0] == name):
                    return whole
            return min(total, whole)

        return of(parameter.name, size(shape)) if parameter else size(shape)

    def _written(self, computation: str) -> float:
        inside = self.computations[computation]

        def of(name: str) -> float:
            step = inside[name]
            if step.kind == "dynamic-update-slice":
                return size(inside[step.operands[1]].shape)
            if step.kind == "scatter":
                return size(inside[step.operands[-1]].shape)
            if step.kind in ("tuple", "bitcast"):
                return sum(map(of, step.operands))
            return size(step.shape)

        return of(next(step.name for step in inside.values() if step.line.lstrip().startswith("ROOT")))

    def _flops(self, computation: str) -> float:
        inside, total = self.computations[computation], 0.0
        for step in inside.values():
            if step.kind == "dot":
                left = sizes(inside[step.operands[0]].shape)[0]
                contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", step.line)
                assert contracted
                total += 2.0 * math.prod(sizes(step.shape)[0]) * math.prod(left[int(axis)] for axis in contracted[1].split(","))
            elif called := step.names("calls"):
                total += self._flops(called)
        return total


def _closed(text: str) -> str:
    """Up to the parenthesis that closes what text begins within."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:i]
    return text


def sizes(shape: str) -> list[list[int]]:
    return [[int(n) for n in found.split(",") if n] for found in re.findall(r"\w+\[([\d,]*)\]", shape)]


def size(shape: str) -> float:
    """Bytes."""
    return sum(
        DTYPE_BYTES.get(dtype, 0) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    )


# Figures ---------------------------------------------------------------------------------------------------------------


def figures(text: str, units: int, top: int) -> dict[str, Any]:
    """Milliseconds, kernels, gigabytes and the costliest instructions, of one of `units` steps of the program."""
    costs = list(Program(text).costs())
    alike: dict[tuple[str, str], list[Cost]] = collections.defaultdict(list)
    for cost in costs:
        alike[cost.scope, cost.shape].append(cost)
    costly = sorted(alike.items(), key=lambda item: -sum(cost.seconds for cost in item[1]))[:top]
    costly_ones = [{"scope": scope, "shape": shape, **_totals(several, units)} for (scope, shape), several in costly]
    return {**_totals(costs, units), "costly": costly_ones}


def _totals(costs: Sequence[Cost], units: int) -> dict[str, float]:
    return {
        "ms": 1e3 * sum(cost.seconds for cost in costs) / units,
        "kernels": sum(cost.times for cost in costs) / units,
        "gigabytes": sum(cost.times * cost.bytes for cost in costs) / units / 1e9,
    }


def say(name: str, found: dict[str, Any], more: str) -> None:
    print(f"{name:22} {found['ms']:8.2f} ms, {found['kernels']:6,.0f} kernels, {found['gigabytes']:7.2f} GB; {more}")
    for it in found["costly"]:
        print(f"    {it['ms']:8.3f} ms {it['kernels']:7.1f} × {it['gigabytes']:8.3f} GB  {it['scope'][-70:]}  {it['shape'][:50]}")


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help=f"{', '.join(PROGRAMS)}; default: all")
    parser.add_argument("--model", default="1.5B")
    parser.add_argument("--decode", nargs="+", default=["xla", "pallas"], choices=["xla", "pallas"])
    parser.add_argument("--remat", nargs="+", default=["none", "block"], choices=["none", "block"])
    parser.add_argument("--top", type=int, default=8, metavar="N", help="costliest instructions to show")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.programs) - set(PROGRAMS)):
        parser.error(f"no program {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    if not importlib.util.find_spec("jax_cuda13_plugin"):
        parser.error("XLA's compiler for GPUs is not here; make .venv/.setup-cuda fetches it")
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program of a device that isn't here can't be read back
    shape, all_found = shape_of(arguments.model), []
    config = decoder(shape)
    print(f"modelled for one H100, {arguments.model}, bfloat16, jax {jax.__version__}")
    for name, lanes, rows in (("distinct", 256, 1), ("grouped", 16, 16)):
        for attention in arguments.decode if name in (arguments.programs or [name]) else []:
            text, steps, read = decode_step(config, lanes, rows, attention)
            found, bound = figures(text, steps, arguments.top), 1e3 * read / BANDWIDTH
            say(f"{name} {attention}", found, f"bound {bound:.2f} ms ({bound / found['ms']:.0%})")
            all_found.append({"program": name, "attention": attention, "bound_ms": bound, **found})
    if "prefill" in (arguments.programs or ["prefill"]):
        text, prompts = prefill(config)
        found = figures(text, prompts, arguments.top)
        # Of the last layer a prefill needs keys and values alone.
        case = {"shape": shape | {"layers": shape["layers"] - 1}, "batch_rows": 1, "row_tokens": 512}
        share = flops(case, head=False) / 3 / (1e-3 * found["ms"]) / MATMUL_RATE
        say("prefill", found, f"a prompt, of {prompts} together; {share:.0%} of the matmul rate")
        all_found.append({"program": "prefill", "prompts": prompts, "matmul_share": share, **found})
    for remat in arguments.remat if "sft" in (arguments.programs or ["sft"]) else []:
        text, update, memory = training(config, 8, 2048, remat == "block")
        found, update_ms = figures(text, 1, arguments.top), figures(update, 1, 0)["ms"]
        step_ms = 2 * found["ms"] + update_ms
        share = flops({"shape": shape, "batch_rows": 16, "row_tokens": 2048}) / (1e-3 * step_ms) / MATMUL_RATE
        speed = f"{16 * 2048 / step_ms:.1f}k tokens/s, {share:.0%} of the matmul rate, {memory / 1e9:.1f} GB"
        say(f"sft {remat}", found, f"a gradient; an update {update_ms:.1f} ms; a step {speed}")
        of_step = {"update_ms": update_ms, "step_ms": step_ms, "memory": memory, "matmul_share": share}
        all_found.append({"program": "sft", "remat": remat, **of_step, **found})
    if arguments.json:
        arguments.json.write_text(json.dumps(all_found, indent=1) + "\n")


if __name__ == "__main__":
    main()
