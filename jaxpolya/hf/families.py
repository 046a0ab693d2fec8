"""What Hugging Face calls things: `config.json` ↔ `DecoderConfig`, tensor names ↔ our parameters.

All families are settings of one decoder, so they share one table of tensors; what tells them apart is how their
`config.json` is read. A tensor's layout is written in the logical axes of the parameter specs ("heads head_width" is one
dimension there and two here): reshapes and transposes, in both directions, follow from comparing the two, and so does the
slice of a file that a device's shard needs.

What a family can say and this decoder can't do (a sliding window in use, YaRN, quantised weights) is refused by name.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxpolya.errors import InputError
from jaxpolya.models.config import DecoderConfig, RopeScaling
from jaxpolya.models.decoder import ParamSpec, abstract_params

# Tensors -----------------------------------------------------------------------------------------------------------------

# our name: (their name, each of their dimensions as our axes)
ENDS: dict[str, tuple[str, ...]] = {
    "embed":      ("model.embed_tokens.weight", "vocab", "width"),
    "final_norm": ("model.norm.weight", "width"),
    "head":       ("lm_head.weight", "vocab", "width"),
}  # fmt: skip

BLOCK: dict[str, tuple[str, ...]] = {
    "attn_norm": ("input_layernorm.weight", "width"),
    "q":         ("self_attn.q_proj.weight", "heads head_width", "width"),
    "k":         ("self_attn.k_proj.weight", "kv_heads head_width", "width"),
    "v":         ("self_attn.v_proj.weight", "kv_heads head_width", "width"),
    "o":         ("self_attn.o_proj.weight", "width", "heads head_width"),
    "q_bias":    ("self_attn.q_proj.bias", "heads head_width"),
    "k_bias":    ("self_attn.k_proj.bias", "kv_heads head_width"),
    "v_bias":    ("self_attn.v_proj.bias", "kv_heads head_width"),
    "o_bias":    ("self_attn.o_proj.bias", "width"),
    "q_norm":    ("self_attn.q_norm.weight", "head_width"),
    "k_norm":    ("self_attn.k_norm.weight", "head_width"),
    "mlp_norm":  ("post_attention_layernorm.weight", "width"),
    "gate":      ("mlp.gate_proj.weight", "ff", "width"),
    "up":        ("mlp.up_proj.weight", "ff", "width"),
    "down":      ("mlp.down_proj.weight", "width", "ff"),
    "gate_bias": ("mlp.gate_proj.bias", "ff"),
    "up_bias":   ("mlp.up_proj.bias", "ff"),
    "down_bias": ("mlp.down_proj.bias", "width"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint file, and the parameter (or the layer of a stacked one) that it is."""

    name: str
    """Hugging Face's name."""
    layout: tuple[str, ...]
    """Each dimension of theirs as our logical axes."""
    sizes: tuple[tuple[str, int], ...]
    """Our axes and their sizes, in our order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        sizes = dict(self.sizes)
        return tuple(math.prod(sizes[axis] for axis in group.split()) for group in self.layout)

    @property
    def _axes_there(self) -> list[str]:
        return [axis for group in self.layout for axis in group.split()]

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Our array in their layout."""
        axes_here = [axis for axis, _ in self.sizes]
        return array.transpose([axes_here.index(axis) for axis in self._axes_there]).reshape(self.shape)

    def read(self, read: Callable[[str, tuple[slice, ...]], np.ndarray], index: tuple[slice, ...]) -> np.ndarray:
        """Our slices of this tensor; `read(name, slices)` reads theirs. Only what the slices need is read."""
        sizes = dict(self.sizes)
        wanted = {axis: slice(*cut.indices(size)[:2]) for (axis, size), cut in zip(self.sizes, index, strict=True)}
        there, shape, trim = [], [], {}
        for group in self.layout:
            outer, *inner = group.split()
            block, cut = math.prod(sizes[axis] for axis in inner), wanted[outer]
            there.append(slice(cut.start * block, cut.stop * block))
            shape += [cut.stop - cut.start, *(sizes[axis] for axis in inner)]
            trim.update({axis: wanted[axis] for axis in inner})
        array = read(self.name, tuple(there)).reshape(shape)
        array = array.transpose([self._axes_there.index(axis) for axis, _ in self.sizes])
        return array[tuple(trim.get(axis, slice(None)) for axis, _ in self.sizes)]


def leaf_tensors(config: DecoderConfig) -> dict[str, Any]:
    """A tree like the parameters': a `Tensor` for each array, a list of L for each stacked one."""

    def tensor(prefix: str, row: tuple[str, ...], spec: ParamSpec) -> Tensor:
        sizes = tuple((axis, size) for axis, size in zip(spec.axes, spec.shape, strict=True) if axis and axis != "layers")
        return Tensor(prefix + row[0], row[1:], sizes)

    abstract = abstract_params(config)
    blocks = {
        name: [tensor(f"model.layers.{i}.", BLOCK[name], spec) for i in range(config.layers)] for name, spec in abstract["blocks"].items()
    }
    return {**{name: tensor("", ENDS[name], spec) for name, spec in abstract.items() if name != "blocks"}, "blocks": blocks}


def iter_tensors(config: DecoderConfig) -> Iterator[tuple[Tensor, tuple[str, ...], int | None]]:
    """(tensor, path of its parameter, its layer or None) in the order of the model."""
    tree = leaf_tensors(config)
    yield tree["embed"], ("embed",), None
    for i in range(config.layers):
        for name, tensors in tree["blocks"].items():
            yield tensors[i], ("blocks", name), i
    for name in ("final_norm", "head"):
        if name in tree:
            yield tree[name], (name,), None


