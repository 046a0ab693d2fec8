"""A GGUF file's metadata, said in the words of a `config.json`.

What the numbers mean for a decoder is then `config_from_hf`'s business, as for any other checkpoint: a GGUF file is its Hugging
Face checkpoint under other names. What its metadata leaves out, llama.cpp knows by architecture, and so must we: Gemma 2's
window, caps and alternation, Gemma 3's local rope base and its five local layers to one global, and the 27B models' own scale
of queries, which llama.cpp tells by their number of layers. (transformers' own GGUF reader fills in its configuration classes'
defaults there, and so never sees a file's caps, Qwen3's head width, or a 27B model's scale.)

Sources: `load_arch_hparams` in llama.cpp's src/models/{llama,qwen2,qwen3,gemma,gemma2,gemma3}.cpp, the defaults in its
llama-hparams.h and llama-model.cpp, and the GGUF specification for the keys.
"""

import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from jaxpolya.errors import InputError
from jaxpolya.hf.families import FULL, WINDOWED, config_from_hf
from jaxpolya.models.config import DecoderConfig, Rope, RopeScaling
from jaxpolya.models.rope import rope_frequencies

MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text"}
"""`general.architecture` → `model_type`. Mistral's files say llama."""

ROPE_FREQS = "rope_freqs.weight"
LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, which scale queries by (D/N)^-1/2 in place of H^-1/2."""

T = TypeVar("T")


class Metadata(dict[str, Any]):
    """The metadata of a file, with errors that name it."""

    def __init__(self, values: Mapping[str, Any], where: str):
        super().__init__(values)
        self.where = where

    @property
    def architecture(self) -> str:
        """One that is supported. Raises `InputError` for others."""
        if (name := self.value("general.architecture", str)) not in MODEL_TYPES:
            raise InputError(f"{self.where}: architecture {name!r} is not supported; supported are {', '.join(MODEL_TYPES)}")
        return name

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """A value of some kind. Raises `InputError` where it is of another, or missing without a default."""
        if (value := self.get(key, default)) is None:
            raise InputError(f"{self.where}: the metadata has no {key}")
        if not isinstance(value, kind):
            raise InputError(f"{self.where}: {key} is {reprlib.repr(value)}, which is no {kind.__name__}")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A number of the architecture, the same in all layers."""
        key = f"{self.architecture}.{name}"
        if isinstance(self.get(key), list):
            raise InputError(f"{self.where}: {key} differs from layer to layer, which is not supported")
        if (value := self.value(key, int, default)) <= 0:
            raise InputError(f"{self.where}: {key} is {value}; a positive integer is needed")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A real number of the architecture. Metadata has them in float32; their shortest decimal form is what was meant (1e-05)."""
        return float(str(np.float32(self.value(f"{self.architecture}.{name}", float, default))))

    def says(self, name: str) -> bool:
        """Whether the architecture's key is there, and not 0."""
        return bool(self.get(f"{self.architecture}.{name}"))


