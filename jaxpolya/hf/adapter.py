"""Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`, in and out.

A file holds A [r, in] and B [out, r] of every weight that has an adapter, by PEFT's name of the weight. Here they are stacked along the
layers in the layout of our parameters (`models.lora`), with a rank for each target. What the file says of ranks and scales is kept where it
is one for all; where it isn't, each scale is multiplied into its B, and ranks are filled up with zeros along the layers, which adds the
same to every weight.

The sum of two adapters is one again, exactly: A's rows one above the other, B's columns side by side. So whatever stages trained adapters
one after another, what they left is one adapter of the model that the first began at.
"""

import dataclasses
import functools
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding

from jaxpolya.checksums import changed, checksums
from jaxpolya.errors import InputError
from jaxpolya.hf.directory import MARKER, is_remote, read_marker, whole_directory
from jaxpolya.hf.families import Tensor, leaf_tensors
from jaxpolya.hf.meta import CheckpointMeta, write_small_files
from jaxpolya.hf.safetensors_file import Safetensors, file_order, open_to_write
from jaxpolya.hf.small_files import for_export
from jaxpolya.hf.source import ADAPTER, ADAPTER_WEIGHTS, base_of_adapter, read_adapter_config
from jaxpolya.models.config import TARGETS, DecoderConfig, Lora
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.lora import merged_layer
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.parallel.sharding import spec

