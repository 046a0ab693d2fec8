"""Checkpoints in and out.

`inspect_checkpoint` reads configuration, tokenizer and the weight files' headers: whatever is wrong with a source shows there,
before anything big is loaded. `load_checkpoint` puts the parameters on a mesh. Two layouts go out: `save_checkpoint` writes our
own (Orbax, every host its shards, float32), which later stages read back; `export_checkpoint` (in `hf.export`) writes what
transformers loads. Both hold `config.json` and the tokenizer in Hugging Face form, so they are read by the same code.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from jaxpolya.checksums import changed, checksums
from jaxpolya.errors import InputError, JaxpolyaError, machine_trouble
from jaxpolya.hf.adapter import Adapter, merge, read_adapter
from jaxpolya.hf.directory import MARKER, for_orbax, is_remote, read_marker, whole_directory
from jaxpolya.hf.export import export_checkpoint
from jaxpolya.hf.families import iter_tensors
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.hf.meta import (
    EXPORT_DTYPES,
    CheckpointMeta,
    ExportDtype,
    Storage,
    gguf_meta,
    read_meta,
    stored_as,
    with_tokenizer_of,
    write_small_files,
)
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.hf.source import Location, base_of_adapter, fingerprint, locate
from jaxpolya.hf.tensors import HEAD, TensorFile, check_tensors, check_tied_head, read_params, usual_names
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.parallel.sharding import param_shardings

__all__ = [
    "Checkpoint",
    "CheckpointMeta",
    "ExportDtype",
    "export_checkpoint",
    "fingerprint",
    "inspect_checkpoint",
    "load_checkpoint",
    "read_meta",
    "save_checkpoint",
]


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
    """Reads a checkpoint's configuration and tokenizer, and checks its weight files' headers where they needn't be fetched for it.

    Args:
      source: a Hugging Face directory, a `.gguf` file, a directory that `save_checkpoint` wrote, a directory of LoRA adapters as PEFT
        writes it, which gives the model that it names with them merged (each local or `gs://…`), or a hub name.
      revision: commit or tag, for hub names only.

    Raises:
      InputError: it is missing, incomplete, inconsistent or not supported; the message names file and remedy.
    """
    location = locate(source, revision=revision, weights=False)
    if location.kind == "adapter":
        base, revision = base_of_adapter(location.path)
        meta = inspect_checkpoint(base, revision=revision)
        if location.has_weights:
            read_adapter(location.path, meta.config)
        return with_tokenizer_of(meta, source, location.path)
    meta, _ = _open(source, location)
    return meta


def load_checkpoint(source: str, *, mesh: Mesh, revision: str | None = None) -> Checkpoint:
    """Loads a checkpoint onto a mesh; arguments and errors as `inspect_checkpoint`."""
    location = locate(source, revision=revision, weights=True)
    if location.kind == "adapter":
        base, revision = base_of_adapter(location.path)
        return with_adapter(load_checkpoint(base, mesh=mesh, revision=revision), source, location.path)
    meta, files = _open(source, location)
    if files is None:
        return Checkpoint(meta, _restore(location.path, meta.config, mesh))
    check_tied_head(files, meta.config)
    return Checkpoint(meta, read_params(files, meta.config, mesh))


def with_adapter(base: Checkpoint, source: str, directory: epath.Path) -> Checkpoint:
    """A base model and the adapters that a directory holds for it, merged; the base's parameters are consumed. Raises `InputError`."""
    adapter = read_adapter(directory, base.config)
    return Checkpoint(with_tokenizer_of(base.meta, source, directory), merge(base.params, adapter, base.config))


def adapters_of(source: str, *, revision: str | None = None) -> tuple[Adapter, CheckpointMeta]:
    """(all adapters between a source and a whole model, as one of that model; what is known of the source).

    Raises `InputError` where it is a whole model itself, or as `inspect_checkpoint`.
    """
    location = locate(source, revision=revision, weights=True)
    if location.kind != "adapter":
        raise InputError(f"{source} is a whole model, and no adapters of one; export it without --adapter")
    meta = inspect_checkpoint(source, revision=revision)
    adapter = read_adapter(location.path, meta.config)
    while locate(adapter.base, revision=adapter.revision, weights=False).kind == "adapter":
        adapter = read_adapter(locate(adapter.base, revision=adapter.revision, weights=True).path, meta.config) + adapter
    return adapter, meta


