"""The GPU's kernel of a decode step computes what XLA's products do, and is taken only where it can. (Engines with it: `test_engine`.)"""

import dataclasses
import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.decode import kernel, kernel_choice
from jaxpolya.decode.kernel_choice import decode_attention
from jaxpolya.errors import ConfigError
from jaxpolya.models.config import DecoderConfig, LayerKind

CONFIG = DecoderConfig("llama", 32, 16, 16, 2, 6, 2, 16, 256)
BF16, F32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
GPU = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="gpu")]]), size=1)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(kernel, "INTERPRET", True)
    kernel_choice._lacks.cache_clear()
    yield
    kernel_choice._lacks.cache_clear()


@pytest.mark.parametrize("window", [None, 20, 70], ids=["all", "a short ring", "a long ring"])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize(("heads", "burst"), [(2, 16), (6, 16), (6, 100)])
def test_it_is_the_products(window, cap, heads, burst, monkeypatch):
    """In float32, of rows at all lengths, of two prompts a lane, in caches that are no whole number of blocks."""
    monkeypatch.setattr(kernel_choice, "BURST", burst)
    monkeypatch.setattr(kernel_choice, "SUFFIX", 5 * burst)
    config = dataclasses.replace(CONFIG, heads=heads, score_cap=cap)
    by_kernel, by_products = (kernel_choice._trial(config, F32, by, window)["output"] for by in ("pallas", "xla"))
    np.testing.assert_allclose(by_kernel, by_products, atol=2e-6)


def test_a_gpu_takes_it_if_its_trial_agrees(monkeypatch):
    config = dataclasses.replace(CONFIG, pattern=(LayerKind(50), LayerKind()))
    assert decode_attention(config, "auto", BF16, GPU) == ("pallas", None)
    assert decode_attention(config, "xla", BF16, GPU) == ("xla", None)
    assert [decode_attention(config, asked, BF16, GPU, rows=31)[0] for asked in ("auto", "pallas")] == ["xla", "pallas"]  # of 2 heads each
    assert decode_attention(config, "auto", BF16, GPU, rows=32)[0] == "pallas"
    right = kernel._scores
    for wrong in (1.2, np.nan):
        monkeypatch.setattr(kernel, "_scores", lambda *given, wrong=wrong: wrong * right(*given))
        kernel_choice._lacks.cache_clear()
        taken, said = decode_attention(config, "auto", BF16, GPU)
        assert taken == "xla"
        assert re.fullmatch(r"decoding's attention .* by XLA and not by a kernel: in a trial its output was \S+ off, of .*", said)


def test_what_it_lacks_is_said(monkeypatch):
    assert decode_attention(CONFIG, "auto", F32, GPU) == ("xla", None)  # is what products are for, and nothing to be told of
    assert "it rounds what is to be computed in float32" in decode_attention(CONFIG, "pallas", F32, GPU)[1]
    assert "power of two, and these have 80" in decode_attention(dataclasses.replace(CONFIG, head_width=80), "auto", BF16, GPU)[1]
    monkeypatch.setattr(kernel, "INTERPRET", False)  # there is no GPU
    taken, said = decode_attention(CONFIG, "auto", BF16, GPU)
    assert taken == "xla" and "in a trial it ended with" in said


def test_a_cpu_takes_products_and_nothing_else(mesh1):
    assert decode_attention(CONFIG, "auto", BF16, mesh1) == decode_attention(CONFIG, "xla", BF16, mesh1) == ("xla", None)
    with pytest.raises(ConfigError, match=r"decode\.attention: pallas runs on NVIDIA GPUs, and this is a CPU; write auto"):
        decode_attention(CONFIG, "pallas", BF16, mesh1)
