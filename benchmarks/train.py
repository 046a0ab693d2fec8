"""Training speed: tokens a second and memory of an SFT and an RL step, ours and torch's in turn; and of an RL step on groups, whose prompts
are computed with each response or once.

    JAX_PLATFORMS=cpu python benchmarks/train.py [sft] [rl] [--model 75M] [--batch-rows 4] [--micro-rows 2] [--row-tokens 512]
        [--remat block none] [--dtype float32] [--attention auto] [--rounds 3] [--steps 1] [--json FILE]
    JAX_PLATFORMS=cpu python benchmarks/train.py groups [--groups 4] [--size 16] [--prompt 256] [--response 128] [the same]

A step is what a stage does with one batch: the gradients of its micro-batches and an update by AdamW. Rows are full, one sequence each,
of random tokens, so that both compute the same. SFT learns from every token; RL has a clipped policy gradient (PPO's) over every token.
`remat` is whether blocks are recomputed in the backward pass; torch's name for it is gradient checkpointing.

`--model` is a name (75M, 1.5B) or a shape: `layers=16,width=576,ff=1536,heads=9,kv_heads=3,head_width=64,vocab=32000`. It is Qwen2 with
tied embeddings. Where torch and transformers can be imported, `Qwen2ForCausalLM` of the same shape is trained beside it: SDPA attention,
fused AdamW, autocast where the dtype isn't float32. It runs in a process of its own, on the same device. Rounds alternate, so that what
else the machine does hits both alike; speeds are medians over rounds, ratios are of neighbouring rounds, with their range. The load that
the machine had is said.

`memory` is what a step takes most at one time: of ours as XLA planned it (state, gradient and what the program keeps besides), of torch
what its process grew by on a CPU, and what its allocator held on a GPU. `matmul` is the share of this device's rate for a large product,
as jax makes it, with what a model needs for arithmetic: nothing that is recomputed or masked counts.

`groups` is one RL step on `--groups` prompts with `--size` responses each, lengths uniform between a half and three halves of `--response`:
packed as a stage packs them, plain and with `rl.share_prompts`, in turn. The ratio is of their times a step.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is shared with torch's process

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxpolya.config import Optimizer
from jaxpolya.data.packing import Example, pack, token_example
from jaxpolya.data.sharing import pack_groups
from jaxpolya.models.config import DecoderConfig, LayerKind, Rope
from jaxpolya.models.decoder import abstract_params, init_params
from jaxpolya.models.forward import Forward
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.parallel.mesh import batch_to_mesh, make_mesh
from jaxpolya.train.losses import PolicyLoss
from jaxpolya.train.objectives import policy_objective, sft_objective
from jaxpolya.train.policy_terms import PpoClip
from jaxpolya.train.state import Pending, Step, init_state, make_optimizer

NAMED = {
    "75M": "layers=16,width=576,ff=1536,heads=9,kv_heads=3,head_width=64,vocab=32000",
    "1.5B": "layers=28,width=1536,ff=8960,heads=12,kv_heads=2,head_width=128,vocab=151936",
}
RATE, CLIP, MAX_NORM = 1e-5, 0.2, 1.0
GIB = 2**30


def shape_of(text: str) -> dict[str, int]:
    """A named shape, or one that is written out."""
    return {key: int(value) for key, value in (part.split("=") for part in NAMED.get(text, text).split(","))}


def decoder(shape: dict[str, int]) -> DecoderConfig:
    """Qwen2 of this shape."""
    s = shape
    return DecoderConfig(
        "qwen2", s["vocab"], s["width"], s["ff"], s["layers"], s["heads"], s["kv_heads"], s["head_width"], 32_768,
        (LayerKind(rope=Rope(1e6)),), tied_embeddings=True, qkv_bias=True,
    )  # fmt: skip


def make_batch(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Full rows of random tokens, with what an RL step needs of them."""
    rng, shape = np.random.default_rng(0), (case["batch_rows"], case["row_tokens"])
    batch = {
        "tokens": rng.integers(3, case["shape"]["vocab"], shape).astype(np.int32),
        "positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),
        "segment_ids": np.ones(shape, np.int32),
        "weights": np.ones(shape, np.float32),
    }
    if case["objective"] == "rl":
        log_vocab = float(np.log(case["shape"]["vocab"]))
        batch["logp_old"] = rng.normal(-log_vocab, 0.1, shape).astype(np.float32)
        batch["advantage"] = np.broadcast_to(rng.normal(size=(shape[0], 1)), shape).astype(np.float32)
    return batch


