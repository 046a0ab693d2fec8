"""Tokenizers rebuilt from GGUF metadata: SentencePiece's BPE against its own rule, byte-level BPE's cuts, special tokens."""

import itertools
import random
from types import SimpleNamespace

import pytest
from gguf_writing import write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jaxpolya.errors import InputError
from jaxpolya.hf.gguf.config import Metadata
from jaxpolya.hf.gguf.tokenizer import RECIPES, stop_ids_from_gguf, tokenizer_from_gguf

TEXT = "the theory of the other thing is that there is another theory; in the end 1234 bananas and 5 ananas are fruits, née à l'été. "
TEXTS = [
    "the other  theory\n\n 1239 bananas",
    " née",
    "x<turn>y",
    "日本 👍🏽 ë",
    "▁the",
    "aaaaaaaaaaa",
    "<0x0A>",
    "</s><s> <unk> the",
    "",
    " the\tend ",
]
SPECIALS = ["<unk>", "<s>", "</s>", "<turn>", "<end_of_turn>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
OWN = ["  ", "\n\n"]  # user-defined: found in the text before merging


def pieces():
    """Pieces and scores of a little SentencePiece BPE; a score is how early its merge was learnt."""
    bpe = Tokenizer(models.BPE())
    spaced = TEXT.replace(" ", "▁") * 3
    bpe.train_from_iterator([spaced, "ana" * 9, "▁▁▁▁"], trainers.BpeTrainer(vocab_size=120, show_progress=False))
    vocab = sorted(bpe.get_vocab(), key=bpe.get_vocab().get)
    return [(piece, -float(rank)) for rank, piece in enumerate(vocab)]


PIECES = pieces()
TOKENS = [*SPECIALS, *BYTES, *OWN, *(piece for piece, _ in PIECES)]
SENTENCEPIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": [0.0] * (len(SPECIALS) + len(BYTES)) + [-1000.0] * len(OWN) + [score for _, score in PIECES],
    "tokenizer.ggml.token_type": [2, 3, 3, 3, 3] + [6] * len(BYTES) + [4] * len(OWN) + [1] * len(PIECES),
}


def opened(values):
    """What `tokenizer_from_gguf` needs of a file with some metadata."""
    return SimpleNamespace(path="a.gguf", metadata=Metadata(values, "a.gguf"), config=SimpleNamespace(max_positions=64))


