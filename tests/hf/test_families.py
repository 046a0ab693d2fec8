"""Configurations as their makers publish them: read in the old spelling, written back, and as many parameters as are known."""

import math

import pytest

from jaxpolya.hf.families import config_from_hf, config_to_hf, iter_tensors
from jaxpolya.models.config import LayerKind, Rope, RopeScaling


def sizes(D, F, L, N, K, V, positions):
    return {
        "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": N, "num_key_value_heads": K,
        "vocab_size": V, "max_position_embeddings": positions,
    }  # fmt: skip


LLAMA3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}
CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
QWEN = {"sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28}

# model: (its config.json, its parameters, the kinds of its first layers)
PUBLISHED = {
    "Llama-3.2-1B": (
        {"model_type": "llama", **sizes(2048, 8192, 16, 32, 8, 128256, 131072), "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
         "rope_scaling": LLAMA3, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1},
        1_235_814_400,
        (LayerKind(rope=Rope(5e5, RopeScaling("llama3", 32.0, 1.0, 4.0, 8192))),),
    ),
    "Mistral-7B-v0.1": (
        {"model_type": "mistral", **sizes(4096, 14336, 32, 32, 8, 32000, 32768), "rms_norm_eps": 1e-5, "rope_theta": 1e4,
         "sliding_window": 4096, "tie_word_embeddings": False},
        7_241_732_096,
        (LayerKind(4096, Rope(1e4)),),
    ),
    "Mistral-7B-v0.3": (
        {"model_type": "mistral", **sizes(4096, 14336, 32, 32, 8, 32768, 32768), "rms_norm_eps": 1e-5, "rope_theta": 1e6,
         "sliding_window": None, "tie_word_embeddings": False},
        7_248_023_552,
        (LayerKind(None, Rope(1e6)),),
    ),
    "Qwen2.5-7B": (
        {"model_type": "qwen2", **sizes(3584, 18944, 28, 28, 4, 152064, 32768), **QWEN, "rope_theta": 1e6, "tie_word_embeddings": False},
        7_615_616_512,
        (LayerKind(None, Rope(1e6)),),
    ),
    "Qwen3-0.6B": (
        {"model_type": "qwen3", **sizes(1024, 3072, 28, 16, 8, 151936, 40960), **QWEN, "sliding_window": None, "head_dim": 128,
         "rope_theta": 1e6, "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False},
        596_049_920,
        (LayerKind(None, Rope(1e6)),),
    ),
    "gemma-2b": (
        {"model_type": "gemma", **sizes(2048, 16384, 18, 8, 1, 256000, 8192), "head_dim": 256, "hidden_act": "gelu", "rope_theta": 1e4},
        2_506_172_416,
        (LayerKind(None, Rope(1e4)),),
    ),
    "gemma-2-2b": (
        {"model_type": "gemma2", **sizes(2304, 9216, 26, 8, 4, 256000, 8192), **CAPS, "head_dim": 256, "query_pre_attn_scalar": 256,
         "sliding_window": 4096, "rope_theta": 1e4, "hidden_activation": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
        2_614_341_888,
        (LayerKind(4096, Rope(1e4)), LayerKind(None, Rope(1e4))),
    ),
    "gemma-3-1b": (
        {"model_type": "gemma3_text", **sizes(1152, 6912, 26, 4, 1, 262144, 32768), "head_dim": 256, "query_pre_attn_scalar": 256,
         "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None},
        999_885_952,
        (*[LayerKind(512, Rope(1e4))] * 5, LayerKind(None, Rope(1e6))),
    ),
    "SmolLM3-3B": (
        {"model_type": "smollm3", **sizes(2048, 11008, 36, 16, 4, 128256, 65536), "no_rope_layers": [1, 1, 1, 0] * 9, "rope_theta": 5e6,
         "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": True},
        3_075_098_624,
        (*[LayerKind(None, Rope(5e6))] * 3, LayerKind(None, None)),
    ),
    "OLMo-2-0425-1B": (
        {"model_type": "olmo2", **sizes(2048, 8192, 16, 16, 16, 100352, 4096), "rope_theta": 5e5, "tie_word_embeddings": False},
        1_484_916_736,
        (LayerKind(None, Rope(5e5)),),
    ),
    "Olmo-3-1025-7B": (
        {"model_type": "olmo3", **sizes(4096, 11008, 32, 32, 32, 100278, 65536), "rope_theta": 5e5, "tie_word_embeddings": False,
         "sliding_window": 4096, "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 8,
         "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "beta_fast": 32.0, "beta_slow": 1.0,
                          "attention_factor": 1.2079441541679836}},
        7_298_011_136,
        (*[LayerKind(4096, Rope(5e5))] * 3,
         LayerKind(None, Rope(5e5, RopeScaling("yarn", 8.0, original_max_positions=8192, attention_factor=1.2079441541679836)))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name):
    settings, parameters, pattern = PUBLISHED[name]
    config = config_from_hf(settings, name)
    assert sum(math.prod(tensor.shape) for tensor, _, _ in iter_tensors(config)) == parameters
    assert config.pattern == pattern
    assert config.context == settings["max_position_embeddings"]
    assert config_from_hf(config_to_hf(config), "written") == config


def test_gemma_means_the_approximate_gelu_whatever_it_says():
    assert config_from_hf(PUBLISHED["gemma-2b"][0], "gemma-2b").activation == "gelu_tanh"


def test_yarn_as_qwen_publishes_it():
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = config_from_hf({**PUBLISHED["Qwen2.5-7B"][0], "rope_scaling": scaling}, "long")
    assert config.context == 131072
    yarn = config.pattern[0].rope.scaling
    assert (yarn.kind, yarn.factor, yarn.attention_factor) == ("yarn", 4.0, pytest.approx(0.1 * math.log(4) + 1))