def _open(source: str, location: Location) -> tuple[CheckpointMeta, TensorFile | None]:
    """(what is known of a checkpoint, its checked tensors where they are in files that we read ourselves)."""
    if location.kind == "gguf":
        file = GGUFFile(location.path)
        left_out = check_tensors(file, file.config)
        return dataclasses.replace(gguf_meta(source, file), left_out=left_out), file
    meta = read_meta(source, location.path, "ForCausalLM")
    if location.kind == "jaxpolya":
        stored = (read_marker(location.path) or {}).get("stored")
        return dataclasses.replace(meta, stored=Storage(**stored) if stored else Storage()), None
    if not location.has_weights:  # the configuration says what most of them are
        declared: Any = meta.hf_config.get("dtype", meta.hf_config.get("torch_dtype"))
        return dataclasses.replace(meta, stored=Storage(declared) if declared in EXPORT_DTYPES else Storage()), None
    files = Safetensors(location.path)
    files.rename(usual_names(files.shapes, meta.config))
    left_out = check_tensors(files, meta.config)
    tied_head = meta.config.tied_embeddings and HEAD in files.dtypes
    names = [tensor.name for tensor, _, _ in iter_tensors(meta.config)] + [HEAD] * tied_head
    files.check_readable(names)
    stored = stored_as({name: files.dtypes[name] for name in names}, tied_head)
    return dataclasses.replace(meta, stored=stored, left_out=left_out), files


def _damage(directory: epath.Path) -> str | None:
    """Says which file of a model that we wrote isn't what it was, if any; a store checks what it keeps itself."""
    listed = (read_marker(directory) or {}).get("files")
    return changed(directory, listed) if isinstance(listed, dict) and not is_remote(directory) else None


def _restore(directory: epath.Path, config: DecoderConfig, mesh: Mesh) -> Params:
    abstract, path = abstract_params(config), directory / "params"
    target = jax.tree.map(
        lambda spec, sharding: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding),
        abstract,
        param_shardings(mesh, abstract, "train"),
    )
    try:
        with for_orbax(directory) as named, ocp.StandardCheckpointer() as checkpointer:
            if (saved := checkpointer.metadata(named / "params").item_metadata) is None:
                raise InputError(f"{path}: the saved parameters are missing or damaged; copy or save the model again")
            if jax.tree.map(lambda leaf: tuple(leaf.shape), saved.tree) != jax.tree.map(lambda leaf: leaf.shape, target):
                raise InputError(f"{path}: the saved parameters are not those that config.json describes; copy or save the model again")
            if trouble := from_primary(_damage(directory) if is_primary() else None):
                raise InputError(f"{path}: the saved parameters can't be read ({trouble}); copy or save the model again")
            return checkpointer.restore(named / "params", target)
    except JaxpolyaError:
        raise
    except Exception as error:  # Orbax wraps what it met in bare exceptions, with pages of details
        if machine_trouble(error):  # a full device, a forbidden file: nothing is wrong with the model
            raise
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = str(cause).partition("\n")[0][:120]
        raise InputError(f"{path}: the saved parameters can't be read ({reason}…); copy or save the model again") from error


# Out ---------------------------------------------------------------------------------------------------------------------


def save_checkpoint(directory: str | Path, params: Params, meta: CheckpointMeta, *, origin: Mapping[str, Any] | None = None) -> None:
    """Writes a model in our own layout: `params/` (Orbax), `config.json`, the tokenizer. Every host calls it.

    Args:
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      params: the plain tree, float32.
      meta: what came with the checkpoint that the parameters descend from.
      origin: base model and licence, as `hf.origin.origin_of` found them.

    Raises:
      InputError: the directory holds something that jaxpolya didn't write.
      MachineError: the disk is full, or may not be written.
    """
    note: dict[str, Any] = {"stored": dataclasses.asdict(meta.stored), "origin": dict(origin or {})}
    with whole_directory(directory, "jaxpolya", note=note) as aside:
        with for_orbax(aside) as named, ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(named / "params", params)
        if is_primary():
            write_small_files(aside, meta, meta.hf_config)
            if not is_remote(aside):  # a store's own checks are better than reading everything back
                note["files"] = checksums(aside, frozenset([MARKER]))
