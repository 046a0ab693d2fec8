"""GGUF files (llama.cpp's format), read as if they were Hugging Face checkpoints.

The file's own metadata is the authority on shapes, rope and context. Tensors keep the order of dimensions that Hugging Face
uses (GGUF's header lists them reversed), except that the rows of llama's q and k are interleaved for llama.cpp's rotary
embedding; here they are put back. Blocks are dequantised row by row as a shard asks for them.

Source of the keys: the GGUF specification; of the interleaving: llama.cpp's converter (its `permute`).
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from jaxpolya.errors import InputError
from jaxpolya.models.config import DecoderConfig, LayerKind, Rope, RopeScaling
from jaxpolya.models.rope import rope_frequencies

ARCHITECTURES = ("llama", "qwen2", "qwen3")

# GGUF's stem (`blk.{i}.` before it where it belongs to a layer) → Hugging Face's
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FREQS = "rope_freqs.weight"


class GGUFFile:
    """An open GGUF file: metadata, and tensors under Hugging Face names (a `hf.tensors.TensorFile`)."""

    def __init__(self, path: Path):
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise InputError(f"{path}: not a whole GGUF file ({error}); download or copy it again") from None
        self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items() if field.types}
        self.architecture = self.get("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"{path}: architecture {self.architecture!r} is not supported; supported are {', '.join(ARCHITECTURES)}")
        if self.metadata.get("split.count", 1) > 1:
            raise InputError(f"{path} is one of {self.metadata['split.count']} pieces; join them with llama.cpp's gguf-split --merge")
        stored = {tensor.name: tensor for tensor in reader.tensors}
        freqs = stored.pop(ROPE_FREQS, None)
        self._tensors = {_hf_name(name): tensor for name, tensor in stored.items()}
        self.shapes = {name: tuple(int(size) for size in reversed(tensor.shape)) for name, tensor in self._tensors.items()}
        self.config = self._read_config(freqs)

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value. Raises `InputError` where it is missing and there is no default."""
        if (value := self.metadata.get(key, default)) is None:
            raise InputError(f"{self.path}: the metadata has no {key}")
        return value

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A float32 slice of a tensor."""
        tensor = self._tensors[name]
        rows: slice | np.ndarray = index[0]
        if self.architecture == "llama" and re.search(r"\.[qk]_proj\.", name):
            rows = _interleaved_rows(self.shapes[name][0], self.config.head_width)[rows]
        try:
            array = gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type)
        except NotImplementedError:
            raise InputError(f"{self.path}: tensor {name} is stored as {tensor.tensor_type.name}, which can't be read") from None
        return array[(slice(None), *index[1:])]

    def where(self, name: str) -> str:
        """The file, for messages."""
        return str(self.path)

    def _read_config(self, freqs: gguf.ReaderTensor | None) -> DecoderConfig:
        def key(name: str, default: Any = None) -> Any:
            return self.get(f"{self.architecture}.{name}", default)

        if "model.embed_tokens.weight" not in self.shapes:
            raise InputError(f"{self.path}: tensor token_embd.weight is missing")
        heads, width = key("attention.head_count"), key("embedding_length")
        kv_heads = key("attention.head_count_kv", heads)
        if isinstance(kv_heads, list) or isinstance(heads, list):
            raise InputError(f"{self.path}: the number of heads differs from layer to layer, which is not supported")
        head_width = key("attention.key_length", width // heads)
        for name in ("attention.value_length", "rope.dimension_count"):
            if (size := key(name, head_width)) != head_width:
                raise InputError(f"{self.path}: {self.architecture}.{name} is {size}; only the head width ({head_width}) is supported")
        try:
            config = DecoderConfig(
                family=self.architecture,
                vocab_size=self.shapes["model.embed_tokens.weight"][0],
                width=width,
                ff_width=key("feed_forward_length"),
                layers=key("block_count"),
                heads=heads,
                kv_heads=kv_heads,
                head_width=head_width,
                max_positions=key("context_length"),
                pattern=(LayerKind(rope=Rope(float(key("rope.freq_base", 10_000.0)), self._linear_scaling())),),
                # Metadata floats are float32; their shortest decimal form is the number that was meant (1e-05).
                norm_eps=float(str(np.float32(key("attention.layer_norm_rms_epsilon")))),
                tied_embeddings="lm_head.weight" not in self.shapes,
                qkv_bias="model.layers.0.self_attn.q_proj.bias" in self.shapes,
                o_bias="model.layers.0.self_attn.o_proj.bias" in self.shapes,
                mlp_bias="model.layers.0.mlp.gate_proj.bias" in self.shapes,
                qk_norm="head" if "model.layers.0.self_attn.q_norm.weight" in self.shapes else "none",
            )
        except ValueError as error:
            raise InputError(f"{self.path}: {error}") from None
        return config if freqs is None else self._with_llama3_scaling(config, np.array(freqs.data, np.float32))

    def _linear_scaling(self) -> RopeScaling | None:
        match kind := self.metadata.get(f"{self.architecture}.rope.scaling.type", "none"):
            case "none":
                return None
            case "linear":
                return RopeScaling("linear", float(self.get(f"{self.architecture}.rope.scaling.factor")))
        raise InputError(f"{self.path}: rope scaling {kind!r} is not supported; supported are none, linear and llama3's frequency factors")

    def _with_llama3_scaling(self, config: DecoderConfig, divisors: np.ndarray) -> DecoderConfig:
        """GGUF stores what llama3's formula gives (a divisor per frequency) and not its four numbers: find them, and check."""
        rope = config.pattern[0].rope
        assert rope is not None
        scaled = dataclasses.replace(rope, scaling=RopeScaling("llama3", float(divisors.max())))
        if not np.allclose(rope_frequencies(scaled, config.head_width) * divisors, rope_frequencies(rope, config.head_width), rtol=1e-4):
            raise InputError(f"{self.path}: the factors of {ROPE_FREQS} are not those of Llama 3, and no others are supported")
        return dataclasses.replace(config, pattern=(LayerKind(rope=scaled),))


def _hf_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor; an unknown one keeps its own."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, stem, kind = match.groups()
        return f"model.layers.{layer}.{BLOCK[stem]}.{kind}" if stem in BLOCK else name
    stem, _, kind = name.rpartition(".")
    return f"{ENDS[stem]}.{kind}" if stem in ENDS else name


def _interleaved_rows(rows: int, head_width: int) -> np.ndarray:
    """Row of the file [rows] that holds each row of the half-split layout.

    Half-split row (head, half, pair) lies at the file's (head, pair, half).
    """
    return np.arange(rows).reshape(-1, head_width // 2, 2).swapaxes(1, 2).reshape(-1)
