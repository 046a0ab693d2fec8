"""A model as transformers' `save_pretrained` would write it: the same files, shards, index and fields.

Tensors go out one at a time. A device program takes a layer of a stacked parameter and casts it, so that no more than that
crosses to the host, in the dtype of the file; while one tensor is written, the next is on its way. Shards hold tensors in the
order of transformers' modules up to `max_shard_size`, as the hub's own library splits them, and within a file they lie as the
safetensors library puts them.
"""

import collections
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxpolya.errors import InputError
from jaxpolya.hf.directory import whole_directory
from jaxpolya.hf.families import FAMILIES, Tensor, iter_tensors, older_rope
from jaxpolya.hf.meta import CheckpointMeta, ExportDtype, write_small_files
from jaxpolya.hf.safetensors_file import INDEX, NUMBERED, NUMPY_DTYPES, file_order, open_to_write
from jaxpolya.hf.small_files import for_export
from jaxpolya.hf.tensors import EMBEDDING, HEAD, leaf_at
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.parallel.sharding import replicated

# A layer's modules in the order in which transformers' models have them.
MODULES = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    *("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
)


def export_checkpoint(
    directory: str | Path,
    params: Params,
    meta: CheckpointMeta,
    *,
    dtype: ExportDtype | None = None,
    max_shard_size: str = "50GB",
    card: str | None = None,
    check: Callable[[epath.Path], None] | None = None,
) -> None:
    """Writes a Hugging Face directory that transformers loads. Every host calls it; the first one writes.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      params: the plain tree, on its mesh.
      meta: what came with the checkpoint that the parameters descend from.
      dtype: of the tensors in the files; as the source had each of them by default.
      max_shard_size: of one safetensors file, such as `5GB` or `200MB`; the default is transformers'.
      card: the model card, written as README.md.
      check: is called on every host with the finished directory before it gets its name; where it raises, nothing appears.

    Raises:
      InputError: the directory holds something that jaxpolya didn't write; or a value doesn't fit the dtype.
      MachineError: the disk is full, or may not be written.
    """
    tensors = _tensors(meta)
    dtypes: dict[str, str] = {name: dtype or meta.stored.dtype_of(name) for name in tensors}
    shapes = {name: tensor.shape for name, (tensor, _, _) in tensors.items()}
    shards = _split(dtypes, shapes, max_shard_size)
    orders = {file: file_order({name: dtypes[name] for name in names}) for file, names in shards.items()}
    names = list(itertools.chain(*orders.values()))
    with whole_directory(directory, "safetensors", check=check) as aside:
        arrays = _fetch(params, [tensors[name] for name in names], [dtypes[name] for name in names])
        try:
            if is_primary():
                for file, order in orders.items():
                    with open_to_write(aside / file, {name: dtypes[name] for name in order}, shapes) as write:
                        _write_all(itertools.islice(arrays, len(order)), write)
            _fetch_along(arrays)
        except Exception:
            _fetch_along(arrays)
            raise
        if is_primary():
            if len(shards) > 1:
                (aside / INDEX).write_text(_index(shards, dtypes, shapes))
            write_small_files(aside, for_export(meta), _hf_config(meta, dtype))
            if card is not None:
                (aside / "README.md").write_text(card)


def _tensors(meta: CheckpointMeta) -> dict[str, tuple[Tensor, tuple[str, ...], int | None]]:
    """Name → (tensor, path of its parameter, its layer), in the order in which transformers' model has them."""

    def position(item: tuple[Tensor, tuple[str, ...], int | None]) -> tuple[int, int, bool]:
        tensor, path, layer = item
        if layer is None:
            return -1 if path == ("embed",) else meta.config.layers, 0, False
        module, _, kind = tensor.name.split(".", 3)[3].rpartition(".")
        return layer, MODULES.index(module) if module in MODULES else len(MODULES), kind == "bias"

    by_name = {item[0].name: item for item in sorted(iter_tensors(meta.config), key=position)}
    if meta.stored.tied_head:
        by_name[HEAD] = by_name[EMBEDDING]
    return by_name