def make_groups(case: dict[str, Any]) -> list[Example]:
    """Random prompts with random responses, group by group."""
    rng, made = np.random.default_rng(0), []
    for _ in range(case["groups"]):
        prompt = rng.integers(3, case["shape"]["vocab"], case["prompt"]).tolist()
        for _ in range(case["size"]):
            m = int(rng.integers(case["response"] // 2, case["response"] * 3 // 2 + 1))
            logp = rng.normal(-np.log(case["shape"]["vocab"]), 0.1, m)
            response = rng.integers(3, case["shape"]["vocab"], m).tolist()
            made.append(token_example(prompt, response, logp_old=logp, advantage=np.full(m, rng.normal())))
    return made


def flops(case: dict[str, Any], head: bool = True) -> float:
    """Of a step's products, three times those of a forward pass: what a model needs, whatever is recomputed or masked."""
    config, tokens = decoder(case["shape"]), case["batch_rows"] * case["row_tokens"]
    weights = sum(int(np.prod(spec.shape)) for spec in jax.tree.leaves(abstract_params(config)["blocks"]))
    attention = config.layers * config.heads * config.head_width * (case["row_tokens"] + 1)  # half of the square, twice
    return 6.0 * tokens * (weights + head * config.vocab_size * config.width + attention)


class Ours:
    """A training of ours."""

    def __init__(self, case: dict[str, Any], batch: dict[str, np.ndarray]):
        config = dataclasses.replace(decoder(case["shape"]), attention=case["attention"])
        mesh, self.case, self.batch = make_mesh(), case, batch
        forward = Forward(config, jnp.dtype(case["dtype"]), remat=case["remat"] == "block")
        objective = sft_objective(forward) if case["objective"] == "sft" else policy_objective(forward, PolicyLoss(PpoClip(CLIP, CLIP)))
        optimizer = make_optimizer(Optimizer(learning_rate=RATE, max_grad_norm=MAX_NORM), config, 10_000)
        self.step = Step(objective, config, mesh, optimizer)
        self.state = init_state(init_params(config, jax.random.key(0)), config, mesh, optimizer)
        self.memory = self._memory(mesh)

    def _memory(self, mesh: jax.sharding.Mesh) -> int:
        """Bytes of the gradient's program, with the state."""
        micro = batch_to_mesh({name: array[: self.case["micro_rows"]] for name, array in self.batch.items()}, mesh)
        state = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        with jax.set_mesh(mesh):
            if self.case["micro_rows"] == len(self.batch["tokens"]):
                program = self.step._gradient.lower(self.state["params"], {}, micro).compile()
            else:
                program = self.step._accumulate.lower(self.state["params"], {}, self.state["params"], micro).compile()
        plan = program.memory_analysis()
        besides = plan.argument_size_in_bytes - sum(leaf.nbytes for leaf in jax.tree.leaves(self.state["params"]))
        return state + besides + plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes

    def run(self, steps: int) -> float:
        """Seconds; a step is waited for when the next one is on its way, as in a stage."""
        start, running = time.perf_counter(), None
        for _ in range(steps):
            self.state, pending = self.step.dispatch(self.state, self.batch, self.case["micro_rows"])
            if running:
                running.measured()
            running = pending
        assert isinstance(running, Pending)
        running.measured()
        return time.perf_counter() - start


def torch_training(case: dict[str, Any]) -> tuple[Callable[[int], float], Callable[[], int]]:
    """(a function that trains for some steps and says the seconds, one that says the bytes it took); in a process of its own."""
    import torch
    import transformers

    before = resident("VmRSS")
    device = "cuda" if torch.cuda.is_available() and case["platform"] == "gpu" else "cpu"
    s, dtype = case["shape"], getattr(torch, case["dtype"])
    config = transformers.Qwen2Config(
        vocab_size=s["vocab"], hidden_size=s["width"], intermediate_size=s["ff"], num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"], num_key_value_heads=s["kv_heads"], head_dim=s["head_width"], max_position_embeddings=32_768,
        tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).to(device)
    model.train()
    if case["remat"] == "block":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    batch = {name: torch.from_numpy(array).to(device) for name, array in make_batch(case).items()}
    rows, micro = case["batch_rows"], case["micro_rows"]
    count = rows * (case["row_tokens"] - 1)

    def loss_sum(part: dict[str, Any]) -> Any:
        tokens = part["tokens"].long()
        logits = model(input_ids=tokens).logits[:, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        if case["objective"] == "sft":
            return nll.sum()
        ratio = torch.exp(-nll.view(len(tokens), -1) - part["logp_old"][:, 1:])
        advantage = part["advantage"][:, 1:]
        return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).sum()

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            for row in range(0, rows, micro):
                with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                    loss = loss_sum({name: array[row : row + micro] for name, array in batch.items()})
                (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        return time.perf_counter() - start

    def memory() -> int:
        if device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        return resident("VmHWM") - before

    return run, memory


def resident(what: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM); 0 where the system isn't Linux. What `getrusage` says would
    begin with what the parent held."""
    status = Path("/proc/self/status")
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return 1024 * int(found[1]) if found else 0


def serve_torch() -> None:
    """Answers each line of standard input, a number of steps, with the seconds and bytes they took."""
    run, memory = torch_training(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps([run(int(line)), memory()]), flush=True)


class Torch:
    """A training of torch's, in a process of its own."""

    def __init__(self, case: dict[str, Any]):
        command = [sys.executable, __file__, "--serve-torch"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(case))
        self.memory = 0

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def run(self, steps: int) -> float:
        """Seconds."""
        assert self._process.stdout
        self._say(str(steps))
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("torch's process ended; its error is above")
        seconds, self.memory = json.loads(answer)
        return float(seconds)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def matmul_rate(dtype: str) -> float:
    """FLOP/s of a large product on one device, the best of several."""
    n = 8192 if jax.default_backend() != "cpu" else 2048
    x = jnp.ones((n, n), dtype)
    product = jax.jit(lambda x: jnp.dot(x, x, precision="highest" if dtype == "float32" else None))
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def measure(case: dict[str, Any], rounds: int, steps: int, with_torch: bool) -> dict[str, Any]:
    """One case's figures."""
    ours: Any = Ours(case, make_batch(case))
    sides = {"jaxpolya": ours} | ({"torch": Torch(case)} if with_torch else {})
    seconds, load = in_turn(sides, rounds, steps)
    tokens = case["batch_rows"] * case["row_tokens"]
    figures: dict[str, Any] = {"case": case, "load": load}
    for name, side in sides.items():
        rate = tokens / statistics.median(seconds[name])
        figures[name] = {"tokens_per_second": rate, "seconds": seconds[name], "memory": side.memory}
    figures["jaxpolya"]["matmul_share"] = flops(case) / statistics.median(seconds["jaxpolya"]) / matmul_rate(case["dtype"])
    if with_torch:
        figures["ratio"] = ratios(seconds["torch"], seconds["jaxpolya"])
        sides["torch"].close()
    return figures


def in_turn(sides: dict[str, Any], rounds: int, steps: int) -> tuple[dict[str, list[float]], list[float]]:
    """(seconds a step of each side in each round, the lowest and the highest load)."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    load = []
    for side in sides.values():
        side.run(1)  # compiles, and makes the optimizer's state
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side.run(steps) / steps)
        load.append(os.getloadavg()[0])
    return seconds, [min(load), max(load)]


def ratios(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    """Of neighbouring rounds' seconds."""
    found = [one / other for one, other in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(found), "range": [min(found), max(found)]}


def measure_groups(case: dict[str, Any], rounds: int, steps: int) -> dict[str, Any]:
    """Figures of a step on groups, plain and with shared prompts."""
    examples = make_groups(case)
    shape = {"row_tokens": case["row_tokens"], "rows_multiple": case["micro_rows"]}
    batches = {"plain": pack(examples, **shape), "shared": pack_groups(examples, case["size"], **shape)}
    sides = {name: Ours(case, batch) for name, batch in batches.items()}
    seconds, load = in_turn(sides, rounds, steps)
    figures: dict[str, Any] = {"case": case, "load": load, "ratio": ratios(seconds["plain"], seconds["shared"])}
    for name, batch in batches.items():
        used = int((batch.get("group_ids", batch["segment_ids"]) > 0).sum())
        figures[name] = {
            "rows": len(batch["tokens"]), "tokens": used, "learned": int(batch["weights"].sum()), "seconds": seconds[name],
            "memory": sides[name].memory,
        }  # fmt: skip
    return figures


def group_cells(figures: dict[str, Any]) -> list[str]:
    """A case's row of the table of groups."""
    found = []
    for name in ("plain", "shared"):
        side = figures[name]
        found += [f"{side['rows']} rows, {side['tokens']:,} tokens", f"{statistics.median(side['seconds']):.2f} s"]
        found.append(f"{side['memory'] / GIB:.2f} GiB")
    low, high = figures["ratio"]["range"]
    load = "–".join(f"{load:.1f}" for load in figures["load"])
    return [*found, f"{figures['ratio']['median']:.2f} ({low:.2f}–{high:.2f})", load]


def cells(figures: dict[str, Any]) -> list[str]:
    """A case's row of the table."""

    def of(side: dict[str, Any]) -> list[str]:
        return [f"{side['tokens_per_second']:,.0f} tokens/s", f"{side['memory'] / GIB:.2f} GiB"]

    found = [*of(figures["jaxpolya"]), f"{figures['jaxpolya']['matmul_share']:.0%}"]
    if ratio := figures.get("ratio"):
        low, high = ratio["range"]
        found += [*of(figures["torch"]), f"{ratio['median']:.2f} ({low:.2f}–{high:.2f})"]
    else:
        found += [""] * 3
    return [*found, "–".join(f"{load:.1f}" for load in figures["load"])]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objectives", nargs="*", default=["sft", "rl"], help="sft, rl or groups")
    parser.add_argument("--model", default="75M")
    parser.add_argument("--batch-rows", type=int, default=4)
    parser.add_argument("--micro-rows", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--size", type=int, default=16, help="responses of a group")
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=128, help="tokens, in the mean")
    parser.add_argument("--remat", nargs="+", default=["block", "none"], choices=["block", "none"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--attention", default="auto", choices=["auto", "xla", "cudnn", "splash"], help="as model.attention")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="of a round")
    parser.add_argument("--alone", action="store_true", help="without torch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    peer = not arguments.alone and all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    device, shape = jax.devices()[0], shape_of(arguments.model)
    chosen, said = with_kernel(decoder(shape), arguments.attention, jnp.dtype(arguments.dtype), make_mesh())
    if said:
        print(said)
    of = f"{arguments.micro_rows} × {arguments.row_tokens} tokens at a time, {arguments.dtype}, attention by {chosen.attention}; "
    of += f"{device.device_kind} ({os.cpu_count()} cores), jax {jax.__version__}"
    title = f"{arguments.model}, {arguments.batch_rows} rows, {of}"
    table = Table("step", "remat", "jaxpolya", "memory", "matmul", "torch", "memory", "ratio (range)", "load", title=title)
    title = f"{arguments.model}, {arguments.groups} groups of {arguments.size}, {arguments.prompt} + {arguments.response} tokens, {of}"
    of_groups = Table("remat", "plain", "a step", "memory", "shared prompts", "a step", "memory", "ratio (range)", "load", title=title)
    found = []
    for objective in arguments.objectives:
        for remat in arguments.remat:
            case = {
                "objective": objective, "remat": remat, "shape": shape, "platform": jax.default_backend(),
                "batch_rows": arguments.batch_rows, "micro_rows": arguments.micro_rows, "row_tokens": arguments.row_tokens,
                "dtype": arguments.dtype, "attention": chosen.attention,
            }  # fmt: skip
            if objective == "groups":
                case |= {"objective": "rl"} | {name: getattr(arguments, name) for name in ("groups", "size", "prompt", "response")}
                found.append(measure_groups(case, arguments.rounds, arguments.steps))
                of_groups.add_row(remat, *group_cells(found[-1]))
            else:
                found.append(measure(case, arguments.rounds, arguments.steps, bool(peer)))
                table.add_row(objective, remat, *cells(found[-1]))
    for each in (table, of_groups):
        if each.row_count:
            Console(width=160).print(each)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve-torch"]:
        serve_torch()
    else:
        main()
