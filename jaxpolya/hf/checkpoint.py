"""Checkpoints in and out.

`inspect_checkpoint` reads configuration, tokenizer and the weight files' headers: whatever is wrong with a source shows there,
before anything big is loaded. `load_checkpoint` puts the parameters on a mesh. Two layouts go out: `save_checkpoint` writes our
own (Orbax, every host its shards, float32), which later stages read back; `export_checkpoint` writes what transformers loads.
Both hold `config.json` and the tokenizer in Hugging Face form, so they are read by the same code.

A directory is written aside and renamed: it is there whole or not at all. Object stores have no rename; there its marker,
rewritten last, says whether it is whole. A directory that isn't ours is never overwritten.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import InputError, JaxpolyaError, MachineError
from jaxpolya.hf.families import FAMILIES, config_from_hf, config_to_hf, iter_tensors
from jaxpolya.hf.gguf_file import GGUFFile
from jaxpolya.hf.gguf_tokenizer import stop_ids_from_gguf, tokenizer_from_gguf
from jaxpolya.hf.source import MARKER, SMALL_FILES, Location, fingerprint, locate, read_marker
from jaxpolya.hf.tensors import INDEX, SINGLE, Safetensors, TensorFile, check_tensors, read_params
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.parallel.mesh import is_primary, to_host
from jaxpolya.parallel.sharding import param_shardings

__all__ = [
    "Checkpoint",
    "CheckpointMeta",
    "export_checkpoint",
    "fingerprint",
    "inspect_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
]

ExportDtype = Literal["bfloat16", "float16", "float32"]
DTYPES: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """Everything about a model but its weights."""

    source: str
    """Where it came from, as the user named it."""
    config: DecoderConfig
    hf_config: dict[str, Any]
    """`config.json`."""
    generation_config: dict[str, Any] | None
    """`generation_config.json`, where there is one."""
    tokenizer: PreTrainedTokenizerFast
    stop_ids: tuple[int, ...]
    """Ids of which any ends a response; the first is the usual one. Empty where the checkpoint names none."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model on a mesh."""

    meta: CheckpointMeta
    params: Params
    """float32, in the training shardings; see `models.decoder`."""

    @property
    def config(self) -> DecoderConfig:
        """The decoder's configuration."""
        return self.meta.config

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with its chat template where it has one."""
        return self.meta.tokenizer

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids of which any ends a response."""
        return self.meta.stop_ids


# In ----------------------------------------------------------------------------------------------------------------------


def inspect_checkpoint(source: str, *, revision: str | None = None) -> CheckpointMeta:
    """Reads a checkpoint's configuration and tokenizer, and checks its weight files' headers where they are local.

    Args:
      source: a Hugging Face directory, a `.gguf` file, a directory that `save_checkpoint` wrote, or a hub name.
      revision: commit or tag, for hub names only.

    Raises:
      InputError: it is missing, incomplete, inconsistent or not supported; the message names file and remedy.
    """
    meta, _ = _open(source, locate(source, revision=revision, weights=False))
    return meta


def load_checkpoint(source: str, *, mesh: Mesh, revision: str | None = None) -> Checkpoint:
    """Loads a checkpoint onto a mesh; arguments and errors as `inspect_checkpoint`."""
    location = locate(source, revision=revision, weights=True)
    meta, files = _open(source, location)
    if files is None:
        return Checkpoint(meta, _restore(_absolute(location.path) / "params", meta.config, mesh))
    return Checkpoint(meta, read_params(files, meta.config, mesh))


def _open(source: str, location: Location) -> tuple[CheckpointMeta, TensorFile | None]:
    """(what is known of a checkpoint, its checked tensors where they are in files that we read ourselves)."""
    if location.kind == "gguf":
        file = GGUFFile(Path(location.path))
        check_tensors(file, file.config)
        return _gguf_meta(source, file), file
    meta = read_meta(source, location.path, "ForCausalLM")
    if location.kind == "jaxpolya" or not location.has_weights:
        return meta, None
    files = Safetensors(Path(location.path))
    check_tensors(files, meta.config)
    return meta, files


def _gguf_meta(source: str, file: GGUFFile) -> CheckpointMeta:
    tokenizer, stop_ids = tokenizer_from_gguf(file), stop_ids_from_gguf(file)
    _check_ids(tokenizer, stop_ids, file.config, str(file.path))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": list(stop_ids), "pad_token_id": tokenizer.pad_token_id}
    ids = {key: value for key, value in ids.items() if value not in (None, [])}
    return CheckpointMeta(source, file.config, config_to_hf(file.config) | ids, ids, tokenizer, stop_ids)


