"""What Hugging Face calls things: `config.json` ↔ `DecoderConfig`, tensor names ↔ our parameters.

All families are settings of one decoder. What tells them apart is one row of `FAMILIES`: the switches that they always set,
and the tensors that they call otherwise. All else is read from `config.json`, whose keys mean the same in every family that
knows them; transformers' own configuration classes say which keys a family knows, what a missing one is, and how older
spellings are read.

A tensor's layout is written in the logical axes of the parameter specs ("heads head_width" is one dimension there and two
here): reshapes and transposes, in both directions, follow from comparing the two, and so does the slice of a file that a
device's shard needs. What a family can say and this decoder can't do (quantised weights, say) is refused by name.
"""

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from transformers import CONFIG_MAPPING

from jaxpolya.errors import InputError
from jaxpolya.models.config import Activation, DecoderConfig, LayerKind, Rope, RopeScaling
from jaxpolya.models.decoder import ParamSpec, abstract_params

# Families ----------------------------------------------------------------------------------------------------------------

Row = tuple[str, ...]
"""(their name of a tensor, each of their dimensions as our axes)."""


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to one `model_type`."""

    class_prefix: str
    """Of its classes in transformers: …ForCausalLM."""
    switches: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `DecoderConfig` that it always sets."""
    tensors: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    """Tensors that differ from `BLOCK`."""


GEMMA = {"zero_centred_norms": True, "scaled_embeddings": True}
SANDWICH = {"mlp_norm": ("pre_feedforward_layernorm.weight", "width")}  # since post_attention_layernorm is what it says there
OLMO = {"pre_norms": False, "post_norms": True, "qk_norm": "all"}
WIDE_NORMS = {"q_norm": ("self_attn.q_norm.weight", "heads head_width"), "k_norm": ("self_attn.k_norm.weight", "kv_heads head_width")}

FAMILIES = {
    "llama": Family("Llama"),
    "mistral": Family("Mistral"),
    "qwen2": Family("Qwen2", {"qkv_bias": True}),
    "qwen3": Family("Qwen3", {"qk_norm": "head"}),
    "gemma": Family("Gemma", GEMMA),
    "gemma2": Family("Gemma2", {**GEMMA, "post_norms": True}, SANDWICH),
    # Its attention has no cap, though its configuration has a key for one.
    "gemma3_text": Family("Gemma3", {**GEMMA, "post_norms": True, "qk_norm": "head", "score_cap": None}, SANDWICH),
    "smollm3": Family("SmolLM3"),
    "olmo2": Family("Olmo2", OLMO, WIDE_NORMS),
    "olmo3": Family("Olmo3", OLMO, WIDE_NORMS),  # with windows, and rotary frequencies that only its full layers stretch
}

# transformers imports a class when it is asked for, and all of torch's modules with it where torch is installed: here and now, with
# the other imports, rather than while a checkpoint is read.
CONFIGURATIONS = {model_type: CONFIG_MAPPING[model_type] for model_type in FAMILIES}

# Tensors -----------------------------------------------------------------------------------------------------------------

ENDS: dict[str, Row] = {
    "embed":      ("model.embed_tokens.weight", "vocab", "width"),
    "final_norm": ("model.norm.weight", "width"),
    "head":       ("lm_head.weight", "vocab", "width"),
}  # fmt: skip

BLOCK: dict[str, Row] = {
    "attn_norm": ("input_layernorm.weight", "width"),
    "attn_post_norm": ("post_attention_layernorm.weight", "width"),
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
    "mlp_post_norm": ("post_feedforward_layernorm.weight", "width"),
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
    def shape_here(self) -> tuple[int, ...]:
        """Shape of our array."""
        return tuple(size for _, size in self.sizes)

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

    rows = {**BLOCK, **FAMILIES[config.family].tensors}

    def tensor(prefix: str, row: Row, spec: ParamSpec) -> Tensor:
        sizes = tuple((axis, size) for axis, size in zip(spec.axes, spec.shape, strict=True) if axis and axis != "layers")
        return Tensor(prefix + row[0], row[1:], sizes)

    abstract = abstract_params(config)
    blocks = {
        name: [tensor(f"model.layers.{i}.", rows[name], spec) for i in range(config.layers)] for name, spec in abstract["blocks"].items()
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

NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"
)  # fmt: skip
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}  # theirs, several for one of ours; the first is written
WINDOWED, FULL = "sliding_attention", "full_attention"
SHARED = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype", "tie_word_embeddings", "quantization_config")
"""What a model of several parts says for all of them."""


