"""Where a checkpoint is: a directory, a GGUF file, a hub name; and what identifies its content.

A source is tried as a path first. What is neither there nor shaped like a hub name is an error that names the nearest thing
that is there; what has the shape of a hub name is asked for at the hub, the small files first, the weights only when they
are loaded, and of those only the files that the index names.

Paths are etils': whatever is read here or from what is found here may lie in an object store (`gs://`, `s3://`, `hf://`).
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from etils import epath

from jaxpolya.errors import InputError, nearest_path
from jaxpolya.files import files_digest
from jaxpolya.hf.directory import is_remote, matching, read_marker
from jaxpolya.hf.meta import CARRIED, NAMED_TEMPLATES
from jaxpolya.hf.safetensors_file import INDEX, SINGLE, read_weight_map

SMALL_FILES = ("*.json", "*.jinja", NAMED_TEMPLATES)
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""In a directory without the weights of a model, say that it holds adapters of one (`hf.adapter`)."""
WEIGHT_FILES = ("*.safetensors",)
"""With the small files, what identifies a checkpoint's content."""


@dataclasses.dataclass(frozen=True)
class Location:
    """A checkpoint that is there; an `adapter` is one of another checkpoint."""

    kind: Literal["gguf", "safetensors", "jaxpolya", "adapter"]
    path: epath.Path
    commit: str | None = None
    """The hub's commit, for a hub name."""
    has_weights: bool = True
    """False for a hub name of which only the small files were fetched."""


def locate(source: str, *, revision: str | None = None, weights: bool) -> Location:
    """Finds a checkpoint, fetching it from the hub where its name is one's.

    Args:
      source: directory or `.gguf` file (each also `gs://…`), or hub name.
      revision: commit or tag, for hub names only.
      weights: whether to fetch weights too.

    Raises:
      InputError: it isn't there, isn't a checkpoint, or can't be fetched.
    """
    try:
        path = epath.Path(source).expanduser()
        is_directory = path.is_dir()
    except ImportError as error:  # an object store whose client is not installed
        raise InputError(f"{source}: {error}") from None
    except Exception as error:  # every client has errors of its own
        if not is_remote(path):
            raise
        raise InputError(f"{source} can't be reached ({_reason(error)}): check the name, the network and your credentials") from None
    if revision is not None and path.exists():
        raise InputError(f"{source} is a local path, which has no revision {revision}; leave the revision away")
    if is_directory:
        return Location(_kind_of_directory(path), path)
    if path.exists():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(f"{source} is a file, but not a GGUF one; give a Hugging Face directory, a .gguf file or a hub name")
        return Location("gguf", path)
    if is_remote(path) or source.endswith(".gguf") or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise InputError(f"no checkpoint at {source}{nearest_path(path)}; name a Hugging Face directory, a .gguf file or a hub name")
    return _fetch(source, revision, weights)


def _kind_of_directory(path: epath.Path) -> Literal["safetensors", "jaxpolya", "adapter"]:
    if marker := read_marker(path):
        if not marker["whole"]:
            raise InputError(f"{path}: writing this model was interrupted; delete the directory and write it again")
        if marker["layout"] == "jaxpolya":
            return "jaxpolya"
    names = sorted(child.name for child in path.iterdir())
    if ADAPTER in names and SINGLE not in names and INDEX not in names:
        return "adapter"
    lacks = [name for name in ("config.json", "tokenizer.json") if name not in names]
    if not any(name in names for name in ("model.safetensors", "model.safetensors.index.json")):
        lacks.append("model.safetensors (or model.safetensors.index.json with its shards)")
    if not lacks:
        return "safetensors"
    message = f"{path} is not a checkpoint: it lacks {', '.join(lacks)}; it holds {_listing(names)}"
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        message += f". Did you mean {path / ggufs[0]}?"
    elif any(name.startswith("pytorch_model") for name in names):
        message += ". Pickled weights are not read: load it with transformers and save_pretrained(…) it again"
    elif lacks == ["tokenizer.json"]:
        message += ". Write it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
    raise InputError(message)


