"""Kernels of attention compute what the reference does, and a model takes one only where it can."""

import dataclasses
import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.errors import ConfigError
from jaxpolya.models import kernel_choice, kernels
from jaxpolya.models.attention import causal_attention, packed_attention
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import UNLIMITED
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.models.visibility import SharedPrompts

CONFIG = DecoderConfig("llama", 32, 16, 16, 1, 4, 2, 8, 64)
B, T = 2, 150
SEGMENTS = jnp.array(np.repeat([[1, 2, 0], [1, 1, 2]], [70, 50, 30], axis=1))
PLAIN = SEGMENTS, None
SHARED = (  # a prompt with two responses, one with one and padding
    jnp.array(np.repeat([[0, 1, 2], [0, 1, 0]], [70, 50, 30], axis=1)),
    SharedPrompts(
        jnp.array(np.repeat([[1, 1, 1], [1, 1, 0]], [70, 50, 30], axis=1)),
        jnp.array([[*range(120), *range(70, 100)], [*range(120), *[0] * 30]]),
    ),
)
BF16, F32 = jnp.dtype("bfloat16"), jnp.dtype("float32")


def inputs(T=T, S=None):
    S = S or T
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (B, n, heads, 8)) for key, n, heads in zip(keys, (T, S, S, T), (4, 2, 2, 4), strict=True)]


def by_splash(config, window, segments):
    scale, cap = config.score_scale, config.score_cap
    return partial(kernels.splash, segments=segments, scale=scale, cap=cap, window=window, interpret=True)


def by_cudnn(config, window, segments):
    return partial(kernels.cudnn, segments=segments, scale=config.score_scale, window=window, implementation="xla")


@pytest.mark.parametrize(
    ("kernel", "window", "cap", "ids"),
    [
        (by_splash, None, None, PLAIN),
        (by_splash, 37, 3.0, PLAIN),
        (by_cudnn, None, None, PLAIN),
        (by_cudnn, 37, None, PLAIN),
        (by_cudnn, jnp.int32(37), None, SHARED),
    ],
    ids=["splash", "splash, window and cap", "cudnn", "cudnn, window", "cudnn, window as data, shared prompts"],
)
def test_values_and_gradients_are_the_references(kernel, window, cap, ids, monkeypatch):
    """Of rows with segments and padding, whose length is no multiple of a tile, and grouped heads."""
    monkeypatch.setattr(kernels, "LARGEST_BLOCK", kernels.TILE)  # several blocks, some of which nothing sees
    config, (q, k, v, wanted) = dataclasses.replace(CONFIG, score_cap=cap), inputs()
    segments, shared = ids
    real = ((shared.group_ids if shared else segments) > 0)[..., None, None]  # what padding says means nothing, and isn't asked for

    def outcome(attention):
        def of(q, k, v):
            out = jnp.where(real, attention(q, k, v), 0)
            return (out * wanted).sum(), out

        return jax.tree.leaves(jax.jit(jax.grad(of, argnums=(0, 1, 2), has_aux=True))(q, k, v))

    expected = outcome(lambda q, k, v: packed_attention(config, q, k, v, segments, window, shared=shared))
    found = outcome(kernel(config, window, (ids, ids)))
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-5)


@pytest.mark.parametrize(
    ("kernel", "lengths", "window"),
    [(by_splash, (20, 40), 6), (by_cudnn, (20, 40), None), (by_cudnn, (20, 40), 6), (by_cudnn, (40, 40), 6)],
)
def test_the_last_positions_see_those_before_them(kernel, lengths, window):
    q, k, v, _ = inputs(*lengths)
    found = jax.jit(kernel(CONFIG, window, None))(q, k, v)
    np.testing.assert_allclose(found, causal_attention(CONFIG, q, k, v, window), atol=1e-5)


def in_place_of_splash(*inputs, scale, window, **others):
    """What needs no interpreter."""
    assert not isinstance(window, jax.Array)
    return kernels.cudnn(*inputs, scale=scale, window=window, implementation="xla")


def test_on_a_mesh_each_device_takes_its_rows_and_heads(mesh8, monkeypatch):
    """And where a window is data, the kernel that was made for it runs."""
    shapes = []

    def kernel(q, *others, **how):
        shapes.append(q.shape)
        return in_place_of_splash(q, *others, **how)

    monkeypatch.setattr(kernels, "splash", kernel)
    config = dataclasses.replace(CONFIG, layers=2, pattern=(LayerKind(5), LayerKind()))
    q, k, v, _ = (jnp.concatenate([x, x + 1]).astype(BF16) for x in inputs(24))
    segments = jnp.broadcast_to(1 + jnp.arange(24) // 12, (4, 24))

    def gradients(config):
        def loss(q, k, v, window):
            return jnp.square(packed_attention(config, q, k, v, segments, window).astype(jnp.float32)).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))

    ours, references = gradients(dataclasses.replace(config, attention="splash")), gradients(config)
    for window in (5, UNLIMITED):
        with jax.set_mesh(mesh8):
            found = ours(q, k, v, jnp.int32(window))
        for one, reference in zip(found, references(q, k, v, jnp.int32(window)), strict=True):
            np.testing.assert_allclose(np.float32(one), np.float32(reference), atol=0.02 * float(jnp.abs(reference).max()))
    assert set(shapes) == {(1, 24, 2, 8)}