TEXT_PARTS = {"gemma3": "gemma3_text"}
"""`model_type` of a model that sees images too → that of its text part, which is a model by itself."""


def text_part(hf: dict[str, Any], where: str) -> dict[str, Any]:
    """The `config.json` of the text model in one that sees images too, completed; another one as it is.

    Raises `InputError` where the part is missing, or as `config_from_hf`.
    """
    if not isinstance(kind := hf.get("model_type"), str) or kind not in TEXT_PARTS:
        return hf
    if not isinstance(inner := hf.get("text_config"), dict):
        raise InputError(f"{where}: a {kind} model's text_config is missing")
    shared = {key: hf[key] for key in SHARED if key in hf}
    names = hf.get("architectures")
    if isinstance(names, list):
        shared["architectures"] = [str(name).replace("ForConditionalGeneration", "ForCausalLM") for name in names]
    text = {**shared, **inner, "model_type": TEXT_PARTS[kind]}
    return {**config_to_hf(config_from_hf(text, where)), **text}


def config_from_hf(hf: dict[str, Any], where: str) -> DecoderConfig:
    """The decoder that a `config.json` describes. Raises `InputError` that names `where`, the key and what is not supported."""
    model_type = hf.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(f"{where}: model_type {model_type!r} is not supported; supported are {', '.join([*FAMILIES, *TEXT_PARTS])}")
    for key in NEEDED:
        if key in hf:
            _check_needed(hf, key, where)
    full = _completed(hf, where)
    for key in NEEDED:  # what a configuration leaves out, the family's class may know
        _check_needed(full, key, where)
    _refuse_unsupported(full, where)
    attention_bias, width = bool(full.get("attention_bias")), full["hidden_size"]
    kv_heads, head_width = full["num_key_value_heads"], hf.get("head_dim") or full.get("head_dim") or width // full["num_attention_heads"]
    _check_size(kv_heads, "num_key_value_heads", where)
    _check_size(head_width, "head_dim", where)
    scalar, score_cap, logit_cap = (
        None if full.get(key) is None else _positive(full[key], key, where)
        for key in ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping")
    )
    switches = {
        "activation": ACTIVATIONS[_activation(full)],
        "qkv_bias": attention_bias,
        "o_bias": attention_bias,
        "mlp_bias": bool(full.get("mlp_bias")),
        "query_scale": None if scalar is None else scalar**-0.5,
        "score_cap": score_cap,
        "logit_cap": logit_cap,
    }
    try:
        return DecoderConfig(
            family=model_type,
            vocab_size=full["vocab_size"],
            width=width,
            ff_width=full["intermediate_size"],
            layers=full["num_hidden_layers"],
            heads=full["num_attention_heads"],
            kv_heads=kv_heads,
            head_width=head_width,
            max_positions=full["max_position_embeddings"],
            pattern=_pattern(full, where),
            norm_eps=float(full["rms_norm_eps"]),
            tied_embeddings=bool(full["tie_word_embeddings"]),
            **{**switches, **FAMILIES[model_type].switches},
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _check_needed(settings: Mapping[str, Any], key: str, where: str) -> None:
    if settings.get(key) is None:
        raise InputError(f"{where}: {key} is missing")
    _check_size(settings[key], key, where)


def _check_size(value: Any, key: str, where: str) -> None:
    # Beyond any model, and before transformers' classes make lists of that length.
    largest = 9_999 if key == "num_hidden_layers" else 2**31 - 1
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= largest:
        raise InputError(f"{where}: {key} is {value!r}; a positive integer of at most {largest} is needed")


def _positive(value: Any, key: str, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{where}: {key} is {value!r}; a positive number is needed")
    return float(value)


def known_keys(model_type: str) -> set[str]:
    """The keys of `config.json` that mean something to a family; others may stand there and are ignored."""
    return set(inspect.signature(CONFIGURATIONS[model_type]).parameters)


def _completed(hf: dict[str, Any], where: str) -> dict[str, Any]:
    """What transformers understands a `config.json` to say, every key that the family knows filled in."""
    try:
        full = CONFIGURATIONS[hf["model_type"]].from_dict(copy.deepcopy(hf)).to_dict()
    except Exception as error:  # its validators raise classes of their own
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: not a configuration of a {hf['model_type']} model ({reason})") from None
    known = known_keys(hf["model_type"]) | {"quantization_config"}
    return {key: value for key, value in full.items() if key in known}


def _activation(full: dict[str, Any]) -> Any:
    return full.get("hidden_activation") or full.get("hidden_act")


def _refuse_unsupported(full: dict[str, Any], where: str) -> None:
    if full.get("quantization_config"):
        method = full["quantization_config"].get("quant_method", "some method")
        raise InputError(
            f"{where}: the weights are quantised ({method}); give a checkpoint in bfloat16, float16 or float32, or a GGUF file"
        )
    if _activation(full) not in ACTIVATIONS:
        raise InputError(f"{where}: the activation {_activation(full)!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    if full.get("use_bidirectional_attention"):
        raise InputError(f"{where}: use_bidirectional_attention is set; only causal models are supported")


def _pattern(full: dict[str, Any], where: str) -> tuple[LayerKind, ...]:
    """The kinds of the layers, as few as repeat to all."""
    L, window = full["num_hidden_layers"], full.get("sliding_window")
    types = full.get("layer_types") or [WINDOWED if window and "layer_types" not in full else FULL] * L
    rotated = full.get("no_rope_layers") or [True] * L
    if len(types) < L or len(rotated) < L:
        raise InputError(f"{where}: layer_types or no_rope_layers names fewer layers than num_hidden_layers ({L})")
    kinds = []
    for kind, rotate in zip(types[:L], rotated, strict=False):
        if kind not in (FULL, WINDOWED):
            raise InputError(f"{where}: layers of type {kind!r} are not supported; {FULL} and {WINDOWED} are")
        if kind == WINDOWED:
            _check_size(window, "sliding_window", where)
        rope = full["rope_parameters"]
        rope = _rope(rope.get(kind, rope), full["max_position_embeddings"], where) if rotate else None
        kinds.append(LayerKind(window if kind == WINDOWED else None, rope))
    period = next(p for p in range(1, L + 1) if all(kinds[i] == kinds[i % p] for i in range(L)))
    return tuple(kinds[:period])


def _rope(rope: dict[str, Any], max_positions: int, where: str) -> Rope:
    def number(key: str, default: float | None = None) -> float:
        return _positive(default if rope.get(key) is None else rope[key], f"the rope parameter {key}", where)

    if number("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{where}: partial rotary embedding is not supported")
    theta = number("rope_theta")
    match kind := rope["rope_type"]:
        case "default":
            return Rope(theta)
        case "linear":
            return Rope(theta, RopeScaling("linear", number("factor")))
        case "llama3":
            original = int(number("original_max_position_embeddings", max_positions))
            return Rope(theta, RopeScaling("llama3", number("factor"), number("low_freq_factor"), number("high_freq_factor"), original))
        case "yarn":
            original = int(number("original_max_position_embeddings", max_positions))
            factor = number("factor", max_positions / original)
            scaling = RopeScaling(
                "yarn",
                factor,
                original_max_positions=original,
                beta_fast=number("beta_fast", 32.0),
                beta_slow=number("beta_slow", 1.0),
                attention_factor=number("attention_factor", _yarn_attention_factor(rope, number, factor)),
                truncate=bool(rope.get("truncate", True)),
            )
            return Rope(theta, scaling)
    raise InputError(f"{where}: rope type {kind!r} is not supported; supported are default, linear, llama3, yarn")


def _yarn_attention_factor(rope: dict[str, Any], number: Callable[[str], float], factor: float) -> float:
    """0.1·ln(factor) + 1 (arXiv 2309.00071, eq. 22), or DeepSeek's quotient of two such where a configuration has both its scales."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(number("mscale")) / scale(number("mscale_all_dim"))
    return scale(1.0)


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a decoder, in the form that transformers 4 and 5 both read.

    Raises `InputError` where the family has no words for the decoder's switches (say, a Qwen2 without biases).
    """
    if config.family not in FAMILIES:
        raise InputError(f"model_type {config.family!r} is not supported; supported are {', '.join(FAMILIES)}")
    kinds = [config.kinds[kind] for kind in config.kind_of_layer]
    ropes = {WINDOWED if kind.window else FULL: kind.rope for kind in kinds if kind.rope}
    rope = ropes.get(FULL) or ropes.get(WINDOWED) or Rope()
    activation = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    fields = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ff_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": config.o_bias,
        "mlp_bias": config.mlp_bias,
        "hidden_act": activation,
        "hidden_activation": activation,
        "sliding_window": next((kind.window for kind in kinds if kind.window), None),
        "use_sliding_window": any(kind.window for kind in kinds),
        "layer_types": [WINDOWED if kind.window else FULL for kind in kinds],
        "no_rope_layers": [int(kind.rope is not None) for kind in kinds],
        "query_pre_attn_scalar": round(config.score_scale**-2),
        "attn_logit_softcapping": config.score_cap,
        "final_logit_softcapping": config.logit_cap,
    }
    known = known_keys(config.family)
    hf = {
        "architectures": [f"{FAMILIES[config.family].class_prefix}ForCausalLM"],
        "model_type": config.family,
        **{key: value for key, value in fields.items() if key in known},
        "head_dim": config.head_width,
        "rope_theta": rope.theta,
        "rope_scaling": rope.scaling and _scaling_to_hf(rope.scaling),
        # A missing one would be the id that the family's first model had.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if config.family == "gemma3_text":
        hf["rope_local_base_freq"] = (ropes.get(WINDOWED) or Rope()).theta
    if config.family == "olmo3":  # version 4 has one base for all its layers; 5 takes its own default for the windowed ones
        hf["rope_parameters"] = {name: _rope_to_hf(ropes.get(name) or rope) for name in (WINDOWED, FULL)}
    if config_from_hf(hf, "config") != config:
        raise InputError(f"a {config.family} model can't have this combination of switches: {config}")
    return hf


def older_rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of transformers 5 in the keys that version 4 reads."""
    rope = parameters.get(FULL, parameters)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    fields = {"rope_theta": rope.get("rope_theta"), "rope_scaling": None if rope.get("rope_type", "default") == "default" else scaling}
    if WINDOWED in parameters:
        fields["rope_local_base_freq"] = parameters[WINDOWED].get("rope_theta")
    return {key: value for key, value in fields.items() if value is not None or key == "rope_scaling"}


def _rope_to_hf(rope: Rope) -> dict[str, Any]:
    return {"rope_theta": rope.theta, **(_scaling_to_hf(rope.scaling) if rope.scaling else {"rope_type": "default"})}


def _scaling_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    hf: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        hf["original_max_position_embeddings"] = scaling.original_max_positions
    if scaling.kind == "llama3":
        hf |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.kind == "yarn":
        hf |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "attention_factor": scaling.attention_factor}
        hf |= {"truncate": scaling.truncate}
    return hf
