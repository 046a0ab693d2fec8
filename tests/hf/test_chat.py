"""What a chat template says of the end of a turn, and that every kind of source is asked."""

import json
import shutil

import pytest
from tokenizers import AddedToken

from jaxpolya.errors import ConfigError
from jaxpolya.hf.chat import chat_text, turn_end_text, turn_ends
from jaxpolya.hf.checkpoint import export_checkpoint, inspect_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.polya.prompts import PromptBuilder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
ALWAYS_OPENS = CHATML.replace("{% if add_generation_prompt %}", "").replace("{% endif %}", "")
REFUSES_ANSWERS_LAST = "{% if messages[-1]['role'] != 'user' %}{{ raise_exception('A user must speak last') }}{% endif %}" + CHATML
ANOTHER_END = CHATML.replace("<|im_end|>", "{% if loop.last %}</s>{% else %}<|im_end|>{% endif %}")
WORDS = "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}### assistant:"
ONE_TURN = "<|im_start|>{{ messages[-1]['content'] }}"
TOKENS = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|endoftext|>", "<|end|>", "</s>", "<s>", "\n\n"]


@pytest.fixture
def tokenizer(make_tokenizer):
    """A tokenizer with the control tokens of several models, of which one is white space and no control token."""
    made = make_tokenizer(["2 + 2? It makes four."], 300)
    made.add_tokens([AddedToken(token, special=token != "<|im_end|>", normalized=False) for token in TOKENS])
    made.bos_token, made.eos_token = "<s>", "<|endoftext|>"
    return made


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, ["<|im_end|>"]),
        (CHATML.replace("<|im_end|>", "\n\n<|im_end|>"), ["<|im_end|>"]),
        (GLM, ["<|user|>"]),
        (LLAMA2, ["</s>"]),
        (PHI3, ["<|end|>"]),
        (ALWAYS_OPENS, ["<|im_end|>"]),
        (REFUSES_ANSWERS_LAST, ["<|im_end|>"]),
        (ANOTHER_END, ["</s>", "<|im_end|>"]),
        ({"default": CHATML, "tool_use": GLM}, ["<|im_end|>"]),
        (WORDS, []),
        (LLAMA2.replace(" </s>", "\n\n"), []),
        (ONE_TURN, []),
        ("{{ nonsense(", []),
        (None, []),
    ],
)
def test_the_template_says_what_ends_a_turn(tokenizer, template, ends):
    tokenizer.chat_template = template
    assert turn_ends(tokenizer) == tuple(tokenizer.convert_tokens_to_ids(ends))


def test_words_that_open_the_next_turn_end_a_response_where_no_token_does(tokenizer):
    unknown, no_end = CHATML.replace("<|im_end|>", "<|no token|>"), LLAMA2.replace(" </s>", "")
    cases = ((unknown, "<|no token|>"), (WORDS, "\n### user:"), (no_end, "<s>[INST]"), (CHATML, ""), (GLM, ""), (ONE_TURN, ""), (None, ""))
    for template, words in cases:
        tokenizer.chat_template = template
        assert turn_end_text(tokenizer) == words


def test_arguments_are_the_template_s(tokenizer):
    tokenizer.chat_template = CHATML + "{% if not thinking %}<think>\n\n</think>{% endif %}"
    messages = [{"role": "user", "content": "2?"}]
    assert "<think>" in chat_text(tokenizer, messages) and "<think>" not in chat_text(tokenizer, messages, arguments={"thinking": True})


@pytest.fixture
def chatml_checkpoint(tiny_checkpoint, tmp_path):
    """A base model's checkpoint after a fine-tune: all files name <|pad|> as eos, and the template ends turns with <|end|>."""
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "chatml")
    for name, value in (("config.json", 2), ("generation_config.json", 2), ("tokenizer_config.json", "<|pad|>")):
        tree = json.loads((directory / name).read_text())
        key = "eos_token" if name == "tokenizer_config.json" else "eos_token_id"
        (directory / name).write_text(json.dumps(tree | {key: value}))
    return directory


def test_every_source_stops_where_the_template_ends_a_turn(chatml_checkpoint, tmp_path, mesh1):
    loaded = load_checkpoint(str(chatml_checkpoint), mesh=mesh1)
    assert loaded.stop_ids == (2, 0)
    save_checkpoint(tmp_path / "own", loaded.params, loaded.meta)
    export_checkpoint(tmp_path / "out", loaded.params, loaded.meta)
    for source in ("own", "out"):
        assert set(inspect_checkpoint(str(tmp_path / source)).stop_ids) == {0, 2}


@pytest.mark.parametrize(
    ("template", "settings"),
    [
        ("{% if plain is not defined %}{{ raise_exception('plain or not?') }}{% endif %}" + CHATML, {"chat_arguments": {"plain": True}}),
        (
            "{% if messages[0].role != 'system' %}{{ raise_exception('a system message first') }}{% endif %}" + CHATML,
            {"system": "Be brief."},
        ),
    ],
    ids=["argument", "system message"],
)
def test_an_end_that_only_a_run_s_own_settings_show_is_found(tokenizer, template, settings):
    tokenizer.chat_template = template
    (end,) = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    builder = PromptBuilder(tokenizer, **settings)
    assert turn_ends(tokenizer) == ()
    assert builder.stop_ids([7]) == (7, end)
    assert builder.end_id(builder.stop_ids([7])) == end
    builder.check_answers()


def test_a_template_argument_of_a_wrong_type_is_said(tokenizer):
    tokenizer.chat_template = "{{ 'Today: ' + date_string }}" + CHATML
    with pytest.raises(ConfigError, match=r"can only concatenate str.*chat_arguments \(date_string\)"):
        PromptBuilder(tokenizer, chat_arguments={"date_string": 20240726}).say("2 + 2?")