def read_config(metadata: Metadata, shapes: Mapping[str, tuple[int, ...]], divisors: np.ndarray | None) -> DecoderConfig:
    """The decoder that a GGUF file describes.

    Args:
      metadata: of the file.
      shapes: its tensors' shapes, under Hugging Face names.
      divisors: `rope_freqs.weight`, where it is there.

    Raises:
      InputError: a key is missing, contradicts the tensors, or says what the decoder can't do.
    """
    if "model.embed_tokens.weight" not in shapes:
        raise InputError(f"{metadata.where}: tensor token_embd.weight is missing")
    if metadata.says("expert_count"):
        raise InputError(f"{metadata.where}: it is a mixture of experts, which is not supported")
    architecture, size = metadata.architecture, metadata.size
    heads, width, layers = size("attention.head_count"), size("embedding_length"), size("block_count")
    head_width = size("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (other := size(name, head_width)) != head_width:
            raise InputError(f"{metadata.where}: {architecture}.{name} is {other}; only the head width ({head_width}) is supported")
    hf: dict[str, Any] = {
        "model_type": MODEL_TYPES[architecture],
        "vocab_size": shapes["model.embed_tokens.weight"][0],
        "hidden_size": width,
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": size("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": size("context_length"),
        "rms_norm_eps": metadata.real("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "lm_head.weight" not in shapes,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in shapes,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in shapes,
        "rope_parameters": _rope(metadata, head_width, divisors),
    }
    if architecture in ("gemma2", "gemma3"):
        hf["query_pre_attn_scalar"] = width // heads if layers == LARGEST[architecture] else head_width
        hf |= _gemma2(metadata, layers) if architecture == "gemma2" else _gemma3(metadata, layers, hf["rope_parameters"])
    return config_from_hf(hf, metadata.where)


def _gemma2(metadata: Metadata, layers: int) -> dict[str, Any]:
    return {
        "sliding_window": metadata.size("attention.sliding_window", 4096),
        "layer_types": _layer_types(metadata, layers, 2),
        "attn_logit_softcapping": metadata.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.real("final_logit_softcapping", 30.0),
    }


def _gemma3(metadata: Metadata, layers: int, rope: dict[str, Any]) -> dict[str, Any]:
    windowed = metadata.says("attention.sliding_window")
    return {
        "sliding_window": metadata.size("attention.sliding_window") if windowed else None,
        "layer_types": _layer_types(metadata, layers, 6) if windowed else [FULL] * layers,
        "final_logit_softcapping": metadata.real("final_logit_softcapping") if metadata.says("final_logit_softcapping") else None,
        # Only the global layers' rope is scaled.
        "rope_parameters": {
            FULL: rope,
            WINDOWED: {"rope_type": "default", "rope_theta": metadata.real("rope.freq_base_swa", 10_000.0)},
        },
    }


def _layer_types(metadata: Metadata, layers: int, period: int) -> list[str]:
    """The last layer of each period sees everything; none does with a period of 0.

    A file may say another period, or of each layer whether it has a window.
    """
    key = f"{metadata.architecture}.attention.sliding_window_pattern"
    if not isinstance(windowed := metadata.get(key), list):
        period = metadata.value(key, int, period)
        windowed = [period == 0 or i % period < period - 1 for i in range(layers)]
    return [WINDOWED if has_window else FULL for has_window in windowed]


def _rope(metadata: Metadata, head_width: int, divisors: np.ndarray | None) -> dict[str, Any]:
    theta = metadata.real("rope.freq_base", 10_000.0)
    if divisors is not None:
        return _llama3_rope(metadata.where, theta, head_width, divisors)
    factor = metadata.real("rope.scaling.factor", 1.0)
    # A factor without a type is linear, as in llama.cpp.
    match kind := metadata.value(f"{metadata.architecture}.rope.scaling.type", str, "none" if factor == 1.0 else "linear"):
        case "none":
            return {"rope_type": "default", "rope_theta": theta}
        case "linear":
            return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
        case "yarn":
            for name in ("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.attn_factor"):
                if metadata.real(name, 1.0) != 1.0:
                    raise InputError(f"{metadata.where}: {metadata.architecture}.{name} is not 1, which is not supported")
            return {
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": factor,
                "original_max_position_embeddings": metadata.size("rope.scaling.original_context_length"),
                "beta_fast": metadata.real("rope.scaling.yarn_beta_fast", 32.0),
                "beta_slow": metadata.real("rope.scaling.yarn_beta_slow", 1.0),
            }
    raise InputError(
        f"{metadata.where}: rope scaling {kind!r} is not supported; supported are none, linear, yarn and llama3's frequency factors"
    )


def _llama3_rope(where: str, theta: float, head_width: int, divisors: np.ndarray) -> dict[str, Any]:
    """GGUF stores what llama3's formula gives (a divisor per frequency) and not its four numbers: find them, and check."""
    scaling = RopeScaling("llama3", float(divisors.max()))
    frequencies = rope_frequencies(Rope(theta, scaling), head_width)
    if divisors.shape != frequencies.shape or not np.allclose(frequencies * divisors, rope_frequencies(Rope(theta), head_width), rtol=1e-4):
        raise InputError(f"{where}: the factors of {ROPE_FREQS} are not those of Llama 3, and no others are supported")
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_positions,
    }
