"""Attention by everything that this device has for it, beside the reference.

    JAX_PLATFORMS=cpu python benchmarks/kernels.py [CASE…] [--small] [--dtype float32] [--rounds 5] [--json FILE]

A case is a batch of rows of one of the shapes below, forward and with its gradient. What runs is XLA's (`model.attention: xla`), the
device's kernel (`cudnn` on a GPU, `splash` on a TPU), that kernel told nothing of segments (`… whole`: what telling it costs; its numbers
are others), and torch's `scaled_dot_product_attention`, where torch is installed and sees the same device. torch is given the cases of
one segment alone, causal and without a mask. Rounds alternate, so that what else the machine does hits all alike; times are medians over
rounds.

`matmul` is the share of this device's rate for a large product: what is visible counts, 4·H operations a query, key and head forward, 3.5
times that with the gradient, and nothing that a kernel computes beyond it. `off` is how far output or gradient are from the reference in
float32 at most, as a share of the largest number in it.

Cases (rows × tokens, query/key-value heads of a width):
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is shared with torch

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from train import matmul_rate

from jaxpolya.models.attention import causal_attention, packed_attention
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.kernel_choice import PLATFORMS


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows of one shape."""

    rows: int
    tokens: int
    heads: int
    kv_heads: int
    width: int
    segments: int = 6
    """In a row; 1: there is no padding either."""
    window: int | None = None

    def __str__(self) -> str:
        shape = f"{self.rows} × {self.tokens}, {self.heads}/{self.kv_heads} of {self.width}"
        segments = f", {self.segments} segments and padding" if self.segments > 1 else ", one segment"
        return f"{shape}{segments}{f', window of {self.window}' if self.window else ''}"

    @property
    def small(self) -> "Case":
        """For a CPU, or to see that it runs."""
        return dataclasses.replace(self, rows=1, tokens=min(self.tokens, 512), window=self.window and 128)

    @property
    def config(self) -> DecoderConfig:
        """A decoder of these heads."""
        return DecoderConfig("llama", 32, 16, 16, 1, self.heads, self.kv_heads, self.width, self.tokens)

    @property
    def segment_ids_BT(self) -> np.ndarray:
        """Segments of unequal lengths, the last twentieth of a row being padding."""
        if self.segments == 1:
            return np.ones((self.rows, self.tokens), np.int32)
        rng, real = np.random.default_rng(1), self.tokens - self.tokens // 20
        cuts = [np.sort(rng.choice(np.arange(1, real), self.segments - 1, replace=False)) for _ in range(self.rows)]
        ids = np.stack([1 + np.searchsorted(cut, np.arange(self.tokens), side="right") for cut in cuts])
        return np.where(np.arange(self.tokens) < real, ids, 0).astype(np.int32)

    @property
    def flops(self) -> float:
        """Of the forward pass."""
        ids_BT, back = self.segment_ids_BT, np.arange(self.tokens)[:, None] - np.arange(self.tokens)
        near = (back >= 0) & (back < (self.window or self.tokens))
        visible = sum(int((near & (ids[:, None] == ids) & (ids > 0)).sum()) for ids in ids_BT)
        return 4.0 * self.heads * self.width * visible


CASES = {
    "1.5B": Case(8, 2048, 12, 2, 128),
    "1.5B-one": Case(8, 2048, 12, 2, 128, segments=1),
    "135M": Case(8, 2048, 9, 3, 64),
    "3B-long": Case(2, 4096, 24, 8, 128, segments=3),
    "window": Case(4, 4096, 8, 4, 256, window=1024),
}
Run = Callable[[], Any]


def made(case: Case, dtype: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Queries, keys, values and the output's gradient [B, T, ·, H], float32 numbers that `dtype` has, and which tokens are real."""
    rng = np.random.default_rng(0)
    heads = (case.heads, case.kv_heads, case.kv_heads, case.heads)
    arrays = [rng.normal(size=(case.rows, case.tokens, count, case.width)).astype(dtype).astype(np.float32) for count in heads]
    return arrays, (case.segment_ids_BT > 0)[..., None, None]


def programs(case: Case, kernel: str, dtype: str, whole: bool) -> tuple[Run, Run]:
    """(forward, with gradient), whose results are arrays in a tuple."""
    config = dataclasses.replace(case.config, attention=kernel)
    arrays, real = made(case, dtype)
    q, k, v, wanted = (jnp.asarray(array, dtype) for array in arrays)
    segments = jnp.asarray(case.segment_ids_BT)

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        if whole:
            return causal_attention(config, q, k, v, case.window)
        return packed_attention(config, q, k, v, segments, case.window)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jnp.where(real, attention(q, k, v), 0)
        return jnp.sum((out * wanted).astype(jnp.float32)), out

    forward, gradient = jax.jit(attention), jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))

    def both() -> tuple[jax.Array, ...]:
        gradients, out = gradient(q, k, v)
        return out, *gradients

    return lambda: (forward(q, k, v),), both


