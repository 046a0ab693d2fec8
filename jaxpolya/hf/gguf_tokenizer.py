"""The tokenizer inside a GGUF file, rebuilt with `tokenizers`.

A GGUF file holds the vocabulary, the merges (or scores), each token's type, the ids of the special tokens and the chat template.
Two kinds occur in the supported families: byte-level BPE (`tokenizer.ggml.model` = gpt2), below, and SentencePiece's BPE
(= llama), in `hf.gguf_sentencepiece`. How byte-level BPE cuts text before merging is only *named* (`tokenizer.ggml.pre`), so
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
from jaxpolya.hf.gguf_file import GGUFFile
from jaxpolya.hf.gguf_sentencepiece import sentencepiece_bpe

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Values of tokenizer.ggml.token_type that are found in the text before any merging; the first two are no text of their own."""

SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}
"""What these are in a SentencePiece file that doesn't say; a byte-level file that doesn't say has none."""

TURN_ENDS = ("<end_of_turn>", "<|eot_id|>", "<|im_end|>", "<|end|>")
"""Control tokens that end a turn where a file names no eot token, as Gemma's files don't, but its chat template writes one."""


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
    "llama-bpe": Recipe(_LLAMA3, whole_words=True, bos=True),
    "smaug-bpe": Recipe(_LLAMA3),
    "dbrx": Recipe(_LLAMA3),
    "qwen2": Recipe(_split(_words(_CONTRACTIONS, r"\p{N}")), normalizer=normalizers.NFC()),
    "tekken": Recipe(_split(_words(_CAPITALISED, r"\p{N}", marks="/")), whole_words=True, bos=True),
}


def _byte_level_bpe(file: GGUFFile, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """(the tokenizer without its special tokens, whether a text starts with bos where the file doesn't say)."""
    if (pre := file.metadata.get("tokenizer.ggml.pre", "unnamed")) not in RECIPES:
        raise InputError(f"{file.path}: its pre-tokenizer is {pre!r}; supported are {', '.join(RECIPES)}: give the Hugging Face directory")
    recipe = RECIPES[pre]
    merges = [tuple(merge.split(" ", 1)) for merge in file.metadata.get("tokenizer.ggml.merges")]
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
    """The file's tokenizer with its chat template. Raises `InputError` for kinds that are not supported."""
    tokens, kinds = file.metadata.get("tokenizer.ggml.tokens"), file.metadata.get("tokenizer.ggml.token_type", [])

    def special(name: str) -> str | None:
        i = _special_id(file, name)
        return tokens[i] if i is not None and i < len(tokens) else None

    match kind := file.metadata.get("tokenizer.ggml.model"):
        case "gpt2":
            tokenizer, starts_with_bos = _byte_level_bpe(file, tokens)
        case "llama":
            scores, space_first = file.metadata.get("tokenizer.ggml.scores"), file.metadata.get("tokenizer.ggml.add_space_prefix", True)
            kinds = file.metadata.get("tokenizer.ggml.token_type")
            tokenizer, starts_with_bos = sentencepiece_bpe(tokens, scores, kinds, special("unknown"), space_first), True
        case _:
            raise InputError(
                f"{file.path}: its tokenizer is of kind {kind!r}; byte-level BPE (gpt2) and SentencePiece's BPE (llama) are supported: "
                "give the Hugging Face directory"
            )
    found = list(zip(tokens, kinds, strict=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind in found if kind in (UNKNOWN, CONTROL)])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token, kind in found if kind == USER_DEFINED])
    bos, eos = special("bos"), special("eos")
    before = bos if file.metadata.values.get("tokenizer.ggml.add_bos_token", starts_with_bos) else None
    after = eos if file.metadata.values.get("tokenizer.ggml.add_eos_token", False) else None
    _surround(tokenizer, before, after)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=file.metadata.values.get("tokenizer.chat_template"),
        model_max_length=file.config.max_positions,
        clean_up_tokenization_spaces=False,
    )


def stop_ids_from_gguf(file: GGUFFile) -> tuple[int, ...]:
    """Ids that end a text or a turn, as the file's metadata has them."""
    found = [_special_id(file, name) for name in ("eos", "eot", "eom")]
    if found[1] is None:
        template, tokens = file.metadata.values.get("tokenizer.chat_template", ""), file.metadata.get("tokenizer.ggml.tokens")
        found += [tokens.index(token) for token in TURN_ENDS if token in template and token in tokens]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def _special_id(file: GGUFFile, name: str) -> int | None:
    default = SENTENCEPIECE_IDS.get(name) if file.metadata.values.get("tokenizer.ggml.model") == "llama" else None
    return file.metadata.values.get(f"tokenizer.ggml.{name}_token_id", default)


def _surround(tokenizer: Tokenizer, before: str | None, after: str | None) -> None:
    """Puts bos and eos around each text where they are asked for."""
    if before is None and after is None:
        return
    specials = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((before, after)) if token]
    template = [*([f"{before}:0"] if before else []), "$A:0", *([f"{after}:0"] if after else [])]
    around = processors.TemplateProcessing(single=template, special_tokens=specials)
    earlier = [tokenizer.post_processor] if tokenizer.post_processor else []
    tokenizer.post_processor = processors.Sequence([*earlier, around]) if earlier else around
