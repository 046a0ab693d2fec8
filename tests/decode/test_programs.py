"""What the compiled programs hold, and what they must not."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.config import MeshConfig
from jaxpolya.decode.burst import _flush, make_burst
from jaxpolya.decode.lanes import Plan, Rows, decode_copy, make_empty
from jaxpolya.decode.prefill import make_prefill
from jaxpolya.decode.sampling import Draw
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import Block, init_params
from jaxpolya.parallel.mesh import make_mesh

CONFIG = DecoderConfig("qwen2", 512, 32, 48, 2, 4, 2, 8, 512, tied_embeddings=True)
P, G, BURST = 8, 4, 8


def lowered(shape: MeshConfig, config: DecoderConfig):
    """(burst, prefill) as lowered programs on a mesh of eight devices."""
    mesh = make_mesh(shape)
    plan = Plan(config, P, G, 64, 32, BURST, Draw(), jnp.dtype("float32"), prompts=2)
    params = decode_copy(init_params(config, jax.random.key(0)), config, mesh, jnp.float32)
    lanes = make_empty(plan, mesh)()
    rows = Rows(*[jnp.zeros((P, G), jnp.int32)] * 4, jnp.zeros((P, G), jnp.uint32))
    R = mesh.shape["replica"] * mesh.shape["fsdp"]
    burst = make_burst(plan, mesh, 32).lower(params, lanes, rows, jax.random.key(0), jnp.float32(1), jnp.float32(1))
    prefill = make_prefill(plan, mesh).lower(params, lanes, [], jnp.zeros((R, 32), jnp.int32), jnp.zeros((R, 2), jnp.int32))
    return burst, prefill


def compiled(shape: MeshConfig):
    """(burst, prefill) as compiled programs on a mesh of eight devices."""
    burst, prefill = lowered(shape, CONFIG)
    return burst.compile(), prefill.compile()


def collectives(program) -> list[str]:
    return re.findall(r"= \(?(\S+?)\{\S* (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", program.as_text())


def test_data_parallel_decoding_talks_once_a_burst():
    """Devices that hold different lanes exchange nothing but the burst's tokens and log-probs, after its last step."""
    burst, prefill = compiled(MeshConfig(fsdp=8))
    assert sorted(collectives(burst)) == [f"f32[{P},{G},{BURST}]", f"s32[{P},{G},{BURST}]"]
    assert collectives(prefill) == []


def test_tensor_parallel_decoding_never_moves_a_cache():
    burst, prefill = compiled(MeshConfig(replica=2, fsdp=2, tensor=2))
    cache = 2 * 4 * 1 * 32 * 8  # one device's share of a suffix cache, in elements
    for program in (burst, prefill):
        for shape in collectives(program):
            sizes = [int(size) for size in re.findall(r"\d+", shape.split("[")[1])]
            assert jnp.prod(jnp.array(sizes or [1])) < cache, shape


def test_a_burst_on_a_cpu_copies_no_cache_of_one_block():
    burst, _ = compiled(MeshConfig(fsdp=8))
    caches = ("1,2,2,8,64", "1,2,2,64,8", "1,2,4,8,32", "1,2,4,32,8")  # a device's prefixes and suffixes, keys and values
    assert all(f"f32[{cache}]" in burst.as_text() for cache in caches)
    assert not [c for c in caches if re.search(rf"= f32\[{c}\]\S* (?:copy|transpose|fusion)\(", burst.as_text())]


def test_lanes_are_donated():
    burst, _ = compiled(MeshConfig(fsdp=8))
    aliased = re.search(r"input_output_alias=\{(.*?)\}, entry", burst.as_text())
    assert aliased and aliased[1].count("alias") >= 4 * CONFIG.layers + 1


def test_layers_that_are_alike_are_traced_once(monkeypatch):
    traced, call = [], Block.__call__
    monkeypatch.setattr(Block, "__call__", lambda block, x, *rest: (traced.append(x.shape), call(block, x, *rest))[1])
    kinds = (LayerKind(), LayerKind(window=16))
    lowered(MeshConfig(fsdp=8), dataclasses.replace(CONFIG, layers=6, pattern=kinds))
    assert traced == [(P * G, 1, 32)] * len(kinds) + [(8, 32, 32)] * len(kinds)


def test_every_way_of_flushing_a_burst_writes_each_row_s_own_block():
    length_PG = jnp.array([[0, 8], [24, 40]])
    suffix, recent, expected = [], [], []
    for layer, slots in enumerate((64, 32)):  # the second one's last ring has begun anew
        cache, new = (jax.random.normal(jax.random.key(10 * layer + i), (2, 3, 2, S, 5)) for i, S in enumerate((slots, 8)))
        written = np.array(cache)
        for (lane, row), block in {(0, 0): 0, (0, 1): 1, (1, 0): 3, (1, 1): 5 % (slots // 8)}.items():
            written[lane, :, row, 8 * block : 8 * block + 8] = new[lane, :, row]
        suffix.append((cache, -cache))
        recent.append((new, -new))
        expected.append((written, -written))
    for platform in ("gpu", "tpu"):
        jax.tree.map(np.testing.assert_array_equal, _flush(suffix, recent, length_PG, platform), expected)
    suffix, expected = ([(keys.swapaxes(-1, -2), values) for keys, values in cache] for cache in (suffix, expected))
    jax.tree.map(np.testing.assert_array_equal, _flush(suffix, recent, length_PG, "cpu"), expected)