def base_of_adapter(directory: epath.Path) -> tuple[str, str | None]:
    """(the model that a directory's adapters were made for, its revision on the hub). Raises `InputError` where none is named."""
    settings, marker = read_adapter_config(directory), read_marker(directory) or {}
    if isinstance(near := marker.get("base"), str) and not is_remote(directory) and (directory / near).exists():
        return os.path.normpath(str(directory / near)), None  # wherever the two were moved to together
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(name, str) or not name or Path(name).absolute() == Path(directory).absolute():
        raise InputError(
            f"{directory / ADAPTER}: base_model_name_or_path is {name!r}; name the model that the adapters were made for there"
        )
    return name, revision if isinstance(revision, str) and not Path(name).exists() else None


def read_adapter_config(directory: epath.Path) -> dict[str, Any]:
    """What `adapter_config.json` says. Raises `InputError` where it isn't one."""
    path = directory / ADAPTER
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't be read ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: a JSON object is needed, not {type(settings).__name__}")
    return settings


def _listing(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _fetch(name: str, revision: str | None, weights: bool) -> Location:
    import huggingface_hub
    from huggingface_hub import errors

    at = f"{name}@{revision}" if revision else name
    fetch = functools.partial(huggingface_hub.snapshot_download, name, ignore_patterns=["*/*"])
    try:
        directory = epath.Path(fetch(revision=revision, allow_patterns=[*SMALL_FILES, *CARRIED]))
        # The one folder that counts. The file that is here already keeps the hub's client from warning where there is no such folder.
        fetch(revision=directory.name, allow_patterns=["config.json", NAMED_TEMPLATES], ignore_patterns=None)
        if weights:  # there may be others beside those that make up the model: a consolidated file, another variant
            files = sorted(set(read_weight_map(directory / INDEX).values())) if (directory / INDEX).exists() else [SINGLE, ADAPTER_WEIGHTS]
            fetch(revision=directory.name, allow_patterns=files)
    except errors.GatedRepoError:
        raise InputError(f"{at} is gated: accept its licence on its hub page, and set HF_TOKEN to a token that may read it") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{name} has no revision {revision} on the hub") from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{name} is neither a local path{nearest_path(Path(name))} nor a model on the hub that you may read "
            "(for a private one set HF_TOKEN to a token that may read it)"
        ) from None
    except InputError:
        raise
    except Exception as error:  # the hub's client changes its HTTP library, and with it the errors, from version to version
        raise InputError(
            f"{at} is not a local path{nearest_path(Path(name))}, and the hub can't give it ({_reason(error)}): "
            "check the network, HF_HUB_OFFLINE and HF_TOKEN, or give a directory or a .gguf file"
        ) from None
    if weights:
        kind = _kind_of_directory(directory)  # a model on the hub may lack safetensors or a tokenizer.json, too
    else:
        kind = "adapter" if (directory / ADAPTER).exists() and not (directory / "config.json").exists() else "safetensors"
    return Location(kind, directory, commit=directory.name, has_weights=weights)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def _files_below(directory: epath.Path) -> Iterator[epath.Path]:
    for path in directory.iterdir():  # not `walk`, which loses an object store's name
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def fingerprint(source: str, revision: str | None = None) -> str:
    """A short stable identity of a checkpoint's content.

    A hub name gives its commit; files give their `files_digest`; adapters have that of the model that they are made for behind their own.
    Raises `InputError` as `locate` does.
    """
    location = locate(source, revision=revision, weights=False)
    own = _own_fingerprint(source, location)
    return f"{own}+{fingerprint(*base_of_adapter(location.path))}" if location.kind == "adapter" else own


def _own_fingerprint(source: str, location: Location) -> str:
    if location.commit:
        return f"hub:{source}@{location.commit}"
    if location.kind == "gguf":
        files = [location.path]
        root = location.path.parent
    else:
        if location.kind == "jaxpolya":
            files = sorted(_files_below(location.path))
        else:
            files = sorted(path for pattern in (*SMALL_FILES, *WEIGHT_FILES) for path in matching(location.path, pattern) if path.is_file())
        root = location.path
    names = {"gguf" if location.kind == "gguf" else path.relative_to(root).as_posix(): path for path in files}
    return f"sha256:{files_digest(names)[:32]}"