def test_cudnn_is_called_forward_and_backward(monkeypatch):
    """As far as a machine without a GPU can see: the program for one has its calls."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    config = dataclasses.replace(CONFIG, attention="cudnn")
    q, k, v, _ = (x.astype(BF16) for x in inputs())

    def loss(q, k, v):
        return packed_attention(config, q, k, v, SEGMENTS).astype(jnp.float32).sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    assert set(re.findall(r"__cudnn\$(\w+)", text)) == {"fmhaScaleBiasSoftmax", "fmhaScaleBiasSoftmaxBackward"}
    one = jax.jit(partial(causal_attention, config, window=5)).trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    assert re.findall(r"__cudnn\$(\w+)", one) == ["fmhaSoftmax"]


def test_shared_prompts_are_the_references_where_a_kernel_takes_no_mask(monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    q, k, v, _ = (x.astype(BF16) for x in inputs())
    segments, shared = SHARED
    programs = {
        name: str(jax.make_jaxpr(lambda *x, of=of: packed_attention(of, *x, segments, shared=shared))(q, k, v))
        for name in ("xla", "splash", "cudnn")
        for of in [dataclasses.replace(CONFIG, attention=name)]
    }
    assert programs["splash"] == programs["xla"]
    assert "dot_product_attention_fwd" in programs["cudnn"]


def test_float32_is_computed_exactly_whatever_the_kernel():
    by_name = {name: dataclasses.replace(CONFIG, attention=name) for name in ("xla", "cudnn")}
    programs = {name: str(jax.make_jaxpr(partial(causal_attention, config, window=5))(*inputs()[:3])) for name, config in by_name.items()}
    assert programs["cudnn"] == programs["xla"]


@pytest.fixture(autouse=True)
def _forget_trials():
    kernel_choice._lacks.cache_clear()


def a_mesh_of(platform):
    return SimpleNamespace(devices=np.array([[SimpleNamespace(platform=platform)]]))


def test_a_cpu_takes_xla_and_nothing_else(mesh1):
    assert with_kernel(CONFIG, "auto", BF16, mesh1) == with_kernel(CONFIG, "xla", BF16, mesh1) == (CONFIG, None)
    with pytest.raises(ConfigError, match="cudnn runs on a GPU, and this is a CPU; write auto"):
        with_kernel(CONFIG, "cudnn", BF16, mesh1)


@pytest.mark.parametrize(
    ("platform", "dtype", "cap", "why"),
    [
        ("gpu", BF16, 50.0, r"cuDNN: it has no cap on scores"),
        ("gpu", BF16, None, r"cuDNN: in a trial it ended with \w+: .+"),  # there is no GPU
        ("tpu", BF16, None, r"Splash: in a trial it ended with \w+: .+"),
    ],
)
def test_a_model_that_a_kernel_lacks_something_for_goes_on_with_xla(platform, dtype, cap, why):
    config = dataclasses.replace(CONFIG, score_cap=cap)
    chosen, said = with_kernel(config, "auto", dtype, a_mesh_of(platform))
    assert chosen == config
    assert re.search(why, said)


def test_float32_takes_xla_without_a_word_unless_a_kernel_is_asked_for():
    assert with_kernel(CONFIG, "auto", F32, a_mesh_of("gpu")) == (CONFIG, None)
    assert "by XLA and not by cuDNN: it rounds what is to be computed in float32" in with_kernel(CONFIG, "cudnn", F32, a_mesh_of("gpu"))[1]


def test_a_kernel_is_taken_if_its_trial_agrees(monkeypatch):
    config, tpu = dataclasses.replace(CONFIG, pattern=(LayerKind(5),)), a_mesh_of("tpu")
    monkeypatch.setattr(kernel_choice, "LENGTH", 24)
    monkeypatch.setattr(kernels, "splash", in_place_of_splash)
    assert with_kernel(config, "auto", BF16, tpu) == (dataclasses.replace(config, attention="splash"), None)
    assert with_kernel(config, "xla", BF16, tpu) == (config, None)
    for wrong, what in ((without_window, "its output was"), (nan_gradient, "its gradient was nan off")):
        monkeypatch.setattr(kernels, "splash", wrong)
        kernel_choice._lacks.cache_clear()
        chosen, said = with_kernel(config, "auto", BF16, tpu)
        assert chosen == config
        assert what in said


def without_window(*inputs, window, **others):
    return in_place_of_splash(*inputs, window=None, **others)


def nan_gradient(*inputs, **others):
    out = in_place_of_splash(*inputs, **others)
    return out + (jnp.sqrt(out - out) * 0).astype(out.dtype)  # 0, and its slope is infinite
