"""The small files of an export: those of the source, changed only where they would mislead who loads it.

- **Where a response ends.** `generation_config.json` names every id that we stop at, so that transformers' `generate` stops there too, and
  the tokenizer's eos is what the chat template ends a turn with (what fine-tuning taught). A template that writes `eos_token` itself keeps
  it: with another one it would write other prompts.
- **Code.** `auto_map` names Python files that are not carried.
- **Another version of transformers.** Version 5 writes names that version 4 stumbles over: tokenizer classes that are its own, and a list
  under `extra_special_tokens`. Both versions read what is written here.

A file that needs no change goes out as the bytes that came in.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import transformers

from jaxpolya.hf.chat import template_of, turn_ends
from jaxpolya.hf.meta import ANY_TOKENIZER, CheckpointMeta, tokenizer_files

GENERATION, TOKENIZER, SPECIALS = "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"


def for_export(meta: CheckpointMeta) -> CheckpointMeta:
    """The same with the small files that go out."""
    files = dict(meta.files) if "tokenizer.json" in meta.files else {**tokenizer_files(meta), **meta.files}
    before = {name: json.loads(files[name]) for name in (GENERATION, TOKENIZER, SPECIALS) if name in files}
    after = {
        GENERATION: _generation(before.get(GENERATION, meta.generation_config), meta),
        TOKENIZER: _tokenizer(before.get(TOKENIZER, {}), meta),
        SPECIALS: _with_eos(before[SPECIALS], meta) if SPECIALS in before else {},
    }
    changed = {name: _dump(tree).encode() for name, tree in after.items() if tree and tree != before.get(name)}
    return dataclasses.replace(meta, files={**files, **changed})


def named_eos(meta: CheckpointMeta) -> int | None:
    """The id that an export's tokenizer names as eos."""
    eos = meta.tokenizer.eos_token_id
    template = json.dumps(meta.tokenizer.chat_template)
    if not template_of(meta.tokenizer) or "eos_token" in template or getattr(meta.tokenizer, "add_eos_token", False):
        return eos
    return next((i for i in turn_ends(meta.tokenizer) if i in meta.stop_ids and i in meta.tokenizer.added_tokens_decoder), eos)


def _generation(settings: Mapping[str, Any] | None, meta: CheckpointMeta) -> dict[str, Any]:
    if settings is None:
        if not meta.stop_ids:
            return {}
        settings = {key: meta.hf_config[key] for key in ("bos_token_id", "pad_token_id") if meta.hf_config.get(key) is not None}
    eos = settings.get("eos_token_id")
    named = set(eos) if isinstance(eos, list) else {eos} - {None}
    return dict(settings) if named == set(meta.stop_ids) else {**settings, "eos_token_id": list(meta.stop_ids)}


def _tokenizer(settings: Mapping[str, Any], meta: CheckpointMeta) -> dict[str, Any]:
    tree = {key: value for key, value in _with_eos(settings, meta).items() if key != "auto_map"}
    if not _is_everywhere(tree.get("tokenizer_class", ANY_TOKENIZER)):
        tree["tokenizer_class"] = ANY_TOKENIZER
    if isinstance(more := tree.get("extra_special_tokens"), list):
        del tree["extra_special_tokens"]
        tree.setdefault("additional_special_tokens", more)
    return tree


def _with_eos(settings: Mapping[str, Any], meta: CheckpointMeta) -> dict[str, Any]:
    eos = named_eos(meta)
    if eos is None or eos == meta.tokenizer.eos_token_id:
        return dict(settings)
    name, old = meta.tokenizer.added_tokens_decoder[eos].content, settings.get("eos_token")
    return {**settings, "eos_token": {**old, "content": name} if isinstance(old, dict) else name}


def _is_everywhere(name: Any) -> bool:
    """Whether a tokenizer class is one of transformers', in version 4 too. Version 5 calls its own after their backends."""
    return isinstance(name, str) and not name.endswith("Backend") and any(hasattr(transformers, each) for each in (name, f"{name}Fast"))


def _dump(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
