"""The tokenizer inside a GGUF file, rebuilt with `tokenizers`.

A GGUF file holds the vocabulary, the merges, each token's type, the ids of the special tokens and the chat template. How text
is cut before merging is only *named* (`tokenizer.ggml.pre`), so each supported name has its recipe here; an unknown name is
refused rather than guessed, since a wrong cut gives wrong tokens without any error.

Sources: the patterns are those published in the models' own `tokenizer.json` files (GPT-2, SmolLM2, Llama 3, Qwen2).
"""

import dataclasses
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import InputError
from jaxpolya.hf.gguf_file import GGUFFile

CONTROL, USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type that stand outside the merges


def _words(digits: str) -> str:
    """Llama 3's and Qwen2's pattern; they differ in how many digits stay together."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # fmt: skip


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How text is cut before merging, and two habits that come with it."""

    cut: Any
    normalizer: Any = None
    whole_words: bool = False
    """A word that is in the vocabulary is taken whole, whatever the merges say; and a text starts with bos (Llama 3)."""


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)

RECIPES = {
    "gpt-2": Recipe(_GPT2),
    "smollm": Recipe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])),
    "llama-bpe": Recipe(_split(_words(r"\p{N}{1,3}")), whole_words=True),
    "qwen2": Recipe(_split(_words(r"\p{N}")), normalizer=normalizers.NFC()),
}


def tokenizer_from_gguf(file: GGUFFile) -> PreTrainedTokenizerFast:
    """The file's tokenizer with its chat template. Raises `InputError` for kinds that are not supported."""
    if (kind := file.get("tokenizer.ggml.model")) != "gpt2":
        raise InputError(
            f"{file.path}: its tokenizer is of kind {kind!r}; only byte-level BPE (gpt2) is supported: give the Hugging Face directory"
        )
    if (pre := file.get("tokenizer.ggml.pre", "unnamed")) not in RECIPES:
        raise InputError(f"{file.path}: its pre-tokenizer is {pre!r}; supported are {', '.join(RECIPES)}: give the Hugging Face directory")
    recipe, tokens = RECIPES[pre], file.get("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges")]
    bpe = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, ignore_merges=recipe.whole_words)
    tokenizer = Tokenizer(bpe)
    if recipe.normalizer:
        tokenizer.normalizer = recipe.normalizer
    tokenizer.pre_tokenizer = recipe.cut
    tokenizer.decoder = decoders.ByteLevel()
    types = file.get("tokenizer.ggml.token_type", [])
    tokenizer.add_special_tokens([_added(token, True) for token, kind in zip(tokens, types, strict=False) if kind == CONTROL])
    tokenizer.add_tokens([_added(token, False) for token, kind in zip(tokens, types, strict=False) if kind == USER_DEFINED])

    def special(name: str) -> str | None:
        i = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[i] if i is not None and i < len(tokens) else None

    bos, eos = special("bos"), special("eos")
    before = bos if file.metadata.get("tokenizer.ggml.add_bos_token", recipe.whole_words) else None
    after = eos if file.metadata.get("tokenizer.ggml.add_eos_token", False) else None
    tokenizer.post_processor = _surround(tokens, before, after)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=file.metadata.get("tokenizer.chat_template"),
        model_max_length=file.config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def stop_ids_from_gguf(file: GGUFFile) -> tuple[int, ...]:
    """Ids that end a text or a turn, as the file's metadata has them."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = [file.metadata.get(f"tokenizer.ggml.{name}") for name in names]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _surround(tokens: list[str], before: str | None, after: str | None) -> Any:
    """ByteLevel's post-processor, with bos and eos around each text where they are asked for."""
    byte_level = processors.ByteLevel(trim_offsets=False)
    if before is None and after is None:
        return byte_level
    template = " ".join([*([f"{before}:0"] if before else []), "$A:0", *([f"{after}:0"] if after else [])])
    specials = [(token, tokens.index(token)) for token in dict.fromkeys((before, after)) if token]
    return processors.Sequence([byte_level, processors.TemplateProcessing(single=template, special_tokens=specials)])