PREFIX = "base_model.model."
UNSUPPORTED = (
    *("use_dora", "fan_in_fan_out", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication"),
    *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config"),
)
"""Settings of PEFT under which an adapter is more than W + scale · B A; unset, they are no obstacle."""
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base model as it was."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Adapters of one model."""

    factors: Mapping[str, np.ndarray]
    """`q_lora_a` [L, r, D], `q_lora_b` [L, N, H, r] and so on, float32, for every target; each target has its own r."""
    lora: Lora
    """Its rank is the largest; the scale is that of all."""
    base: str
    """The model that they were made for: a directory, a file, or a name on the hub."""
    revision: str | None = None
    """Of the base, on the hub."""

    def rank(self, target: str) -> int:
        """r of one target."""
        return int(self.factors[f"{target}_lora_a"].shape[1])

    def __add__(self, other: "Adapter") -> "Adapter":
        """One adapter that adds what both add; the base is the first one's."""
        factors: dict[str, np.ndarray] = {}
        targets = tuple(name for name in TARGETS if name in {*self.lora.targets, *other.lora.targets})
        for name in targets:
            parts = [part for part in (self, other) if name in part.lora.targets]
            factors[f"{name}_lora_a"] = np.concatenate([part.factors[f"{name}_lora_a"] for part in parts], axis=1)
            scaled = [part.factors[f"{name}_lora_b"] * np.float32(part.lora.scale) for part in parts]
            factors[f"{name}_lora_b"] = np.concatenate(scaled, axis=-1)
        rank = max(factors[f"{name}_lora_a"].shape[1] for name in targets)
        return Adapter(factors, Lora(rank, float(rank), targets), self.base, self.revision)


# In ----------------------------------------------------------------------------------------------------------------------


def _settings(directory: epath.Path) -> dict[str, Any]:
    """What PEFT's configuration says. Raises `InputError` where the adapters are of a kind that isn't read."""
    settings, path = read_adapter_config(directory), directory / ADAPTER
    if settings.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {settings.get('peft_type')!r}; only LORA is supported")
    if more := [key for key in UNSUPPORTED if settings.get(key)]:
        raise InputError(f"{path}: {more[0]} is set ({settings[more[0]]!r}), which is not supported; merge the adapter with peft")
    if settings.get("bias", "none") != "none":
        raise InputError(f"{path}: bias is {settings['bias']!r}; only adapters without biases (none) are supported; merge it with peft")
    if (start := settings.get("init_lora_weights")) not in PLAIN_STARTS:
        raise InputError(f"{path}: init_lora_weights is {start!r}, which changes the base too; convert or merge the adapter with peft")
    return settings


def read_adapter(directory: epath.Path, config: DecoderConfig) -> Adapter:
    """The adapters in a directory, for a decoder.

    Raises `InputError` where files are missing or damaged, say what isn't supported, or don't fit the decoder.
    """
    settings = _settings(directory)
    base, revision = base_of_adapter(directory)
    if not (directory / ADAPTER_WEIGHTS).exists():
        raise InputError(
            f"{directory}: {ADAPTER_WEIGHTS} is missing; pickled adapters are not read: load it with peft and save_pretrained(…) it again"
        )
    listed = (read_marker(directory) or {}).get("files")
    if isinstance(listed, dict) and not is_remote(directory) and (trouble := changed(directory, listed)):
        raise InputError(f"{directory}: the adapter can't be read ({trouble}); copy or write it again")
    files, where = Safetensors(directory, single=ADAPTER_WEIGHTS), directory / ADAPTER_WEIGHTS
    by_target = {name: modules for name in TARGETS if (modules := _modules(name, files, settings, config, where))}
    named = {name for modules in by_target.values() for module in modules.values() for name in _factor_names(module.name)}
    if unknown := sorted(set(files.shapes) - named):
        names = ", ".join(f"{name}_proj" for name in TARGETS)
        raise InputError(f"{where}: tensor {unknown[0]} is no adapter that is supported for a {config.family} model; supported are {names}")
    if not by_target:
        raise InputError(f"{where}: it holds no adapter")
    files.check_readable(named)
    every = [module for modules in by_target.values() for module in modules.values()]
    ranks, scales = {module.rank for module in every}, {module.scale for module in every}
    alike = len(ranks) == len(scales) == 1 and len(every) == len(by_target) * config.layers
    alpha = _alpha(settings, every[0].name) if alike else float(max(ranks))
    lora = Lora(max(ranks), alpha, tuple(by_target), alike and bool(settings.get("use_rslora")))
    factors: dict[str, np.ndarray] = {}
    for name, modules in by_target.items():
        factors |= _stacked(name, modules, files, config, scaled=not alike)
    return Adapter(factors, lora, base, revision)


class _Module(NamedTuple):
    """A weight of a layer that has an adapter in a file."""

    name: str
    rank: int
    scale: float


def _modules(target: str, files: Safetensors, settings: Mapping[str, Any], config: DecoderConfig, where: epath.Path) -> dict[int, _Module]:
    """Those of a target, by their layers; shapes are checked."""
    modules = {}
    for layer, tensor in enumerate(leaf_tensors(config)["blocks"][target]):
        module = tensor.name.removesuffix(".weight")
        a, b = _factor_names(module)
        if a not in files.shapes and b not in files.shapes:
            continue
        if lacking := {a, b} - set(files.shapes):
            raise InputError(f"{where}: tensor {lacking.pop()} is missing")
        rank = files.shapes[b][-1] if files.shapes[b] else 0
        if not rank or files.shapes[a] != (rank, tensor.shape[1]) or files.shapes[b] != (tensor.shape[0], rank):
            raise InputError(
                f"{where}: the adapter of {module} has the shapes {list(files.shapes[a])} and {list(files.shapes[b])}, and the model's "
                f"weight {list(tensor.shape)}"
            )
        modules[layer] = _Module(module, rank, _alpha(settings, module) / (math.sqrt(rank) if settings.get("use_rslora") else rank))
    return modules


def _alpha(settings: Mapping[str, Any], module: str) -> float:
    """α of a module, as PEFT looks it up. Raises `InputError` where it is no number."""
    patterns = settings.get("alpha_pattern") or {}
    own = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    value = next(own, settings.get("lora_alpha", 8))
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{ADAPTER}: the alpha of {module} is {value!r}; a positive number is needed")
    return float(value)


def _stacked(
    target: str, modules: Mapping[int, _Module], files: Safetensors, config: DecoderConfig, *, scaled: bool
) -> dict[str, np.ndarray]:
    """A and B of a target, stacked along the layers; with `scaled`, B is multiplied by its own scale."""
    weights, rank = leaf_tensors(config)["blocks"][target], max(module.rank for module in modules.values())
    a, b = (np.zeros((config.layers, *_factor(weights[0], factor, rank).shape_here), np.float32) for factor in "AB")
    for layer, module in modules.items():
        for factor, into in (("A", a[layer, : module.rank]), ("B", b[layer, ..., : module.rank])):
            tensor = _factor(weights[layer], factor, module.rank)
            into[...] = tensor.read(files.read, (slice(None),) * into.ndim)
        if scaled:
            b[layer] *= np.float32(module.scale)
    return {f"{target}_lora_a": a, f"{target}_lora_b": b}


def _factor_names(module: str) -> tuple[str, str]:
    """PEFT's names of A and B."""
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _factor(weight: Tensor, factor: str, rank: int) -> Tensor:
    """How A or B of a weight lies in a file and here."""
    (out, into), sizes = weight.layout, dict(weight.sizes)
    names = dict(zip("AB", _factor_names(weight.name.removesuffix(".weight")), strict=True))
    if factor == "A":
        return Tensor(names["A"], ("rank", into), (("rank", rank), *((axis, sizes[axis]) for axis in into.split())))
    return Tensor(names["B"], (out, "rank"), (*((axis, sizes[axis]) for axis in out.split()), ("rank", rank)))


def merge(params: Params, adapter: Adapter, config: DecoderConfig) -> Params:
    """The parameters of base and adapters together, float32; those of the base are consumed, one after the other.

    Args:
      params: the base's, in the training shardings of their mesh.
      adapter: of the same decoder.
      config: the decoder.
    """
    specs, blocks = abstract_params(dataclasses.replace(config, lora=adapter.lora))["blocks"], dict(params["blocks"])

    def placed(name: str, mesh: Mesh) -> jax.Array:
        array = adapter.factors[name]
        sharding = NamedSharding(mesh, spec(mesh, specs[name].axes, array.shape, "train"))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    for name in adapter.lora.targets:
        sharding = blocks[name].sharding
        factors = {factor: placed(factor, sharding.mesh) for factor in (f"{name}_lora_a", f"{name}_lora_b")}
        blocks[name] = _merge_program(dataclasses.replace(adapter.lora, targets=(name,)), sharding)(blocks[name], factors)
    return {**params, "blocks": blocks}


@functools.cache
def _merge_program(lora: Lora, sharding: NamedSharding) -> Any:
    """A program (a target's weights [L, …], its adapters) → the merged weights."""
    (name,) = lora.targets

    def merged(weight: jax.Array, factors: Params) -> jax.Array:
        return jax.lax.map(lambda layer: merged_layer(layer, lora)[name], {name: weight, **factors})  # no second [L, …] for the products

    return jax.jit(merged, donate_argnums=0, out_shardings=sharding)


# Out ---------------------------------------------------------------------------------------------------------------------


def save_adapter(directory: str | Path, adapter: Adapter, meta: CheckpointMeta, *, card: str | None = None) -> None:
    """Writes a directory that PEFT loads, with the tokenizer. Every host calls it.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      adapter: is written in float32. A base that lies in a local directory is named by its whole path, and found beside the adapter too
        where both were moved.
      meta: of the base.
      card: the model card, written as README.md.

    Raises:
      InputError: the directory holds something that jaxpolya didn't write.
      MachineError: the disk is full, or may not be written.
    """
    local = not is_remote(epath.Path(adapter.base)) and Path(adapter.base).exists()
    base = str(Path(adapter.base).resolve()) if local else adapter.base
    note: dict[str, Any] = {}
    if local and not is_remote(epath.Path(directory)):
        note["base"] = os.path.relpath(base, Path(directory).resolve())
    tensors = leaf_tensors(meta.config)["blocks"]
    arrays: dict[str, np.ndarray] = {}
    for name in adapter.lora.targets:
        for layer, weight in enumerate(tensors[name]):
            for factor in "AB":
                tensor = _factor(weight, factor, adapter.rank(name))
                arrays[tensor.name] = tensor.to_file(adapter.factors[f"{name}_lora_{factor.lower()}"][layer])
    with whole_directory(directory, "peft", note=note) as aside:
        if is_primary():
            dtypes, shapes = dict.fromkeys(arrays, "float32"), {name: array.shape for name, array in arrays.items()}
            with open_to_write(aside / ADAPTER_WEIGHTS, dtypes, shapes) as write:
                for name in file_order(dtypes):
                    write(arrays[name])
            write_small_files(aside, for_export(meta), None)
            (aside / ADAPTER).write_text(json.dumps(_config(adapter, base), indent=2) + "\n")
            if card is not None:
                (aside / "README.md").write_text(card)
            if not is_remote(aside):
                note["files"] = checksums(aside, frozenset([MARKER]))


def _config(adapter: Adapter, base: str) -> dict[str, Any]:
    """`adapter_config.json`."""
    lora, alpha = adapter.lora, adapter.lora.alpha
    ranks = {f"{name}_proj": adapter.rank(name) for name in lora.targets if adapter.rank(name) != lora.rank}
    if ranks and lora.scale != 1.0:
        raise ValueError("targets of several ranks have their scales in B")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": adapter.revision,
        "r": lora.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": [f"{name}_proj" for name in lora.targets],
        "rank_pattern": ranks,
        "alpha_pattern": dict(ranks),
        "use_rslora": lora.rank_stabilised,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
