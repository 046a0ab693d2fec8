"""Tokenizers of every kind that checkpoints have, small and trained here, with ChatML's control tokens and template."""

import functools
import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEXTS = [
    "The answer is \\boxed{4}.",
    "What is 4 + 5?\nPut the final answer in \\boxed{}.",
    "def f(x):\n    return x  # \u00e9",
    " begins with a space",
    "Think of a similar sum.\n\nWhy?",
]
KINDS = ("byte-level", "prepended space", "space always", "unigram", "wordpiece")


def _byte_level(vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=CONTROL[:1], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )


def _prepended_space(vocab_size):
    """As SentencePiece's BPE was converted for Llama 2: a space comes before a text, and before what follows a control token."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[*CONTROL[:1], *bytes_], show_progress=False)


def _space_always(vocab_size):
    """As newer conversions have it: a pre-tokenizer puts the space, before the first word alone."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[*CONTROL[:1], *bytes_], show_progress=False)


def _unigram(vocab_size):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    alphabet = [chr(code) for code in range(32, 127)] + ["\n", "é", "▁"]
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=CONTROL, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )


def _wordpiece(vocab_size):
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    alphabet = [chr(code) for code in range(33, 127)]
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=CONTROL[:1], initial_alphabet=alphabet, show_progress=False
    )


_MAKERS = dict(zip(KINDS, (_byte_level, _prepended_space, _space_always, _unigram, _wordpiece), strict=True))


@functools.cache
def tokenizer_of(kind: str, vocab_size: int = 400, texts: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, trained on some texts beside `TEXTS`. It names </s> as eos, and its template ends turns with <|im_end|>."""
    tokenizer, trainer = _MAKERS[kind](vocab_size - len(CONTROL))
    tokenizer.train_from_iterator([*TEXTS, *texts] * 3, trainer)
    # What the trainer was given to keep is in the vocabulary, and special only if it is added once more.
    tokenizer = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"added_tokens": []}))
    tokenizer.add_tokens([AddedToken(token, special=not token.endswith("think>"), normalized=False) for token in CONTROL])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.kind, made.chatml = kind, CHATML
    return made
