"""Everything about a checkpoint but its weights, and the small files that say it.

A model that comes in and goes out again keeps what it had: `config.json` field by field, and the tokenizer, chat template,
generation config and licence as the bytes of the source's own files. They travel in `CheckpointMeta`, through our own layout too.
Writing them anew with a library would change them with that library's version.
"""

import collections
import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from etils import epath
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import InputError
from jaxpolya.hf.directory import is_remote
from jaxpolya.hf.families import config_from_hf, config_to_hf
from jaxpolya.hf.gguf_file import GGUFFile
from jaxpolya.hf.gguf_tokenizer import stop_ids_from_gguf, tokenizer_from_gguf
from jaxpolya.models.config import DecoderConfig

ExportDtype = Literal["bfloat16", "float16", "float32"]
EXPORT_DTYPES = get_args(ExportDtype)

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
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of a checkpoint that go out as they came in. Weights, code and the model card are not among them."""


@dataclasses.dataclass(frozen=True)
class Stored:
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


def stored_as(dtypes: Mapping[str, str], tied_head: bool) -> Stored:
    """The compact form of the dtypes of a source's tensors. Float64 becomes float32, as the parameters are."""
    known: dict[str, Any] = {name: "float32" if dtype == "float64" else dtype for name, dtype in dtypes.items()}
    most = collections.Counter(known.values()).most_common(1)[0][0]
    return Stored(most, {name: dtype for name, dtype in known.items() if dtype != most}, tied_head)


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
    """Ids of which any ends a response. Empty where the checkpoint names none."""
    stored: Stored = Stored()
    """How an export holds the tensors unless it is asked for a dtype."""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """The source's small files (`CARRIED`), which are written in place of what `tokenizer` and `generation_config` would give."""


def read_meta(source: str, directory: epath.Path, task: str) -> CheckpointMeta:
    """What a directory's small files say of a model for a task (`ForCausalLM`, `ForSequenceClassification`)."""
    path = directory / "config.json"
    try:
        hf_config = _parse(path.read_bytes(), path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    config = config_from_hf(hf_config, str(path))
    architectures = hf_config.get("architectures") or [task]
    if not any(name.endswith(task) for name in architectures):
        raise InputError(f"{path}: the model is a {', '.join(architectures)}; a …{task} is needed here")
    files = {path.name: path.read_bytes() for pattern in CARRIED for path in sorted(directory.glob(pattern))}
    generation_config = None
    if (name := "generation_config.json") in files:
        generation_config = _parse(files[name], directory / name)
    tokenizer = _within(_read_tokenizer(directory, files), config.vocab_size)
    named = [(source or {}).get("eos_token_id") for source in (generation_config, hf_config)]
    ids = [*(i for eos in named for i in (eos if isinstance(eos, list) else [eos])), tokenizer.eos_token_id]
    stop_ids = tuple(dict.fromkeys(int(i) for i in ids if i is not None))
    _check_ids(tokenizer, stop_ids, config, str(directory))
    return CheckpointMeta(source, config, hf_config, generation_config, tokenizer, stop_ids, files=files)


def gguf_meta(source: str, file: GGUFFile) -> CheckpointMeta:
    """What a GGUF file's metadata says."""
    tokenizer, stop_ids = tokenizer_from_gguf(file), stop_ids_from_gguf(file)
    _check_ids(tokenizer, stop_ids, file.config, str(file.path))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": list(stop_ids), "pad_token_id": tokenizer.pad_token_id}
    ids = {key: value for key, value in ids.items() if value not in (None, [])}
    return CheckpointMeta(source, file.config, config_to_hf(file.config) | ids, ids, tokenizer, stop_ids)


def _parse(data: bytes, path: epath.Path) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a JSON object is needed, not {type(tree).__name__}")
    return tree


def _read_tokenizer(directory: epath.Path, files: Mapping[str, bytes]) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer.json` itself: a class of transformers chosen by name might rebuild it differently."""
    with tempfile.TemporaryDirectory() as copy:
        local = str(directory)
        if is_remote(directory):
            local = copy
            for name, data in files.items():
                (Path(copy) / name).write_bytes(data)
        try:
            return PreTrainedTokenizerFast.from_pretrained(local, local_files_only=True)
        except Exception as error:  # `tokenizers` raises bare exceptions for broken files
            raise InputError(f"{directory / 'tokenizer.json'}: the tokenizer can't be read ({error})") from None


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
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        **roles,
    )


def _check_ids(tokenizer: PreTrainedTokenizerFast, stop_ids: tuple[int, ...], config: DecoderConfig, where: str) -> None:
    """An id beyond the embedding table would silently read another token's row."""
    largest = max([*tokenizer.get_vocab().values(), *stop_ids])
    if largest >= config.vocab_size:
        raise InputError(f"{where}: the tokenizer (or a stop id) goes up to {largest}, but the model has only {config.vocab_size} tokens")


def write_small_files(directory: epath.Path, meta: CheckpointMeta, hf_config: dict[str, Any]) -> None:
    """Writes `config.json`, and the tokenizer and the others as they came; what came from no file is written by transformers."""
    (directory / "config.json").write_text(_dump(hf_config))
    for name, data in meta.files.items():
        (directory / name).write_bytes(data)
    if "tokenizer.json" not in meta.files:
        with tempfile.TemporaryDirectory() as scratch:
            meta.tokenizer.save_pretrained(scratch)
            # The class that transformers 4 and 5 both know by this name; 5 would write one that 4 doesn't have.
            path = Path(scratch) / "tokenizer_config.json"
            path.write_text(_dump(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")
            for path in Path(scratch).iterdir():
                (directory / path.name).write_bytes(path.read_bytes())
    if meta.generation_config is not None and "generation_config.json" not in meta.files:
        (directory / "generation_config.json").write_text(_dump(meta.generation_config))


def _dump(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
