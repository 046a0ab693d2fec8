"""The tokenizer inside a GGUF file, rebuilt with `tokenizers`.

A GGUF file holds the vocabulary, the merges (or scores), each token's type, the ids of the special tokens and the chat template.
Two kinds occur in the supported families: byte-level BPE (`tokenizer.ggml.model` = gpt2), below, and SentencePiece's BPE
(= llama), in `sentencepiece`. How byte-level BPE cuts text before merging is only *named* (`tokenizer.ggml.pre`), so
each supported name has its recipe here; an unknown name is refused rather than guessed, since a wrong cut gives wrong tokens
without any error.

The file is the authority on special tokens; where it is silent, llama.cpp's defaults hold (`llama_vocab::impl::load`), since
that is the program that such files are made for.

Sources of the patterns: the models' own `tokenizer.json` files (GPT-2, SmolLM2, Llama 3, Qwen2, Mistral Nemo), as llama.cpp's
`llm_tokenizer_bpe` quotes them beside each name.
"""

import dataclasses
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import InputError
from jaxpolya.hf.gguf.config import Metadata
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.hf.gguf.sentencepiece import NORMAL, sentencepiece_bpe

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Values of tokenizer.ggml.token_type that are found in the text before any merging; the first two stand for no text."""

SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}
"""What these are in a SentencePiece file that doesn't say; a byte-level file that doesn't say has none."""

INSTEAD = "give the Hugging Face directory"


# Byte-level BPE ----------------------------------------------------------------------------------------------------------


def _words(letters: str, digits: str, marks: str = "") -> str:
    """The pattern that Llama 3, Qwen2 and Tekken vary: words, how many digits stay together, what a run of marks may end in."""
    return letters + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n" + marks + r"]*|\s*[\r\n]+|\s+(?!\S)|\s+"


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAPITALISED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How text is cut before merging, and the habits that come with it."""

    cut: Any
    normalizer: Any = None
    whole_words: bool = False
    """A word that is in the vocabulary is taken whole, whatever the merges say."""
    bos: bool = False
    """Whether a text starts with bos where the file doesn't say."""


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_LLAMA3 = _split(_words(_CONTRACTIONS, r"\p{N}{1,3}"))

RECIPES = {
    "gpt-2": Recipe(_GPT2),
    "smollm": Recipe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Recipe(_LLAMA3, whole_words=True, bos=True)),
    "smaug-bpe": Recipe(_LLAMA3),
    "dbrx": Recipe(_LLAMA3),
    "qwen2": Recipe(_split(_words(_CONTRACTIONS, r"\p{N}")), normalizer=normalizers.NFC()),
    "tekken": Recipe(_split(_words(_CAPITALISED, r"\p{N}", marks="/")), whole_words=True, bos=True),
}


def _byte_level_bpe(metadata: Metadata, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """(the tokenizer without its special tokens, whether a text starts with bos where the file doesn't say)."""
    if (pre := metadata.value("tokenizer.ggml.pre", str, "unnamed")) not in RECIPES:
        raise InputError(f"{metadata.where}: its pre-tokenizer is {pre!r}; supported are {', '.join(RECIPES)}: {INSTEAD}")
    recipe = RECIPES[pre]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.value("tokenizer.ggml.merges", list)]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=recipe.whole_words))
    if recipe.normalizer:
        tokenizer.normalizer = recipe.normalizer
    tokenizer.pre_tokenizer = recipe.cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, recipe.bos


# The whole tokenizer -----------------------------------------------------------------------------------------------------


def tokenizer_from_gguf(file: GGUFFile) -> PreTrainedTokenizerFast:
    """The file's tokenizer with its chat template. Raises `InputError` for kinds that are not supported, and for broken ones."""
    metadata = file.metadata
    tokens = metadata.value("tokenizer.ggml.tokens", list)
    kinds = metadata.value("tokenizer.ggml.token_type", list, [NORMAL] * len(tokens))
    if len(kinds) != len(tokens):
        raise InputError(f"{file.path}: tokenizer.ggml.token_type has {len(kinds)} values for {len(tokens)} tokens")
    special = {name: _token(metadata, tokens, name) for name in ("bos", "eos", "unknown", "padding")}
    try:
        tokenizer, starts_with_bos = _without_specials(metadata, tokens, kinds, special["unknown"])
        _add(tokenizer, [token for token, kind in zip(tokens, kinds, strict=True) if kind in (UNKNOWN, CONTROL)], special=True)
        _add(tokenizer, [token for token, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED], special=False)
    except InputError:
        raise
    except Exception as error:  # `tokenizers` raises bare exceptions for what doesn't fit together
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file.path}: its tokenizer can't be built ({reason}): {INSTEAD}") from None
    before = special["bos"] if metadata.value("tokenizer.ggml.add_bos_token", bool, starts_with_bos) else None
    after = special["eos"] if metadata.value("tokenizer.ggml.add_eos_token", bool, False) else None
    _surround(tokenizer, before, after)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special["bos"],
        eos_token=special["eos"],
        unk_token=special["unknown"],
        pad_token=special["padding"],
        chat_template=metadata.value("tokenizer.chat_template", str, "") or None,
        model_max_length=file.config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def stop_ids_from_gguf(file: GGUFFile) -> tuple[int, ...]:
    """Ids that end a text or a turn, as the file's metadata has them."""
    ids = [_special_id(file.metadata, name) for name in ("eos", "eot", "eom")]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _without_specials(metadata: Metadata, tokens: list[str], kinds: list[int], unknown: str | None) -> tuple[Tokenizer, bool]:
    """(the tokenizer without its special tokens, whether a text starts with bos where the file doesn't say)."""
    match model := metadata.value("tokenizer.ggml.model", str):
        case "gpt2":
            return _byte_level_bpe(metadata, tokens)
        case "llama":
            scores, space_first = (
                metadata.value("tokenizer.ggml.scores", list),
                metadata.value("tokenizer.ggml.add_space_prefix", bool, True),
            )
            if len(scores) != len(tokens):
                raise InputError(f"{metadata.where}: tokenizer.ggml.scores has {len(scores)} values for {len(tokens)} tokens")
            return sentencepiece_bpe(tokens, scores, kinds, unknown, space_first), True
    raise InputError(
        f"{metadata.where}: its tokenizer is of kind {model!r}; "
        f"byte-level BPE (gpt2) and SentencePiece's BPE (llama) are supported: {INSTEAD}"
    )


def _add(tokenizer: Tokenizer, tokens: list[str], special: bool) -> None:
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in tokens])


def _special_id(metadata: Metadata, name: str) -> int | None:
    if (key := f"tokenizer.ggml.{name}_token_id") in metadata:
        return metadata.value(key, int)
    return SENTENCEPIECE_IDS.get(name) if metadata.value("tokenizer.ggml.model", str) == "llama" else None


def _token(metadata: Metadata, tokens: list[str], name: str) -> str | None:
    i = _special_id(metadata, name)
    return tokens[i] if i is not None and 0 <= i < len(tokens) else None


def _surround(tokenizer: Tokenizer, before: str | None, after: str | None) -> None:
    """Puts bos and eos around each text where they are asked for."""
    if before is None and after is None:
        return
    specials = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((before, after)) if token]
    template = [*([f"{before}:0"] if before else []), "$A:0", *([f"{after}:0"] if after else [])]
    around = processors.TemplateProcessing(single=template, special_tokens=specials)
    earlier = [tokenizer.post_processor] if tokenizer.post_processor else []
    tokenizer.post_processor = processors.Sequence([*earlier, around]) if earlier else around