def read_meta(source: str, directory: epath.Path, task: str) -> CheckpointMeta:
    """What a directory's small files say of a model for a task (`ForCausalLM`, `ForSequenceClassification`)."""
    path = directory / "config.json"
    hf_config = _read_json(path)
    config = config_from_hf(hf_config, str(path))
    architectures = hf_config.get("architectures") or [task]
    if not any(name.endswith(task) for name in architectures):
        raise InputError(f"{path}: the model is a {', '.join(architectures)}; a …{task} is needed here")
    generation_path = directory / "generation_config.json"
    generation_config = _read_json(generation_path) if generation_path.exists() else None
    tokenizer = _read_tokenizer(directory)
    named = [(source or {}).get("eos_token_id") for source in (generation_config, hf_config)]
    ids = [*(i for eos in named for i in (eos if isinstance(eos, list) else [eos])), tokenizer.eos_token_id]
    stop_ids = tuple(dict.fromkeys(int(i) for i in ids if i is not None))
    _check_ids(tokenizer, stop_ids, config, str(directory))
    return CheckpointMeta(source, config, hf_config, generation_config, tokenizer, stop_ids)


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a JSON object is needed, not {type(tree).__name__}")
    return tree


def _read_tokenizer(directory: epath.Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer.json` itself: a class of transformers chosen by name might rebuild it differently."""
    with _local_copy(directory) as local:
        try:
            return PreTrainedTokenizerFast.from_pretrained(local, local_files_only=True)
        except Exception as error:  # `tokenizers` raises bare exceptions for broken files
            raise InputError(f"{directory / 'tokenizer.json'}: the tokenizer can't be read ({error})") from None


@contextlib.contextmanager
def _local_copy(directory: epath.Path) -> Iterator[str]:
    """A local directory with the small files: the directory itself where it is local."""
    if not _is_remote(directory):
        yield str(directory)
        return
    with tempfile.TemporaryDirectory() as local:
        for pattern in SMALL_FILES:
            for path in directory.glob(pattern):
                path.copy(epath.Path(local) / path.name)
        yield local


def _check_ids(tokenizer: PreTrainedTokenizerFast, stop_ids: tuple[int, ...], config: DecoderConfig, where: str) -> None:
    """An id beyond the embedding table would silently read another token's row."""
    largest = max([*tokenizer.get_vocab().values(), *stop_ids])
    if largest >= config.vocab_size:
        raise InputError(f"{where}: the tokenizer (or a stop id) goes up to {largest}, but the model has only {config.vocab_size} tokens")


def _restore(path: epath.Path, config: DecoderConfig, mesh: Mesh) -> Params:
    abstract = abstract_params(config)
    target = jax.tree.map(
        lambda spec, sharding: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding),
        abstract,
        param_shardings(mesh, abstract, "train"),
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            if (saved := checkpointer.metadata(path).item_metadata) is None:
                raise InputError(f"{path}: the saved parameters are missing or damaged; copy or save the model again")
            if jax.tree.map(lambda leaf: tuple(leaf.shape), saved.tree) != jax.tree.map(lambda leaf: leaf.shape, target):
                raise InputError(f"{path}: the saved parameters are not those that config.json describes; copy or save the model again")
            return checkpointer.restore(path, target)
    except JaxpolyaError:
        raise
    except Exception as error:  # Orbax wraps what it met in bare exceptions, with pages of details
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = str(cause).partition("\n")[0][:120]
        raise InputError(f"{path}: the saved parameters can't be read ({reason}…); copy or save the model again") from error


# Out ---------------------------------------------------------------------------------------------------------------------


def save_checkpoint(directory: str | Path, params: Params, meta: CheckpointMeta) -> None:
    """Writes a model in our own layout: `params/` (Orbax), `config.json`, the tokenizer. Every host calls it.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      params: the plain tree, float32.
      meta: what came with the checkpoint that the parameters descend from.

    Raises:
      InputError: the directory holds something that jaxpolya didn't write.
      MachineError: the disk is full, or may not be written.
    """
    with _whole_directory(directory, "jaxpolya") as aside:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(aside / "params", params)
        if is_primary():
            _write_small_files(aside, meta, meta.hf_config)


def export_checkpoint(
    directory: str | Path,
    params: Params,
    meta: CheckpointMeta,
    *,
    dtype: ExportDtype | None = None,
    max_shard_size: str = "5GB",
    card: str | None = None,
    check: Callable[[epath.Path], None] | None = None,
) -> None:
    """Writes a Hugging Face directory that transformers loads. Every host calls it; the first one writes.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      params: the plain tree, on its mesh.
      meta: what came with the checkpoint that the parameters descend from.
      dtype: of the tensors in the files; None is as the source had it.
      max_shard_size: of one safetensors file, such as `5GB` or `200MB`; also what the host holds at one time.
      card: README.md.
      check: called by every host with the finished directory, before that gets its name; if it raises, nothing appears.

    Raises:
      InputError: as `save_checkpoint`; or a value doesn't fit the dtype.
      MachineError: as `save_checkpoint`.
    """
    named = meta.hf_config.get("dtype") or meta.hf_config.get("torch_dtype")
    dtype = dtype or (named if named in DTYPES else "bfloat16")
    hf_config = {key: value for key, value in meta.hf_config.items() if key not in ("dtype", "auto_map", "_name_or_path")}
    hf_config |= {"architectures": [f"{FAMILIES[meta.config.family].class_prefix}ForCausalLM"], "torch_dtype": dtype}
    tensors = list(iter_tensors(meta.config))
    item_size = np.dtype(DTYPES[dtype]).itemsize
    sizes = [int(np.prod(tensor.shape)) * item_size for tensor, _, _ in tensors]
    groups = _split(sizes, _bytes(max_shard_size))
    names = [SINGLE] if len(groups) == 1 else [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    with _whole_directory(directory, "safetensors") as aside:
        weight_map = {}
        for name, group in zip(names, groups, strict=True):
            arrays = {}
            for tensor, path, layer in tensors[group]:
                weight_map[tensor.name] = name
                leaf = params[path[0]] if len(path) == 1 else params[path[0]][path[1]]
                array = to_host(leaf if layer is None else leaf[layer])
                arrays[tensor.name] = _cast(tensor.to_file(array), dtype, tensor.name)
            if is_primary():
                with tempfile.TemporaryDirectory(dir=None if _is_remote(aside) else aside) as scratch:
                    local = epath.Path(scratch) / name
                    safetensors.numpy.save_file(arrays, local, metadata={"format": "pt"})
                    local.copy(aside / name) if _is_remote(aside) else local.rename(aside / name)
        if is_primary():
            _write_small_files(aside, meta, hf_config)
            if len(groups) > 1:
                index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
                (aside / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))
            if card is not None:
                (aside / "README.md").write_text(card)
        if check is not None:
            _barrier(f"check {aside}")
            check(aside)


def _split(sizes: list[int], limit: int) -> list[slice]:
    """Consecutive runs of items whose sizes add up to the limit at most; an item above it is alone."""
    groups, start, total = [], 0, 0
    for i, size in enumerate(sizes):
        if total + size > limit and i > start:
            groups.append(slice(start, i))
            start, total = i, 0
        total += size
    return [*groups, slice(start, len(sizes))]


def _bytes(size: str) -> int:
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = size[:-2], size[-2:].upper()
    if unit not in units or not number.isdigit() or number == "0":
        raise InputError(f"max_shard_size {size!r}: write it as a whole number of KB, MB or GB, such as 5GB")
    return int(number) * units[unit]


def _cast(array: np.ndarray, dtype: ExportDtype, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array.astype(DTYPES[dtype]))
    if dtype == "float16" and not np.isfinite(cast).all():
        raise InputError(f"{name} has values beyond float16 (or not finite): export as bfloat16")
    return cast


def _write_small_files(directory: epath.Path, meta: CheckpointMeta, hf_config: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch)
        meta.tokenizer.save_pretrained(local)
        # The class that transformers 4 and 5 both know by this name; 5 would write one that 4 doesn't have.
        tokenizer_config = json.loads((local / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        _write_json(local / "tokenizer_config.json", tokenizer_config)
        _write_json(local / "config.json", hf_config)
        if meta.generation_config is not None:
            _write_json(local / "generation_config.json", meta.generation_config)
        for path in local.iterdir():
            epath.Path(path).copy(directory / path.name)


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _absolute(path: epath.Path) -> epath.Path:
    """Orbax finds nothing, and says nothing, below a relative path."""
    return path if _is_remote(path) else epath.Path(Path(path).absolute())


@contextlib.contextmanager
def _whole_directory(directory: str | Path, layout: str) -> Iterator[epath.Path]:
    """A directory to write into, which becomes `directory` when all is written."""
    final = _absolute(epath.Path(directory).expanduser())
    aside = final if _is_remote(final) else final.with_name(f".{final.name}.partial")
    try:
        there = final.exists()
    except ImportError as error:  # an object store whose client is not installed
        raise InputError(f"{directory}: {error}") from None
    if there and not (final.is_dir() and (read_marker(final) or not any(final.iterdir()))):
        raise InputError(f"{final} is there already, and jaxpolya didn't write it; name a directory that is new or empty")

    def mark(whole: bool) -> None:
        (aside / MARKER).write_text(json.dumps({"layout": layout, "whole": whole, "jaxpolya": version("jaxpolya")}) + "\n")

    try:
        if is_primary():
            _remove(aside)
            aside.mkdir(parents=True)
            mark(whole=False)
        _barrier(f"begin {final}")
        yield aside
        _barrier(f"written {final}")
        if is_primary():
            mark(whole=True)
            if aside != final:
                _remove(final)
                aside.rename(final)
        _barrier(f"end {final}")
    except JaxpolyaError:
        _remove(aside)
        raise
    except Exception as error:
        reason = _machine_reason(error)
        if reason is None:
            raise
        _remove(aside)
        raise MachineError(f"{final} can't be written: {reason}; nothing was changed there") from error


def _remove(directory: epath.Path) -> None:
    if directory.exists() and is_primary():
        directory.rmtree()


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _machine_reason(error: Exception) -> str | None:
    """Why the machine refused to write, or None where something else went wrong. Libraries wrap the system's words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    known = ("No space left on device", "Permission denied", "Disk quota exceeded", "File too large")
    return next((words for words in known if words in str(error)), None)
