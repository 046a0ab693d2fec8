"""Everything about a checkpoint but its weights, and the small files that say it.

A model that comes in and goes out again keeps what it had: `config.json` field by field, and the tokenizer, chat template,
generation config and licence as the bytes of the source's own files. They travel in `CheckpointMeta`, through our own layout too.
Writing them anew with a library would change them with that library's version.
"""

import collections
import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from etils import epath
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import InputError
from jaxpolya.hf.chat import turn_ends
from jaxpolya.hf.directory import is_remote, matching
from jaxpolya.hf.families import config_from_hf, config_to_hf, text_part
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.hf.gguf.tokenizer import stop_ids_from_gguf, tokenizer_from_gguf
from jaxpolya.models.config import DecoderConfig

ExportDtype = Literal["bfloat16", "float16", "float32"]
EXPORT_DTYPES = get_args(ExportDtype)

NAMED_TEMPLATES = "additional_chat_templates/*.jinja"
"""Where transformers writes the chat templates beside the default one, if a tokenizer has several."""

CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    NAMED_TEMPLATES,
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of a checkpoint that go out as they came in. Weights, code and the model card are not among them."""

PARSED = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Those of them that are read here or by transformers, and small."""


ANY_TOKENIZER = "PreTrainedTokenizerFast"
"""The class that reads any tokenizer.json, in transformers 4 and 5."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """How the source's files hold the tensors, so that an export can hold them alike."""

    dtype: ExportDtype = "bfloat16"
    """Of most tensors; bfloat16 also where the source has no such dtype (GGUF)."""
    others: Mapping[str, ExportDtype] = dataclasses.field(default_factory=dict)
    """Tensors of another dtype."""
    tied_head: bool = False
    """Whether an output head lies beside the embedding table that it is tied to."""

    def dtype_of(self, name: str) -> ExportDtype:
        """The dtype of a tensor."""
        return self.others.get(name, self.dtype)


def stored_as(dtypes: Mapping[str, str], tied_head: bool) -> Storage:
    """The compact form of the dtypes of a source's tensors. Float64 becomes float32, as the parameters are."""
    known: dict[str, Any] = {name: "float32" if dtype == "float64" else dtype for name, dtype in dtypes.items()}
    most = collections.Counter(known.values()).most_common(1)[0][0]
    return Storage(most, {name: dtype for name, dtype in known.items() if dtype != most}, tied_head)


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """Everything about a model but its weights."""

    source: str
    """Where it came from, as the user named it."""
    config: DecoderConfig
    hf_config: dict[str, Any]
    """`config.json`; of a model that sees images too, that of its text part."""
    generation_config: dict[str, Any] | None
    """`generation_config.json`, where there is one."""
    tokenizer: PreTrainedTokenizerFast
    stop_ids: tuple[int, ...]
    """Ids of which any ends a response: those that the checkpoint's files name as eos, and what its chat template ends a message with."""
    stored: Storage = Storage()
    """How an export holds the tensors unless it is asked for a dtype."""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """The source's small files (`CARRIED`), which are written in place of what `tokenizer` and `generation_config` would give. Their
    names are paths in the source's directory, with slashes."""
    left_out: tuple[str, ...] = ()
    """Tensors of the source's files that are no part of the decoder."""

    @property
    def note(self) -> str | None:
        """A sentence on what was left out, for people."""
        if not self.left_out:
            return None
        groups = collections.Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name).rsplit(".", 1)[0] for name in self.left_out)
        named = ", ".join(group for group, _ in groups.most_common(3)) + (", …" if len(groups) > 3 else "")
        return f"{self.source}: {len(self.left_out)} tensors are no part of the text model and are left out ({named})"


def read_meta(source: str, directory: epath.Path, task: str) -> CheckpointMeta:
    """What a directory's small files say of a model for a task (`ForCausalLM`, `ForSequenceClassification`).

    Raises `InputError` that names the file, and the key, that is missing, broken, or not supported.
    """
    path = directory / "config.json"
    hf_config = text_part(_parse(_read(path), path), str(path))
    config = config_from_hf(hf_config, str(path))
    _check_task(hf_config.get("architectures"), task, path)
    files = _carried(directory)
    parsed = {name: _parse(files[name], directory / name) for name in PARSED if name in files}
    generation_config = parsed.get("generation_config.json")
    tokenizer = _within(_read_tokenizer(directory, files), config.vocab_size)
    ids = _eos_ids(generation_config or {}, directory / "generation_config.json") + _eos_ids(hf_config, path)
    stop_ids = tuple(dict.fromkeys(i for i in [*ids, tokenizer.eos_token_id, *turn_ends(tokenizer)] if i is not None))
    _check_ids(tokenizer, stop_ids, config, str(directory))
    return CheckpointMeta(source, config, hf_config, generation_config, tokenizer, stop_ids, files=files)


def with_tokenizer_of(meta: CheckpointMeta, source: str, directory: epath.Path) -> CheckpointMeta:
    """A base model's meta as that of adapters in a directory: under their name, and with the tokenizer beside them if there is one."""
    if not (directory / "tokenizer.json").exists():
        return dataclasses.replace(meta, source=source)
    files = _carried(directory)
    tokenizer = _within(_read_tokenizer(directory, files), meta.config.vocab_size)
    ends = [*meta.stop_ids, *[i for i in (tokenizer.eos_token_id, *turn_ends(tokenizer)) if i is not None]]
    _check_ids(tokenizer, stop_ids := tuple(dict.fromkeys(ends)), meta.config, str(directory))
    kept = {name: data for name, data in meta.files.items() if name not in files and not name.startswith(("tokenizer", "chat_template"))}
    return dataclasses.replace(meta, source=source, tokenizer=tokenizer, stop_ids=stop_ids, files={**kept, **files})


