"""From weight files to sharded parameters, a slice at a time.

Each device's shard of each parameter is read straight from the files, cast to float32 and put on the device; the host never
holds more than one shard of one parameter. Before anything is read, the names and shapes that the files declare are compared
with what the configuration needs, so that a wrong file is an error in milliseconds and names the tensor.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import safetensors
from jax.sharding import Mesh

from jaxpolya.errors import InputError
from jaxpolya.hf.families import Tensor, iter_tensors, leaf_tensors
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.parallel.sharding import param_shardings

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class TensorFile(Protocol):
    """Weights under Hugging Face names and in Hugging Face layouts, wherever they really lie."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor, in any float dtype that numpy can cast to float32."""

    def where(self, name: str) -> str:
        """The file that holds (or should hold) a tensor, for messages."""


class Safetensors:
    """The safetensors of a directory: one file, or shards with an index. Raises `InputError` where they don't fit together."""

    def __init__(self, directory: Path):
        self._file_of: dict[str, str] = {}
        self._directory = directory
        self._weight_map: dict[str, str] | None = None
        if (index := directory / INDEX).is_file():
            self._weight_map = _read_weight_map(index)
            names = sorted(set(self._weight_map.values()))
            if missing := [name for name in names if not (directory / name).is_file()]:
                raise InputError(f"{index} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")
        else:
            names = [SINGLE]
        self._handles = {name: _open(directory / name) for name in names}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file, handle in self._handles.items():
            for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                self._file_of[name] = file
                self.shapes[name] = tuple(handle.get_slice(name).get_shape())
        for name, file in (self._weight_map or {}).items():
            if self._file_of.get(name) != file:
                raise InputError(f"{directory / INDEX} says that {name} is in {file}; it is not")

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """See `TensorFile`."""
        return self._handles[self._file_of[name]].get_slice(name)[index]

    def where(self, name: str) -> str:
        """See `TensorFile`."""
        fallback = SINGLE if self._weight_map is None else INDEX
        return str(self._directory / self._file_of.get(name, fallback))


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not a safetensors index ({error!r})") from None


def _open(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); download or copy it again") from None


def check_tensors(files: TensorFile, config: DecoderConfig, also: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Raises `InputError` where files and configuration disagree about a tensor's existence or shape.

    Args:
      files: the weights.
      config: the decoder they are for.
      also: further tensors that must be there (a reward model's score).
    """
    needed = {tensor.name: tensor.shape for tensor, _, _ in iter_tensors(config)} | dict(also or {})
    problems = [f"{files.where(name)}: tensor {name} is missing" for name in needed if name not in files.shapes]
    problems += [
        f"{files.where(name)}: tensor {name} has shape {list(files.shapes[name])}; the configuration asks for {list(shape)}"
        for name, shape in needed.items()
        if name in files.shapes and files.shapes[name] != shape
    ]
    # A tied head may be stored a second time, and old Llama files hold the rotary frequencies: both are redundant.
    redundant = {"lm_head.weight"} if config.tied_embeddings else set()
    problems += [
        f"{files.where(name)}: tensor {name} is unknown to a {config.family} model"
        for name in files.shapes
        if name not in needed and name not in redundant and not name.endswith("rotary_emb.inv_freq")
    ]
    if problems:
        more = f" (and {len(problems) - 3} more like it)" if len(problems) > 3 else ""
        raise InputError("; ".join(problems[:3]) + more)


def read_params(files: TensorFile, config: DecoderConfig, mesh: Mesh) -> Params:
    """The float32 parameters in the training shardings of the mesh; see `models.decoder` for the tree."""
    abstract = abstract_params(config)
    shardings = param_shardings(mesh, abstract, "train")

    def load(spec: Any, sharding: jax.sharding.Sharding, tensor: Tensor | list[Tensor]) -> jax.Array:
        def shard(index: tuple[slice, ...]) -> np.ndarray:
            if isinstance(tensor, Tensor):
                return tensor.read(files.read, index).astype(np.float32)
            layers = tensor[index[0]]
            shape = tuple(len(range(*cut.indices(size))) for cut, size in zip(index, spec.shape, strict=True))
            stacked = np.empty(shape, np.float32)
            for i, layer in enumerate(layers):
                stacked[i] = layer.read(files.read, index[1:])
            return stacked

        return jax.make_array_from_callback(spec.shape, sharding, shard)  # type: ignore[arg-type]

    return jax.tree.map(load, abstract, shardings, leaf_tensors(config))
