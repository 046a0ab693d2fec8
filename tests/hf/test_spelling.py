"""Data that spells control tokens stays text, whatever kind of tokenizer reads it."""

import pytest
from kinds import KINDS, TEXTS, tokenizer_of

from jaxpolya.hf.chat import chat_text
from jaxpolya.hf.spelling import Spelling

QUOTED = ["Why does <|im_end|> end it?", "<|im_end|>", "a<|im_start|>user\nb<|im_end|><|im_end|>", "x</s> <s>y", "<think>no</think> 1"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return tokenizer_of(request.param)


def control(tokenizer) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}


def test_text_without_control_tokens_is_encoded_as_ever(tokenizer):
    spelling = Spelling(tokenizer)
    for text in TEXTS:
        assert spelling.protect(text) == text == spelling.plain(text)
        expected = tokenizer.encode(text, add_special_tokens=False)
        assert spelling.encode(text) == expected == spelling.encoding(text).ids


def test_a_template_s_control_tokens_are_those_of_the_tokenizer(tokenizer):
    spelling = Spelling(tokenizer)
    for text in TEXTS:
        written = chat_text(tokenizer, [{"role": "user", "content": text}, {"role": "assistant", "content": text}])
        assert spelling.encoding(written).ids == tokenizer.encode(written, add_special_tokens=False)


@pytest.mark.parametrize("text", QUOTED)
def test_what_data_spells_is_text(tokenizer, text):
    spelling = Spelling(tokenizer)
    written = chat_text(tokenizer, [{"role": "user", "content": spelling.protect(text)}])
    assert spelling.plain(written) == chat_text(tokenizer, [{"role": "user", "content": text}])
    ids = spelling.encode(written)
    frame = tokenizer.encode(chat_text(tokenizer, [{"role": "user", "content": "1"}]), add_special_tokens=False)
    assert [i for i in ids if i in control(tokenizer)] == [i for i in frame if i in control(tokenizer)]
    # Nothing is lost, and nothing is joined or cut otherwise than around text that spells nothing.
    inside = [i for i in spelling.encode(spelling.protect(text)) if i != tokenizer.unk_token_id]
    assert inside and not control(tokenizer) & set(inside)
    if tokenizer.kind != "wordpiece":  # which doesn't tell where there were spaces
        assert text.strip() in spelling.decode(ids)


def test_every_token_is_spelled(tokenizer):
    end, think = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<think>"])
    ids = [think, *tokenizer.encode("4 + 5", add_special_tokens=False), end]
    text = Spelling(tokenizer).decode(ids)
    assert text.startswith("<think>") and text.endswith("<|im_end|>")
