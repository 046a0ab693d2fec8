"""What only TPUs show: slices, and the programs that XLA's TPU compiler makes of ours. libtpu compiles for TPUs that are elsewhere."""

import dataclasses
import os
import re

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would look for the cloud that it isn't in
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no chip to lock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from programs import lowered_burst

from jaxpolya.config import MeshConfig, Optimizer
from jaxpolya.decode.lanes import Plan, make_layer_copy
from jaxpolya.decode.sampling import Draw
from jaxpolya.errors import ConfigError
from jaxpolya.models.attention import packed_attention
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import abstract_params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import batch_sharding, param_shardings
from jaxpolya.train.objectives import sft_objective
from jaxpolya.train.state import Step, abstract_state, make_optimizer

pytest.importorskip("libtpu")

pytestmark = pytest.mark.usefixtures("no_compile_cache")

CONFIG = DecoderConfig("llama", 32_768, 512, 1024, 2, 8, 4, 128, 2048, tied_embeddings=True)


def chips(topology: str, slices: int = 1):
    return topologies.get_topology_desc(topology, platform="tpu", num_slices=slices).devices


def shapes(tree, shardings):
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings)


def estimated_cycles(text):
    """(A loop's name → its body's cycles, cycles of what stands outside of loops), as XLA's TPU compiler estimates instructions."""
    loops, computation, cycles = set(re.findall(r"body=%([\w.\-]+)", text)), None, {}
    for line in text.splitlines():
        if begins := re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line):
            computation = "outside" if begins[1] else begins[2]
        elif estimate := re.search(r'"estimated_cycles":"(\d+)"', line):
            cycles[computation] = cycles.get(computation, 0) + int(estimate[1])
    return {loop: cycles.get(loop, 0) for loop in loops}, cycles.get("outside", 0)


def test_only_replica_spans_slices():
    devices = chips("v5e:2x4", slices=2)
    for shape in (MeshConfig(replica=2, fsdp=4, tensor=2), MeshConfig(replica=4, fsdp=-1, tensor=1), MeshConfig(replica=2, fsdp=8)):
        mesh = make_mesh(shape, devices)
        slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        halves = np.split(slices, 2)
        assert [set(half.flat) for half in halves] == [{0}, {1}]
    with pytest.raises(ConfigError, match=r"replica=1 is not a multiple of the 2 slices"):
        make_mesh(MeshConfig(fsdp=16), devices)


def test_a_burst_keeps_one_cache_on_a_tpu():
    """A step writes into the donated cache: no second one, and no row's keys and values leave their chip."""
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2), chips("v5e:2x4"))
    plan = Plan(CONFIG, 64, 1, 512, 256, 16, Draw())
    burst = lowered_burst(plan, mesh).compile()
    P, G = plan.lanes, plan.rows
    one_layer = 2 * np.prod(plan.cache_shape(plan.suffix)) * 2 // 8  # keys and values, bfloat16, on one of eight chips
    memory = burst.memory_analysis()
    assert memory.alias_size_in_bytes >= CONFIG.layers * one_layer
    assert memory.temp_size_in_bytes < one_layer
    text = burst.as_text()
    assert "operand_precision={highest" in text, "blocks of the vocabulary are added up by a product, in float32"
    loops = {body for body in re.findall(r"body=%([\w.\-]+)", text) if "region" in body}
    assert len(loops) == 2, "one of steps and one of rows that are flushed"
    for loop in loops:
        body = text.split(f"\n%{loop} ")[1].split("\n}")[0]
        copied = re.findall(r"%(?:copy|transpose|scatter)[\w.]* = \(?bf16\[([\d,]*)\]", body)
        assert all(np.prod([int(size) for size in shape.split(",")]) < one_layer / 4 for shape in copied), "a suffix cache is copied"
    moved = re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)", text)
    assert all(np.prod([int(size) for size in shape.split(",") if size]) < P * G * CONFIG.width for shape in moved), moved


def test_a_decode_copy_gathers_no_layer_twice():
    """One program of all layers holds most of them twice while it runs."""
    mesh, dtype = make_mesh(MeshConfig(fsdp=4, tensor=2), chips("v5e:2x4")), jnp.dtype("bfloat16")
    stored = shapes(abstract_params(CONFIG), param_shardings(mesh, abstract_params(CONFIG), "train"))["blocks"]
    memory = make_layer_copy(CONFIG, mesh, dtype).lower(stored, jax.ShapeDtypeStruct((), jnp.int32)).compile().memory_analysis()
    bytes_of_layer = 2 * sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(stored)) / CONFIG.layers
    assert memory.output_size_in_bytes < 1.1 * bytes_of_layer / 2, "more than a half by tensor"
    assert memory.temp_size_in_bytes < 0.1 * memory.output_size_in_bytes