def by_the_rule(text, space_first):
    """Ids by the rule itself: special and user-defined tokens first; then the neighbours whose piece has the best score, leftmost first."""
    match = next(
        ((at, token) for at in range(len(text)) for token in sorted(SPECIALS + OWN, key=len)[::-1] if text.startswith(token, at)), None
    )
    if match:
        at, token = match
        return [*by_the_rule(text[:at], space_first), TOKENS.index(token), *by_the_rule(text[at + len(token) :], space_first)]
    scores = dict(PIECES)
    symbols = list(f"▁{text}".replace(" ", "▁") if space_first and text else text.replace(" ", "▁"))
    while best := max(((scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in scores), default=None):
        i = -best[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    ids = (
        [TOKENS.index(symbol)] if symbol in scores else [TOKENS.index(f"<0x{byte:02X}>") for byte in symbol.encode()] for symbol in symbols
    )
    return [i for part in ids for i in part]


WITH_SPACE, WITHOUT_SPACE = (
    tokenizer_from_gguf(opened(SENTENCEPIECE | {"tokenizer.ggml.add_space_prefix": first})) for first in (True, False)
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text("▁ \nathenorysi1é,<0xA>", max_size=30), st.text(max_size=20), st.lists(st.sampled_from([*TOKENS, " "])).map("".join))
)
def test_sentencepiece_merges_by_its_rule(text):
    for tokenizer, space_first in ((WITH_SPACE, True), (WITHOUT_SPACE, False)):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == by_the_rule(text, space_first)


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_gives_the_text_back(text, tmp_path):
    for tokenizer in (WITH_SPACE, WITHOUT_SPACE):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 1  # bos, unless the file says no
        if tokenizer is WITHOUT_SPACE or not any(token in text for token in SPECIALS + OWN):  # else a space comes after each of them
            assert tokenizer.decode(ids[1:]) == text.replace("▁", " ")
        tokenizer.save_pretrained(tmp_path)
        saved = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        assert saved(text)["input_ids"] == ids and saved.decode(ids) == tokenizer.decode(ids)


def test_sentencepiece_is_as_transformers_has_it(tmp_path):
    """On texts without special and user-defined tokens."""
    write_file(tmp_path / "a.gguf", "llama", SENTENCEPIECE, {})
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices("thenorysia 1é,;日", k=rng.randrange(1, 40))).replace("  ", " ").strip()
        assert WITH_SPACE(text, add_special_tokens=False)["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]


def test_a_file_says_what_surrounds_a_text_and_what_ends_it():
    silent = opened(SENTENCEPIECE)
    tokenizer = tokenizer_from_gguf(silent)
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2, None)
    assert stop_ids_from_gguf(silent) == (2,)
    file = opened(SENTENCEPIECE | {f"tokenizer.ggml.{key}": value for key, value in {
        "bos_token_id": 3, "eos_token_id": 1, "padding_token_id": 0, "add_bos_token": False, "add_eos_token": True}.items()})  # fmt: skip
    tokenizer = tokenizer_from_gguf(file)
    assert tokenizer("")["input_ids"] == [1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (3, 1, 0)
    assert tokenizer.decode([1, TOKENS.index("▁the"), 3], skip_special_tokens=True) == "the"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokens": None}, "the metadata has no tokenizer.ggml.tokens"),
        ({"scores": None}, "the metadata has no tokenizer.ggml.scores"),
        ({"scores": [1.0]}, "tokenizer.ggml.scores has 1 values for"),
        ({"token_type": [1]}, "tokenizer.ggml.token_type has 1 values for"),
        ({"tokens": list(range(len(TOKENS)))}, "its tokenizer can't be built"),
        ({"model": 3}, "tokenizer.ggml.model is 3, which is no str"),
        ({"eos_token_id": "x"}, "tokenizer.ggml.eos_token_id is 'x', which is no int"),
        ({"model": "bert"}, "its tokenizer is of kind 'bert'; byte-level BPE"),
        ({"model": "gpt2", "pre": "falcon"}, "its pre-tokenizer is 'falcon'; supported are gpt-2, smollm"),
        ({"model": "gpt2", "pre": "gpt-2", "merges": ["q zz"]}, "its tokenizer can't be built"),
    ],
)
def test_what_a_tokenizer_cannot_be(values, message):
    with pytest.raises(InputError, match=f"^a.gguf: {message}"):
        tokenizer_from_gguf(opened(SENTENCEPIECE | {f"tokenizer.ggml.{key}": value for key, value in values.items()}))


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "'s", "Ġ2026", "Ġ3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("smollm", ["It", "'s", "Ġ", "2", "0", "2", "6", "Ġ", "3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("llama-bpe", ["It", "'s", "Ġ", "202", "6", "Ġ", "3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("smaug-bpe", ["It", "'s", "Ġ", "202", "6", "Ġ", "3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("dbrx", ["It", "'s", "Ġ", "202", "6", "Ġ", "3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("qwen2", ["It", "'s", "Ġ", "2", "0", "2", "6", "Ġ", "3", "ĠcamelCase", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
        ("tekken", ["It", "'s", "Ġ", "2", "0", "2", "6", "Ġ", "3", "Ġcamel", "Case", "ĠHTTPs", "ĠnaÃ¯ve", "ĊĊ", "Ġok", "!!/"]),
    ],
)
def test_text_is_cut_as_the_models_were_trained(pre, pieces):
    assert [piece for piece, _ in RECIPES[pre].cut.pre_tokenize_str("It's 2026 3 camelCase HTTPs naïve\n\n ok!!/")] == pieces
