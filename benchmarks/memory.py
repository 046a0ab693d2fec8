"""Device memory of full training and of adapters, as XLA plans it for one accelerator; nothing is allocated and no device is needed.

    python benchmarks/memory.py [1.5B] [3B] [--row-tokens 4096] [--micro-rows 1] [--rank 16] [--prompt 1024] [--response 3072]
        [--decode-rows 16]

The programs are those of a run: a micro-batch's gradient, an optimizer step, and a burst of the decode engine beside the weights that RL
keeps while it draws. They are compiled by libtpu for one chip of a TPU v5p (95 GB, so that full training fits too), in bfloat16 with blocks
recomputed in the backward pass. Each line says what is held at the moment that takes most:

    parameters   trained and frozen          state   gradient and Adam's moments
    decode       the copy to decode with, as far as it isn't the parameters themselves
    cache        keys and values of all rows
    programs     what XLA keeps besides (activations, logits of a chunk)

The shapes are those of Qwen2.5-1.5B and Llama-3.2-3B. Needs the `test` extra (libtpu).
"""

import argparse
import math
import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would look for the cloud that it isn't in
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no chip to lock

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from jaxpolya.config import LoraConfig, MeshConfig, Optimizer
from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.lanes import Plan, Rows, abstract_decode_copy, make_empty, shared_with_decoding
from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig, LayerKind, Rope
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.forward import Forward
from jaxpolya.models.lora import divided, joined
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import batch_sharding, param_shardings, replicated
from jaxpolya.train.adapters import adapted
from jaxpolya.train.objectives import sft_objective
from jaxpolya.train.state import Step, abstract_state, make_optimizer

MODELS = {
    "1.5B": DecoderConfig(
        "qwen2", 151_936, 1536, 8960, 28, 12, 2, 128, 32_768, (LayerKind(rope=Rope(1e6)),), tied_embeddings=True, qkv_bias=True
    ),
    "3B": DecoderConfig("llama", 128_256, 3072, 8192, 28, 24, 8, 128, 131_072, (LayerKind(rope=Rope(5e5)),), tied_embeddings=True),
}
DTYPE = jnp.dtype("bfloat16")
Line = dict[str, float]


def size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def besides(program: Any) -> int:
    """Bytes of a compiled program beyond its arguments."""
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def frozen_parameters(config: DecoderConfig, mesh: Mesh) -> Params:
    """As `train.adapters.begin` holds them."""
    specs, shardings = (
        divided(tree, config)[1] for tree in (abstract_params(config), param_shardings(mesh, abstract_params(config), "train"))
    )
    return jax.tree.map(
        lambda spec, at: jax.ShapeDtypeStruct(spec.shape, spec.dtype_in(DTYPE), sharding=at),
        specs,
        shardings,
    )


def training(config: DecoderConfig, mesh: Mesh, rows: int, tokens: int) -> tuple[Line, Line]:
    """(a micro-batch's gradient, an optimizer step)."""
    optimizer = make_optimizer(Optimizer(learning_rate=1e-4), config, 10)
    state, frozen = abstract_state(config, mesh, optimizer), frozen_parameters(config, mesh)
    step = Step(sft_objective(Forward(config, DTYPE, remat=True)), config, mesh, optimizer)
    fields = {"tokens": jnp.int32, "positions": jnp.int32, "segment_ids": jnp.int32, "weights": jnp.float32}
    batch = {name: jax.ShapeDtypeStruct((rows, tokens), dtype, sharding=batch_sharding(mesh)) for name, dtype in fields.items()}
    with jax.set_mesh(mesh):
        gradient = step._accumulate.lower(state["params"], frozen, state["params"], batch).compile()
        count = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
        update = step._update.lower(state, state["params"], count).compile()
    held = {"parameters": size(state["params"]) + size(frozen), "state": size(state["params"]) + size(state["opt"])}
    return held | {"programs": besides(gradient)}, held | {"programs": besides(update)}


def rollout(config: DecoderConfig, mesh: Mesh, prompt: int, response: int, rows: int) -> Line:
    """A burst of decoding a group of `rows` samples while the training state is held."""
    optimizer = make_optimizer(Optimizer(learning_rate=1e-4), config, 10)
    state, frozen = abstract_state(config, mesh, optimizer), frozen_parameters(config, mesh)
    plan = Plan(config.base, 1, rows, prompt, response, 16, Draw(), DTYPE)
    stored = joined(state["params"], frozen)
    shared = shared_with_decoding(stored, config, mesh, DTYPE)
    copy = {name: leaf for name, leaf in abstract_decode_copy(config, mesh, DTYPE).items() if name not in shared}
    whole, lanes = {**copy, **{name: stored[name] for name in shared}}, make_empty(plan, mesh).eval_shape()
    where = Rows(*(jax.ShapeDtypeStruct((1, rows), kind) for kind in [jnp.int32] * 4 + [jnp.uint32]))
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    burst = make_burst(plan, mesh, response).lower(whole, lanes, where, jax.eval_shape(lambda: jax.random.key(0)), scalar, scalar).compile()
    return {
        "parameters": size(state["params"]) + size(frozen),
        "state": size(state["opt"]),
        "decode": size(copy),
        "cache": size(lanes),
        "programs": besides(burst),
    }


COLUMNS = ("parameters", "state", "decode", "cache", "programs")


def show(name: str, what: str, line: Line) -> float:
    total = sum(line.values()) / 2**30
    cells = "  ".join(f"{line.get(column, 0) / 2**30:10.2f}" for column in COLUMNS)
    print(f"{name:<22}{what:<22}{cells}  {total:8.2f}", flush=True)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="1.5B, 3B; unset is both")
    for option, default in (
        ("row-tokens", 4096),
        ("micro-rows", 1),
        ("rank", 16),
        ("prompt", 1024),
        ("response", 3072),
        ("decode-rows", 16),
    ):
        parser.add_argument(f"--{option}", type=int, default=default)
    asked = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # a program of a device that isn't here can't be read back
    mesh = make_mesh(MeshConfig(), topologies.get_topology_desc("v5p:2x2x1", platform="tpu").devices[:1])
    print(f"{'GiB':<44}{'  '.join(f'{column:>10}' for column in COLUMNS)}  {'together':>8}")
    for name in asked.models:
        peaks = {}
        for kind, lora in (("full", None), (f"adapters, rank {asked.rank}", LoraConfig(rank=asked.rank))):
            config = adapted(MODELS[name], lora)
            programs = zip(("gradient", "update"), training(config, mesh, asked.micro_rows, asked.row_tokens), strict=True)
            gib = [max(show(f"{name} {kind}", what, line) for what, line in programs)]
            gib.append(show(f"{name} {kind}", "rollout", rollout(config, mesh, asked.prompt, asked.response, asked.decode_rows)))
            peaks[kind] = gib
        (full, adapters) = peaks.values()
        print(f"{name}: of full training's memory, adapters take {adapters[0] / full[0]:.2f}, and of RL's {max(adapters) / max(full):.2f}")


if __name__ == "__main__":
    main()
