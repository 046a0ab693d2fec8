"""What is declared of each parameter is what optimizer and copies make of it."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.config import MeshConfig, Optimizer
from jaxpolya.decode.lanes import abstract_decode_copy, decode_copy
from jaxpolya.models.config import DecoderConfig, Lora
from jaxpolya.models.decoder import abstract_params
from jaxpolya.models.lora import merged_layer
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import param_shardings
from jaxpolya.runs import train
from jaxpolya.runs.identity import meaning
from jaxpolya.train.state import make_optimizer

CONFIG = DecoderConfig("olmo2", 13, 4, 6, 2, 2, 1, 2, 8, qk_norm="all", qkv_bias=True, mlp_bias=True, post_norms=True)
EVERYTHING = dataclasses.replace(CONFIG, lora=Lora(2, 4.0, ("q", "down")), value_head=True)
MATRICES = {"embed", "head", "q", "k", "v", "o", "gate", "up", "down", "q_lora_a", "q_lora_b", "down_lora_a", "down_lora_b"}
NORMS = {"attn_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm", "q_norm", "k_norm", "final_norm"}


def leaves(tree):
    return {path[-1].key: leaf for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=lambda leaf: leaf is None)}


def test_matrices_decay_and_norms_stay_in_float32():
    specs = leaves(abstract_params(EVERYTHING))
    assert {name for name, spec in specs.items() if spec.decays} == MATRICES
    assert {name for name, spec in specs.items() if spec.keeps_float32} == NORMS


@pytest.mark.parametrize("part", ["all", "adapters"])
def test_an_update_of_nothing_shrinks_what_decays(part):
    params = jax.tree.map(lambda spec: jnp.ones(spec.shape), abstract_params(EVERYTHING))
    if part == "adapters":
        params = {"blocks": {name: leaf for name, leaf in params["blocks"].items() if "_lora_" in name}, "value": params["value"]}
    optimizer = make_optimizer(Optimizer(learning_rate=0.5, warmup=0, weight_decay=0.25), EVERYTHING, 4)
    updates, _ = jax.jit(lambda p: optimizer.update(jax.tree.map(jnp.zeros_like, p), optimizer.init(p), p))(params)
    moved = {name for name, leaf in leaves(updates).items() if np.any(leaf)}
    assert moved == MATRICES & set(leaves(params)) and all((leaves(updates)[name] == -0.125).all() for name in moved)


def test_the_decode_copy_is_in_the_compute_dtype_but_for_norms(mesh1):
    copy = decode_copy(jax.tree.map(lambda spec: jnp.ones(spec.shape), abstract_params(CONFIG)), CONFIG, mesh1, "bfloat16")
    assert {path[-1].key for path, leaf in jax.tree.leaves_with_path(copy) if leaf.dtype == jnp.float32} == NORMS


@pytest.mark.parametrize("lora", [None, EVERYTHING.lora])
def test_a_decode_copy_holds_each_layer_as_is_known_of_it(lora):
    mesh, config = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2)), dataclasses.replace(CONFIG, lora=lora)
    random = np.random.default_rng(0)
    stored = jax.tree.map(lambda spec: random.normal(size=spec.shape).astype(np.float32), abstract_params(config))
    on_mesh = jax.device_put(stored, param_shardings(mesh, abstract_params(config), "train"))
    copy, known = decode_copy(on_mesh, config, mesh, "bfloat16"), abstract_decode_copy(config, mesh, jnp.dtype("bfloat16"))
    assert jax.tree.structure(copy) == jax.tree.structure(known)
    for leaf, expected in zip(jax.tree.leaves(copy), jax.tree.leaves(known), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)
    for i, layer in enumerate(copy["blocks"]):
        own = {name: leaf[i] for name, leaf in stored["blocks"].items()}
        for name, leaf in (merged_layer(own, lora) if lora else own).items():
            np.testing.assert_allclose(np.asarray(layer[name], np.float32), leaf, rtol=2**-8, atol=1e-6, err_msg=f"{name} of layer {i}")
    np.testing.assert_allclose(np.asarray(copy["embed"], np.float32), stored["embed"], rtol=2**-8)


@pytest.mark.parametrize(
    ("qk_norm", "decay", "another"), [("all", 0.1, True), ("all", 0.0, False), ("head", 0.1, False), ("none", 0.1, False)]
)
def test_a_training_is_another_one_only_where_norms_once_decayed(qk_norm, decay, another):
    session = SimpleNamespace(meta=SimpleNamespace(config=dataclasses.replace(CONFIG, qk_norm=qk_norm)))
    identity = train._training(session, Optimizer(learning_rate=1e-3, weight_decay=decay))
    assert (identity != meaning("training")) == another and identity["training"] == meaning("training")["training"]