def _split(dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], max_shard_size: str) -> dict[str, list[str]]:
    """File → its tensors."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = max_shard_size[:-2], max_shard_size[-2:].upper()
    if unit not in units or not number.isdigit() or int(number) == 0:
        raise InputError(f"max_shard_size {max_shard_size!r}: write it as a whole number of KB, MB or GB, such as 5GB")
    sizes = {name: math.prod(shapes[name]) * np.dtype(NUMPY_DTYPES[dtype]).itemsize for name, dtype in dtypes.items()}
    split = huggingface_hub.split_state_dict_into_shards_factory(
        sizes, get_storage_size=lambda size: size, filename_pattern=NUMBERED, max_shard_size=int(number) * units[unit]
    )
    return split.filename_to_tensors


def _index(shards: Mapping[str, list[str]], dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    items = {name: math.prod(shape) for name, shape in shapes.items()}
    metadata = {
        "total_parameters": sum(items.values()),
        "total_size": sum(count * np.dtype(NUMPY_DTYPES[dtypes[name]]).itemsize for name, count in items.items()),
    }
    weight_map = {name: file for file, names in shards.items() for name in names}
    return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def _hf_config(meta: CheckpointMeta, dtype: ExportDtype | None) -> dict[str, Any]:
    """The source's `config.json`, saying the dtype where another was asked for, without the code that it may have come with.

    A rotary embedding in the words of transformers 5 is said in those of 4 too, which would take its default without a word.
    """
    hf_config = {key: value for key, value in meta.hf_config.items() if key != "auto_map"}
    if isinstance(rope := hf_config.get("rope_parameters"), dict):
        hf_config |= older_rope(rope)
    hf_config.setdefault("architectures", [f"{FAMILIES[meta.config.family].class_prefix}ForCausalLM"])
    keys = [key for key in ("dtype", "torch_dtype") if key in hf_config]
    if dtype or not keys:
        hf_config |= dict.fromkeys(keys or ["torch_dtype"], dtype or meta.stored.dtype)  # transformers 4 and 5 read torch_dtype
    return hf_config


def _write_all(arrays: Iterator[np.ndarray], write: Callable[[np.ndarray], None]) -> None:
    """Writes each array while the next one is fetched."""
    with ThreadPoolExecutor(1) as pool:
        written = None
        for array in arrays:
            if written:
                written.result()
            written = pool.submit(write, array)
        if written:
            written.result()


def _fetch_along(arrays: Iterator[np.ndarray]) -> None:
    """Goes through the rest: a host that doesn't write, or whose disk is full, takes its part in what all hosts do side by side."""
    if jax.process_count() > 1:
        collections.deque(arrays, maxlen=0)


# Tensors -----------------------------------------------------------------------------------------------------------------


def _fetch(params: Params, tensors: list[tuple[Tensor, tuple[str, ...], int | None]], dtypes: list[str]) -> Iterator[np.ndarray]:
    """The tensors on the host in the layout of the files, one after another. All hosts go through it side by side."""
    waiting = None
    for (tensor, path, layer), dtype in zip(tensors, dtypes, strict=True):
        leaf = leaf_at(params, path)
        array, overflows = _cutter(dtype, None if leaf.is_fully_addressable else replicated(leaf.sharding.mesh))(leaf, layer)
        array.copy_to_host_async()
        if waiting:
            yield _to_file(*waiting)
        waiting = tensor, array, overflows
    if waiting:
        yield _to_file(*waiting)


@functools.cache
def _cutter(dtype: str, sharding: jax.sharding.NamedSharding | None) -> Callable[[jax.Array, int | None], tuple[jax.Array, jax.Array]]:
    """A program (parameter, layer or None) → (that layer in the dtype, whether a finite value became infinite)."""

    def cut(leaf: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        array = leaf if layer is None else jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
        cast = array.astype(dtype)
        return cast, (jnp.isinf(cast) & jnp.isfinite(array)).any() if dtype == "float16" else jnp.array(False)

    return jax.jit(cut, out_shardings=sharding)


def _to_file(tensor: Tensor, array: jax.Array, overflows: jax.Array) -> np.ndarray:
    if overflows:
        raise InputError(f"{tensor.name} has values beyond float16: export as bfloat16")
    return tensor.to_file(np.asarray(array))