def _carried(directory: epath.Path) -> dict[str, bytes]:
    # A pattern may match a directory, too (LICENSES/); a directory with the name of a file that is needed is a mistake to tell.
    paths = [path for pattern in CARRIED for path in matching(directory, pattern) if "*" not in pattern or path.is_file()]
    return {path.relative_to(directory).as_posix(): _read(path) for path in paths}


def gguf_meta(source: str, file: GGUFFile) -> CheckpointMeta:
    """What a GGUF file's metadata says."""
    tokenizer = tokenizer_from_gguf(file)
    stop_ids = tuple(dict.fromkeys([*stop_ids_from_gguf(file), *turn_ends(tokenizer)]))
    _check_ids(tokenizer, stop_ids, file.config, str(file.path))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": list(stop_ids), "pad_token_id": tokenizer.pad_token_id}
    ids = {key: value for key, value in ids.items() if value not in (None, [])}
    return CheckpointMeta(source, file.config, config_to_hf(file.config) | ids, ids, tokenizer, stop_ids)


def _read(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except OSError as error:  # a directory, or not ours to read
        raise InputError(f"{path} can't be read ({error.strerror or error}); a file is needed") from None


def _parse(data: bytes, path: epath.Path) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a JSON object is needed, not {type(tree).__name__}")
    return tree


def _check_task(architectures: Any, task: str, path: epath.Path) -> None:
    """A configuration that names no class is taken for one of the task."""
    if architectures is None:
        return
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f"{path}: architectures is {architectures!r}; a list of class names is needed")
    if architectures and not any(name.endswith(task) for name in architectures):
        raise InputError(f"{path}: the model is a {', '.join(architectures)}; a …{task} is needed here")


def _eos_ids(settings: Mapping[str, Any], path: epath.Path) -> list[int]:
    """The ids that a file's `eos_token_id` names: none, one, or a list of them."""
    eos = settings.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise InputError(f"{path}: eos_token_id is {eos!r}; a token's id, or a list of them, is needed")
    return ids


def _read_tokenizer(directory: epath.Path, files: Mapping[str, bytes]) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer.json` itself: a class of transformers chosen by name might rebuild it differently."""
    with tempfile.TemporaryDirectory() as copy:
        local = str(directory)
        if is_remote(directory):
            local = copy
            _write_files(epath.Path(copy), files)
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(local, local_files_only=True)
        except Exception as error:  # `tokenizers` raises bare exceptions for broken files
            raise InputError(f"{directory / 'tokenizer.json'} or a file beside it: the tokenizer can't be read ({error})") from None
    if not isinstance(longest := tokenizer.model_max_length, int | float):
        raise InputError(f"{directory / 'tokenizer_config.json'}: model_max_length is {longest!r}; a number is needed")
    template = tokenizer.chat_template
    if template and not isinstance(template.get("default") if isinstance(template, dict) else template, str):
        raise InputError(f"{directory}: the tokenizer's chat_template must be a text, or several of which one is named default")
    return tokenizer


def _within(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer without the added tokens that the model has no embedding for (Gemma 3's text models: that of an image).

    Text that spells such a token is then text. The files that the tokenizer was read from go out again as they are.
    """
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in tree["added_tokens"] if token["id"] < vocab_size]
    if len(kept) == len(tree["added_tokens"]):
        return tokenizer
    lost = {token["content"] for token in tree["added_tokens"]} - {token["content"] for token in kept}
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str) and token not in lost}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree | {"added_tokens": kept})),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        **roles,
    )


def _check_ids(tokenizer: PreTrainedTokenizerFast, stop_ids: tuple[int, ...], config: DecoderConfig, where: str) -> None:
    """An id beyond the embedding table would silently read another token's row."""
    if not (vocab := tokenizer.get_vocab()):
        raise InputError(f"{where}: the tokenizer has no tokens")
    largest = max([*vocab.values(), *stop_ids])
    if largest >= config.vocab_size:
        raise InputError(f"{where}: the tokenizer (or a stop id) goes up to {largest}, but the model has only {config.vocab_size} tokens")


def write_small_files(directory: epath.Path, meta: CheckpointMeta, hf_config: dict[str, Any] | None) -> None:
    """Writes `config.json`, if any, and the tokenizer and the others as they came; what came from no file is written by transformers."""
    if hf_config is not None:
        (directory / "config.json").write_text(_dump(hf_config))
    _write_files(directory, tokenizer_files(meta) if "tokenizer.json" not in meta.files else {})
    _write_files(directory, meta.files)
    if meta.generation_config is not None and "generation_config.json" not in meta.files:
        (directory / "generation_config.json").write_text(_dump(meta.generation_config))


def tokenizer_files(meta: CheckpointMeta) -> dict[str, bytes]:
    """The files of a tokenizer that came from none, as transformers writes them."""
    with tempfile.TemporaryDirectory() as scratch:
        meta.tokenizer.save_pretrained(scratch)
        # The class that transformers 4 and 5 both know by this name; 5 would write one that 4 doesn't have.
        path = Path(scratch) / "tokenizer_config.json"
        path.write_text(_dump(json.loads(path.read_text()) | {"tokenizer_class": ANY_TOKENIZER}), encoding="utf-8")
        written = [path for path in Path(scratch).rglob("*") if path.is_file()]
        return {path.relative_to(scratch).as_posix(): path.read_bytes() for path in written}


def _write_files(directory: epath.Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        if "/" in name:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def _dump(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