BYTES_A_CYCLE = {"v5e:2x4": 819e9 / 1.5e9, "v5p:2x2x2": 2765e9 / 1.75e9}
"""HBM bandwidth by clock, of a chip (docs.cloud.google.com/tpu; jax-ml.github.io/scaling-book/tpus)."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("topology", "lanes", "rows", "most"),
    [("v5e:2x4", 256, 1, 1.40), ("v5e:2x4", 16, 16, 1.25), ("v5p:2x2x2", 256, 1, 2.95), ("v5p:2x2x2", 16, 16, 3.35)],
)
def test_what_a_decode_step_takes_beside_reading_its_bytes(topology, lanes, rows, most):
    """Qwen2.5-1.5B's shape, all 28 layers: of few layers the compiler keeps a part of the weights in a chip's own memory.

    A v5p has 2.9 times the bandwidth a cycle, and its compiler estimates 2.1 times the bytes' time for the MLP's bare products of 32 rows.
    """
    config = DecoderConfig("qwen2", 151_936, 1536, 8960, 28, 12, 2, 128, 4096, tied_embeddings=True)
    mesh = make_mesh(MeshConfig(fsdp=8), chips(topology))
    plan = Plan(config, lanes, rows, 512, 512, 16, Draw())
    weights = sum(np.prod(spec.shape) for spec in jax.tree.leaves(abstract_params(config), is_leaf=lambda leaf: hasattr(leaf, "axes")))
    cache = 2 * config.layers * (lanes * 512 + lanes * rows * 512) * config.kv_heads * config.head_width / 8
    bound = 2 * (weights + cache) / BYTES_A_CYCLE[topology]
    loops, outside = estimated_cycles(lowered_burst(plan, mesh).compile().as_text())
    flushed, step = sorted(loops.values())
    cycles = step + (outside + flushed * lanes * rows / 8) / plan.burst
    print(
        f"{topology}, {lanes} lanes of {rows}: {step / 1e6:.2f} M cycles, {cycles / 1e6:.2f} M with the flush; {cycles / bound:.3f} × bytes"
    )
    assert 1 < cycles / bound < most


def test_a_training_step_compiles_for_a_tpu(monkeypatch):
    monkeypatch.setattr("jaxpolya.models.heads._chunk_bytes", lambda: 2**25)  # of a device without room for the logits of a micro-batch
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2), chips("v5e:2x4"))
    config = dataclasses.replace(CONFIG, attention="splash")  # what `auto` takes
    optimizer = make_optimizer(Optimizer(learning_rate=1e-4), config, 10)
    step = Step(sft_objective(Forward(config, jnp.dtype("bfloat16"), remat=True)), config, mesh, optimizer)
    state = abstract_state(config, mesh, optimizer)
    fields = {"tokens": jnp.int32, "positions": jnp.int32, "segment_ids": jnp.int32, "weights": jnp.float32}
    batch = {name: jax.ShapeDtypeStruct((8, 1024), dtype, sharding=batch_sharding(mesh)) for name, dtype in fields.items()}
    with jax.set_mesh(mesh):
        program = step._gradient.lower(state["params"], {}, batch).compile()
    text = program.as_text()
    assert "reduce-scatter" in text or "all-reduce" in text
    assert "splash_mha_dkv" in text
    logits = 8 * 1024 * CONFIG.vocab_size * 4 // 8
    assert program.memory_analysis().temp_size_in_bytes < logits, "the logits of a whole micro-batch were materialised"


def test_splash_and_its_gradient_compile_for_a_tpu():
    """For each of a model's windows, on each chip's rows and heads, of a length that is no multiple of a tile."""
    config = dataclasses.replace(CONFIG, head_width=64, score_cap=30.0, pattern=(LayerKind(100), LayerKind()), attention="splash")
    mesh, B, T = make_mesh(MeshConfig(fsdp=4, tensor=2), chips("v5e:2x4")), 8, 1000
    rows = batch_sharding(mesh)
    heads = NamedSharding(mesh, PartitionSpec(*rows.spec, None, "tensor"))
    q, k, v = (jax.ShapeDtypeStruct((B, T, n, 64), jnp.bfloat16, sharding=heads) for n in (8, 4, 4))
    segments, window = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=rows), jax.ShapeDtypeStruct((), jnp.int32)

    def loss(q, k, v, segments, window):
        return packed_attention(config, q, k, v, segments, window).astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, v, segments, window).compile().as_text()
    for kernel in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert len(set(re.findall(rf"%({kernel}[\w.]*) = ", text))) == 2
    assert not re.search(r"\[(?:\d+,)*1\d{3},1\d{3}\]", text), "scores of whole rows"
    assert "all-gather" not in text