def torch_programs(case: Case, dtype: str) -> tuple[Run, Run]:
    """torch's, causal."""
    import torch

    place = "cuda" if jax.default_backend() == "gpu" else "cpu"
    q, k, v, wanted = (torch.tensor(x, device=place, dtype=getattr(torch, dtype)).transpose(1, 2) for x in made(case, dtype)[0])
    inputs = [x.contiguous().requires_grad_() for x in (q, k, v)]

    def attention() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)

    def waited(results: tuple[Any, ...]) -> tuple[Any, ...]:
        if place == "cuda":
            torch.cuda.synchronize()
        return tuple(x.detach().transpose(1, 2) for x in results)

    def forward() -> Any:
        with torch.no_grad():
            return waited((attention(),))

    def both() -> Any:
        out = attention()
        return waited((out, *torch.autograd.grad(out, inputs, wanted)))

    return forward, both


def seconds(run: Run, least: float) -> float:
    """Of one call, several of which take at least so long together."""
    count, start = 0, time.perf_counter()
    while True:
        results = run()
        count += 1
        if count % 4 == 0 or time.perf_counter() - start > least:
            [x.block_until_ready() for x in results if isinstance(x, jax.Array)]
            if (took := time.perf_counter() - start) > least:
                return took / count


def off(found: tuple[Any, ...], reference: tuple[np.ndarray, ...], real: np.ndarray) -> float:
    """The largest difference in output or gradients, each as a share of the largest number in it."""
    shares = []
    for i, (ours, exact) in enumerate(zip(found, reference, strict=True)):
        array = np.asarray(ours.float().cpu().numpy() if hasattr(ours, "cpu") else ours, np.float32)
        shares.append(np.abs(np.where(real, array, 0) - exact if i == 0 else array - exact).max() / np.abs(exact).max())
    return float(np.max(shares))


def sides(case: Case, dtype: str) -> dict[str, tuple[Run, Run]]:
    """What this device has, by name."""
    here = [kernel for kernel, platform in PLATFORMS.items() if platform == jax.default_backend()] if dtype != "float32" else []
    found = {kernel: programs(case, kernel, dtype, whole=False) for kernel in ["xla", *here]}
    found |= {f"{kernel} whole": programs(case, kernel, dtype, whole=True) for kernel in here if case.segments > 1}
    if case.segments == 1 and case.window is None and importlib.util.find_spec("torch"):
        import torch

        if jax.default_backend() == "cpu" or (jax.default_backend() == "gpu" and torch.cuda.is_available()):
            found["torch"] = torch_programs(case, dtype)
    return found


def measure(case: Case, dtype: str, rounds: int, least: float, rate: float) -> dict[str, Any]:
    """One case's figures, by side; a side that failed says how."""
    reference = tuple(np.asarray(x) for x in programs(case, "xla", "float32", whole=False)[1]())
    real, figures, running = made(case, dtype)[1], {}, {}
    for name, (forward, both) in sides(case, dtype).items():
        try:
            forward()
            figures[name] = {"off": None if "whole" in name else off(both(), reference, real)}
            both()
            running[name] = (forward, both)
        except Exception as error:  # what a kernel can't do is a result
            figures[name] = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, pair in running.items():
            times[name].append((seconds(pair[0], least), seconds(pair[1], least)))
    for name, of_rounds in times.items():
        forward, both = (statistics.median(column) for column in zip(*of_rounds, strict=True))
        figures[name] |= {"forward_ms": 1e3 * forward, "gradient_ms": 1e3 * both, "rounds": of_rounds}
        if "whole" not in name:
            figures[name] |= {"forward_share": case.flops / forward / rate, "gradient_share": 3.5 * case.flops / both / rate}
    return figures


def main() -> None:
    """Measures and prints."""
    cases = "".join(f"\n    {name:9} {case}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(description=__doc__ + cases, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help="some of them")
    parser.add_argument("--small", action="store_true", help="one row of at most 512 tokens")
    parser.add_argument("--dtype", help="bfloat16, on a CPU float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.1, help="seconds that a measurement takes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    dtype = arguments.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    device, rate = jax.devices()[0], matmul_rate(dtype)
    machine = {
        "device": device.device_kind, "cores": os.cpu_count(), "jax": jax.__version__, "dtype": dtype, "matmul_flops": rate,
        "load": os.getloadavg()[0],
    }  # fmt: skip
    title = f"{dtype}; {device.device_kind} ({os.cpu_count()} cores), a large product {rate / 1e12:.2f} TFLOP/s, jax {jax.__version__}, "
    table = Table("case", "by", "forward", "matmul", "with gradient", "matmul", "off", title=f"{title}load {machine['load']:.1f}")
    found = {}
    for name in arguments.cases:
        case = CASES[name].small if arguments.small else CASES[name]
        found[name] = {"case": dataclasses.asdict(case), "by": measure(case, dtype, arguments.rounds, arguments.least, rate)}
        for i, (side, of_side) in enumerate(found[name]["by"].items()):
            table.add_row("" if i else f"{name}: {case}", side, *cells(of_side), end_section=i == len(found[name]["by"]) - 1)
    Console(width=170).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "cases": found}, indent=1) + "\n")


def cells(figures: dict[str, Any]) -> list[str]:
    """A side's columns."""
    if "failed" in figures:
        return [figures["failed"]]
    share = {kind: f"{figures[f'{kind}_share']:.0%}" if f"{kind}_share" in figures else "" for kind in ("forward", "gradient")}
    off_by = "" if figures["off"] is None else f"{figures['off']:.1e}"
    return [f"{figures['forward_ms']:.2f} ms", share["forward"], f"{figures['gradient_ms']:.2f} ms", share["gradient"], off_by]


if __name__ == "__main__":
    main()