# Configurations ----------------------------------------------------------------------------------------------------------


def _llama_switches(hf: dict[str, Any]) -> dict[str, bool]:
    attention = bool(hf.get("attention_bias"))
    return {"qkv_bias": attention, "o_bias": attention, "mlp_bias": bool(hf.get("mlp_bias"))}


def _qwen2_switches(hf: dict[str, Any]) -> dict[str, bool]:
    return {"qkv_bias": True}


def _qwen3_switches(hf: dict[str, Any]) -> dict[str, bool]:
    attention = bool(hf.get("attention_bias"))
    return {"qkv_bias": attention, "o_bias": attention, "qk_norm": True}


@dataclasses.dataclass(frozen=True)
class Family:
    """How one `model_type` sets the decoder's switches, and what transformers calls its model."""

    class_prefix: str
    switches: Callable[[dict[str, Any]], dict[str, bool]]


FAMILIES = {
    "llama": Family("Llama", _llama_switches),
    "qwen2": Family("Qwen2", _qwen2_switches),
    "qwen3": Family("Qwen3", _qwen3_switches),
}


def config_from_hf(hf: dict[str, Any], where: str) -> DecoderConfig:
    """The decoder that a `config.json` describes. Raises `InputError` that names `where`, the key and what is not supported."""
    family = hf.get("model_type")
    if family not in FAMILIES:
        raise InputError(f"{where}: model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")

    def integer(key: str, default: int | None = None) -> int:
        value = default if hf.get(key) is None else hf[key]
        if value is None:
            raise InputError(f"{where}: {key} is missing")
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise InputError(f"{where}: {key} is {value!r}; a positive integer is needed")
        return value

    _refuse_unsupported(hf, where)
    rope_theta, rope_scaling = _rope_from_hf(hf, where)
    width, heads = integer("hidden_size"), integer("num_attention_heads")
    try:
        return DecoderConfig(
            family=family,
            vocab_size=integer("vocab_size"),
            width=width,
            ff_width=integer("intermediate_size"),
            layers=integer("num_hidden_layers"),
            heads=heads,
            kv_heads=integer("num_key_value_heads", heads),
            # Qwen3's own default is 128; the others divide the width.
            head_width=integer("head_dim", 128 if family == "qwen3" else width // heads),
            max_positions=integer("max_position_embeddings"),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            norm_eps=float(hf.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(hf.get("tie_word_embeddings")),
            **FAMILIES[family].switches(hf),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _refuse_unsupported(hf: dict[str, Any], where: str) -> None:
    if hf.get("quantization_config"):
        method = hf["quantization_config"].get("quant_method", "some method")
        raise InputError(
            f"{where}: the weights are quantised ({method}); give a checkpoint in bfloat16, float16 or float32, or a GGUF file"
        )
    if (activation := hf.get("hidden_act", "silu")) not in ("silu", "swish"):
        raise InputError(f"{where}: hidden_act {activation!r} is not supported; silu is")
    sliding = "sliding_attention" in (hf.get("layer_types") or ())
    if hf.get("use_sliding_window") and hf.get("sliding_window"):
        sliding |= hf.get("max_window_layers", 0) < hf.get("num_hidden_layers", 0)
    if sliding and hf.get("sliding_window", 0) < hf.get("max_position_embeddings", math.inf):
        raise InputError(f"{where}: the sliding attention window ({hf.get('sliding_window')}) is not supported; full attention is")


def _rope_from_hf(hf: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """(θ, scaling). transformers 5 writes one `rope_parameters`; before, it was `rope_theta` and `rope_scaling`."""
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0)
    if rope.get("partial_rotary_factor", hf.get("partial_rotary_factor") or 1.0) != 1.0:
        raise InputError(f"{where}: partial rotary embedding is not supported")
    match kind := rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return theta, None
        case "linear":
            return theta, RopeScaling("linear", _number(rope, "factor", where))
        case "llama3":
            return theta, RopeScaling(
                "llama3",
                _number(rope, "factor", where),
                _number(rope, "low_freq_factor", where),
                _number(rope, "high_freq_factor", where),
                int(_number(rope, "original_max_position_embeddings", where)),
            )
    raise InputError(f"{where}: rope type {kind!r} is not supported; supported are default, linear, llama3")


def _number(rope: dict[str, Any], key: str, where: str) -> float:
    if not isinstance(value := rope.get(key), int | float) or isinstance(value, bool) or value <= 0:
        raise InputError(f"{where}: the rope parameter {key} is {value!r}; a positive number is needed")
    return float(value)


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a decoder, in the form that transformers 4 and 5 both read.

    Raises `InputError` where the family has no words for the decoder's switches (say, a Qwen2 without biases).
    """
    if config.family not in FAMILIES:
        raise InputError(f"model_type {config.family!r} is not supported; supported are {', '.join(FAMILIES)}")
    scaling = config.rope_scaling
    rope_scaling: dict[str, Any] | None = None
    if scaling:
        rope_scaling = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope_scaling |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
    hf = {
        "architectures": [f"{FAMILIES[config.family].class_prefix}ForCausalLM"],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ff_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": config.o_bias,
        "mlp_bias": config.mlp_bias,
        "hidden_act": "silu",
    }
    if config_from_hf(hf, "config") != config:
        raise InputError(f"a {config.family} model can't have this combination of biases and norms: {config}")
    return hf
