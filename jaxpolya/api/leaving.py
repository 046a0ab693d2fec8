"""A model on its way out."""

from pathlib import Path

from jaxpolya.api.model import Model
from jaxpolya.errors import ConfigError
from jaxpolya.hf.checkpoint import ExportDtype, export_checkpoint


def export(
    model: Model, directory: str | Path, *, dtype: ExportDtype | None = None, max_shard_size: str = "50GB", card: str | None = None
) -> Path:
    """Writes a Hugging Face directory that transformers loads, and returns its path.

    Args:
      model: what to write.
      directory: local or `gs://…`; one that jaxpolya wrote is replaced.
      dtype: of the tensors in the files; unset is as the base model's own files have each of them.
      max_shard_size: of one file of weights, such as `5GB`.
      card: the model card, written as README.md. `jaxpolya export` writes one for the models of runs.

    Raises:
      ConfigError: there is no such dtype.
      InputError: the directory holds something that jaxpolya didn't write; or a value doesn't fit the dtype.
      MachineError: the disk is full, or may not be written.
    """
    if dtype not in (None, "bfloat16", "float16", "float32"):
        raise ConfigError(f"export: dtype {dtype!r} is not bfloat16, float16 or float32")
    export_checkpoint(directory, model.checkpoint.params, model.checkpoint.meta, dtype=dtype, max_shard_size=max_shard_size, card=card)
    return Path(directory)
