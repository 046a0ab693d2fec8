"""The programs that XLA makes for an NVIDIA GPU, which it does without one (`make test` fetches its compiler into .venv/cuda)."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from programs import lowered_burst

from jaxpolya.config import MeshConfig
from jaxpolya.decode.lanes import Plan, abstract_decode_copy, make_empty
from jaxpolya.decode.prefill import make_prefill
from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.parallel.mesh import make_mesh

pytest.importorskip("jax_cuda13_plugin", reason="XLA's compiler for GPUs is not in .venv/cuda")

H100 = (Path(__file__).parents[2] / "benchmarks" / "h100.textproto").read_text()
BY_TRITON = 'custom_call_target="__gpu$xla.gpu.triton"'
pytestmark = pytest.mark.usefixtures("no_compile_cache")

CONFIG = DecoderConfig("llama", 4096, 512, 1024, 2, 8, 4, 128, 2048, tied_embeddings=True)


def gpus(count: int):
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x1x{count}").devices


def compiled_burst(plan, tensor=1, count=1) -> str:
    mesh = make_mesh(MeshConfig(tensor=tensor), gpus(count))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # Pallas asks what kind of device it is
        return lowered_burst(plan, mesh).compile().as_text()


def test_a_prefill_of_several_prompts_copies_no_cache(monkeypatch):
    """With cuDNN's attention, the second of two slices that are written one after the other makes XLA copy the cache before."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    mesh, plan = make_mesh(devices=gpus(1)), Plan(dataclasses.replace(CONFIG, attention="cudnn"), 64, 1, 512, 64, 16, Draw())
    weights, lanes = abstract_decode_copy(plan.config, mesh, jnp.dtype(plan.dtype)), make_empty(plan, mesh).eval_shape()
    tokens, at = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((8, 64), (8, 2)))
    program = make_prefill(plan, mesh).lower(weights, lanes, [], tokens, at).compile()
    cache, memory = 2 * np.prod(plan.cache_shape(plan.prefix)), program.memory_analysis()
    assert memory.alias_size_in_bytes >= 2 * CONFIG.layers * cache
    assert memory.temp_size_in_bytes < cache
    assert "__cudnn$fmha" in program.as_text() and not re.search(r"bf16\[64,4,1,512,128\]\S* copy\(", program.as_text())


def results_in_loops(text: str) -> dict[str, list[int]]:
    """Bytes of the results of what stands in the loop of steps, by kind of instruction."""
    sizes = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "pred": 1}
    (body,) = {body for body in re.findall(r"body=%([\w.\-]+)", text)}
    found: dict[str, list[int]] = {}
    for line in text.split(f"\n%{body} ", 1)[1].split("\n}", 1)[0].splitlines():
        if instruction := re.match(r"\s*(?:ROOT )?%[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(", line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", instruction[1])
            size = sum(sizes[dtype] * int(np.prod([int(n) for n in shape.split(",") if n])) for dtype, shape in shapes if dtype in sizes)
            found.setdefault(instruction[2], []).append(size)
    return found


@pytest.mark.parametrize("attention", ["xla", "pallas"])
def test_a_step_copies_no_keys(attention):
    """XLA would make one product of all that share their queries, of keys that it copies side by side.

    Of a longer suffix than one block, XLA of jax 0.12 copies each block before its products.
    """
    plan = Plan(CONFIG, 64, 1, 512, 256, 16, Draw(), attention=attention)
    suffix = 2 * int(np.prod(plan.cache_shape(plan.suffix)))
    text = compiled_burst(plan)
    results = results_in_loops(text)
    assert len(results["fusion"]) > 10
    assert max(results["fusion"]) < suffix / 2
    assert not results.get("copy")
    assert text.count(BY_TRITON) == (2 * CONFIG.layers if attention == "pallas" else 0)


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (Plan(dataclasses.replace(CONFIG, head_width=64, score_cap=30.0), 4, 16, 96, 1040, 520, Draw(), prompts=4), 1),
        (Plan(dataclasses.replace(CONFIG, heads=4, pattern=(LayerKind(100), LayerKind())), 8, 3, 48, 300, 5, Draw()), 1),
        (Plan(dataclasses.replace(CONFIG, head_width=256, heads=32), 8, 1, 512, 64, 32, Draw(), jnp.float16), 4),
    ],
    ids=[
        "blocks that end beyond a cache, a long burst",
        "a ring, a burst of 5, heads of their own",
        "many and wide heads in half precision on a mesh",
    ],
)
def test_the_kernel_compiles_for_what_models_have(plan, count):
    text = compiled_burst(dataclasses.replace(plan, attention="pallas"), min(count, 2), count)
    assert text.count(BY_TRITON) == 2 * CONFIG.layers
