"""Speed and memory of import and export, beside the disk's own speed and transformers'.

    JAX_PLATFORMS=cpu python benchmarks/convert.py [--gigabytes 2] [--rounds 3] [--directory /where/the/disk/is]

The checkpoint is a Llama in bfloat16 with random weights. Every tool runs in a process of its own, which says how long each call
took and how much memory it had at most; rounds alternate, so that what else the machine does hits all alike, and the table shows
medians. A process does everything twice and reports the second time: the first one compiles, and makes the system find memory.

    disk          plain reads and writes of the same bytes, 4 MiB at a time
    jaxpolya      load_checkpoint, float32 as always; export_checkpoint in the file's bfloat16
    transformers  from_pretrained and save_pretrained, in float32 (what jaxpolya does: a float32 model, written as bfloat16), and in
                  bfloat16 all through, which maps the file (every page is touched then) and writes what it mapped

Cold is without the file in the page cache. Writes are timed until the call returns, and until the files are on the disk (fsync).
Memory is VmHWM in all, and beside that of the process before the call and the parameters themselves.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
BLOCK = 4 << 20
LAYER = {"width": 2048, "ff_width": 5632, "heads": 32, "kv_heads": 8, "head_width": 64}
VOCABULARY = 32_000


def generate(directory: Path, gigabytes: float) -> None:
    """The checkpoint, written without a model in memory."""
    import numpy as np
    from etils import epath
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from jaxpolya.hf.families import config_to_hf, iter_tensors
    from jaxpolya.hf.safetensors_file import file_order, open_to_write
    from jaxpolya.models.config import DecoderConfig

    def config(layers: int) -> DecoderConfig:
        return DecoderConfig(family="llama", vocab_size=VOCABULARY, layers=layers, max_positions=2048, **LAYER)

    def size(layers: int) -> int:
        return sum(2 * int(np.prod(tensor.shape)) for tensor, _, _ in iter_tensors(config(layers)))

    layers = max(1, round((gigabytes * 1e9 - size(1)) / (size(2) - size(1))) + 1)
    shapes = {tensor.name: tensor.shape for tensor, _, _ in iter_tensors(config(layers))}
    dtypes = dict.fromkeys(shapes, "bfloat16")
    directory.mkdir(parents=True)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])), eos_token="a").save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(config_to_hf(config(layers)) | {"torch_dtype": "bfloat16"}))
    numbers = (0.02 * np.random.default_rng(0).standard_normal(1 << 22, np.float32)).view(np.uint16)[1::2]  # upper halves are bfloat16
    with open_to_write(epath.Path(directory / WEIGHTS), dtypes, shapes) as write:
        for name in file_order(dtypes):
            write(np.resize(numbers, shapes[name]))


# What a process measures -------------------------------------------------------------------------------------------------


def peak() -> int:
    """Bytes of memory that this process had at most."""
    return 1024 * int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds of a call; what it returns is let go afterwards."""
    start = time.perf_counter()
    result = call(*arguments)
    seconds = time.perf_counter() - start
    del result
    return seconds


def flush(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def forget(directory: Path) -> None:
    """Takes a directory's files out of the page cache."""
    flush(directory)
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(source: Path, out: Path, read: Callable[[], Any], write: Callable[[Any], object], parameters: int) -> dict[str, float]:
    """What reading and writing take."""
    before, figures = peak(), {}
    read()
    figures |= {"peak": peak(), "beside": peak() - before - parameters}
    forget(source)
    figures["read cold"] = timed(read)
    figures["read warm"] = timed(read)
    for _ in range(2):
        shutil.rmtree(out, ignore_errors=True)
        model = read()
        figures["write"] = timed(write, model)
        figures["write, fsync"] = figures["write"] + timed(flush, out)
        del model
    figures["write peak"] = peak()
    return figures


def disk(source: Path, out: Path) -> dict[str, float]:
    buffer = bytearray(BLOCK)

    def read() -> None:
        with (source / WEIGHTS).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def write(_: object) -> None:
        out.mkdir()
        with (out / WEIGHTS).open("wb", buffering=0) as file:
            for _ in range((source / WEIGHTS).stat().st_size // BLOCK):
                file.write(buffer)

    return measure(source, out, read, write, 0)


def ours(source: Path, out: Path) -> dict[str, float]:
    import jax

    from jaxpolya.hf.checkpoint import Checkpoint, export_checkpoint, load_checkpoint
    from jaxpolya.parallel.mesh import make_mesh

    mesh = make_mesh()

    def read() -> Checkpoint:
        checkpoint = load_checkpoint(str(source), mesh=mesh)
        jax.block_until_ready(checkpoint.params)
        return checkpoint

    def write(checkpoint: Checkpoint) -> None:
        export_checkpoint(out, checkpoint.params, checkpoint.meta)

    return measure(source, out, read, write, 2 * (source / WEIGHTS).stat().st_size)


def theirs(source: Path, out: Path, dtype: str) -> dict[str, float]:
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    def read() -> LlamaForCausalLM:
        model = LlamaForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
        for parameter in model.parameters():
            parameter.detach().view(-1).view(torch.uint8)[::4096].sum()
        return model

    def write(model: LlamaForCausalLM) -> None:
        model.to(torch.bfloat16).save_pretrained(out)

    size = (source / WEIGHTS).stat().st_size
    return measure(source, out, read, write, size * (2 if dtype == "float32" else 1))


TOOLS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "disk": disk,
    "jaxpolya": ours,
    "transformers float32": lambda source, out: theirs(source, out, "float32"),
    "transformers bfloat16": lambda source, out: theirs(source, out, "bfloat16"),
}


# The table ---------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/tmp"), help="where some three times that size fit")
    parser.add_argument("--tool", choices=list(TOOLS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = arguments.directory / "jaxpolya-convert"
    source, out = root / "model", root / "out"
    if arguments.tool:
        print("\n" + json.dumps(TOOLS[arguments.tool](source, out)))
        return
    shutil.rmtree(root, ignore_errors=True)
    try:
        generate(source, arguments.gigabytes)
        size = (source / WEIGHTS).stat().st_size
        rounds: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
        for _ in range(arguments.rounds):
            for tool, of_tool in rounds.items():
                command = [sys.executable, __file__, "--directory", str(arguments.directory), "--tool", tool]
                out_text = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
                ).stdout
                of_tool.append(json.loads(out_text.splitlines()[-1]))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    medians = {tool: {key: statistics.median(each[key] for each in of_tool) for key in of_tool[0]} for tool, of_tool in rounds.items()}
    print(f"{size / 1e9:.2f} GB of weights, medians of {arguments.rounds} rounds (all rounds in brackets)")
    for what in ("read cold", "read warm", "write", "write, fsync"):
        for tool, of_tool in medians.items():
            each = ", ".join(f"{one[what]:.2f}" for one in rounds[tool])
            share = f"  {medians['disk'][what] / of_tool[what]:4.0%} of the disk's speed" if tool != "disk" else ""
            print(f"{what:13} {tool:22} {of_tool[what]:6.2f} s {size / of_tool[what] / 1e9:6.2f} GB/s{share}  ({each})")
    for tool, of_tool in list(medians.items())[1:]:
        beside = f"{of_tool['beside'] / 1e6:.0f} MB beside the parameters"
        print(f"memory        {tool:22} {of_tool['peak'] / 1e9:6.2f} GB to read, {beside}; {of_tool['write peak'] / 1e9:.2f} GB in all")


if __name__ == "__main__":
    main()
