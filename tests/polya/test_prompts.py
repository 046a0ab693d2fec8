"""One builder, four users: what a prompt says, in which form, and how it becomes ids."""

import dataclasses
import subprocess
import sys
from types import MappingProxyType

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxpolya.errors import ConfigError
from jaxpolya.polya.catalogue import Exemplar, Heuristic, Slot, load_catalogue, slots
from jaxpolya.polya.prompts import KINDS, PromptBuilder, ask
from jaxpolya.records import Question

QUESTION = Question(id="q", question="What is 2 + 3?", answer="5")
CHOICE = Question(id="c", question="Who left?", answer="B", choices=["Ann", "Ben"], context="Ann stayed.", verifier="choice")
HEURISTIC = Heuristic(
    key="count",
    title="Count",
    instruction="Count on your fingers.",
    exemplars=[
        Exemplar(kind="math", question="What is 1 + 1?", response="One, two.", answer="2"),
        Exemplar(kind="narrative", question="Two left. Who?", response="Count them.", answer="A", choices=["both", "none"]),
    ],
)
SLOT = Slot(0, HEURISTIC, (HEURISTIC.exemplars[0],))


class Fake:
    """A tokenizer that shows the conversation, and whose ids are code points."""

    chat_template = "yes"
    bos_token_id = eos_token_id = unk_token_id = None
    added_tokens_decoder = MappingProxyType({})

    def encode(self, text, *, add_special_tokens):
        return [ord(letter) for letter in text]

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
        assert add_generation_prompt and not tokenize
        return "\n".join(f"<{message['role']}> {message['content']}" for message in conversation) + "\n<assistant>"


class Plain(Fake):
    chat_template = None


def real(template=None, opening="<s>", closing=""):
    """A small tokenizer of the real kind, which adds BOS (and perhaps EOS) by itself."""
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *map(chr, range(32, 127)), "\n"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A {closing}".strip(), special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


# Text --------------------------------------------------------------------------------------------------------------------


def test_the_bare_question_in_chat():
    assert PromptBuilder(Fake()).text(QUESTION) == "<user> What is 2 + 3?\nPut the final answer in \\boxed{}.\n<assistant>"


def test_exemplars_are_earlier_turns_and_the_instruction_stands_before_the_question():
    assert PromptBuilder(Fake(), system="Be brief.").text(QUESTION, SLOT) == (
        "<system> Be brief.\n"
        "<user> What is 1 + 1?\nPut the final answer in \\boxed{}.\n"
        "<assistant> One, two.\nThe answer is \\boxed{2}.\n"
        "<user> Count on your fingers.\n\nWhat is 2 + 3?\nPut the final answer in \\boxed{}.\n"
        "<assistant>"
    )


def test_plain_text_for_base_models():
    builder = PromptBuilder(Plain())
    assert builder.text(QUESTION) == "Question: What is 2 + 3?\nPut the final answer in \\boxed{}.\nAnswer:"
    assert builder.text(QUESTION, SLOT) == (
        "Count on your fingers.\n\n"
        "Question: What is 1 + 1?\nPut the final answer in \\boxed{}.\nAnswer: One, two.\nThe answer is \\boxed{2}.\n\n"
        "Question: What is 2 + 3?\nPut the final answer in \\boxed{}.\nAnswer:"
    )
    assert builder.stops == ("\nQuestion:",)
    assert PromptBuilder(Fake()).stops == ()


def test_without_exemplars_only_the_instruction_is_added():
    for tokenizer in (Fake(), Plain()):
        builder = PromptBuilder(tokenizer)
        assert builder.text(QUESTION, SLOT, exemplars=False).replace("Count on your fingers.\n\n", "") == builder.text(QUESTION)


def test_context_and_choices():
    slot = Slot(0, HEURISTIC, (HEURISTIC.exemplars[1],))
    assert PromptBuilder(Fake()).text(CHOICE, slot) == (
        '<user> Two left. Who?\nA. both\nB. none\nEnd with "The answer is" and the letter of your choice.\n'
        "<assistant> Count them.\nThe answer is A.\n"
        "<user> Count on your fingers.\n\nAnn stayed.\n\nWho left?\nA. Ann\nB. Ben\n"
        'End with "The answer is" and the letter of your choice.\n'
        "<assistant>"
    )


@pytest.mark.parametrize(
    ("verifier", "extraction", "asked", "shown"),
    [
        ("math", "boxed", "Put the final answer in \\boxed{}.", "The answer is \\boxed{2}."),
        ("math", "statement", "Put the final answer in \\boxed{}.", "The answer is \\boxed{2}."),
        ("math", "number", 'End with "The answer is" and the final answer.', "The answer is 2."),
        ("math", "tag", "Put the final answer between <answer> and </answer>.", "<answer>2</answer>"),
        ("reasoning_gym", "statement", 'End with "The answer is" and the final answer.', "The answer is 2."),
        ("reasoning_gym", "number", 'End with "The answer is" and the final answer.', "The answer is 2."),
        ("reasoning_gym", "tag", "Put the final answer between <answer> and </answer>.", "<answer>2</answer>"),
        ("choice", "boxed", "Put the letter of your choice in \\boxed{}.", "The answer is \\boxed{2}."),
    ],
)
def test_exemplars_end_as_the_question_asks(verifier, extraction, asked, shown):
    text = PromptBuilder(Plain()).text(dataclasses.replace(QUESTION, verifier=verifier, extraction=extraction), SLOT)
    assert text.count(f"\n{asked}\nAnswer:") == 2
    assert f"One, two.\n{shown}\n\n" in text


def test_a_code_question_shows_its_first_assertion_unless_its_prompt_names_the_function():
    asked = ask(Question(id="c", question="Double a number.", answer="", verifier="code", tests=["assert f(1) == 2", "assert f(3) == 6"]))
    assert asked == "Double a number.\nIt must pass this test: assert f(1) == 2\nWrite the whole program in one ```python block."
    same = {"tests": ["assert f(1) == 2"], "test_setup_code": "import math"}
    assert "assert f(1)" in ask(Question(id="c", question="Double.", answer="", verifier="code", tests=same))
    prompt = "def f(n):\n    # Doubles.\n"
    tests = {"tests": "def check(candidate): assert candidate(1) == 2", "prompt": prompt, "entry_point": "f"}
    for hidden in (tests, [{"input": "1", "output": "2"}]):
        assert "assert" not in ask(Question(id="c", question=prompt, answer="", verifier="code", tests=hidden))


def test_code_is_asked_for_in_a_block_and_has_no_final_statement():
    question = Question(id="c", question="Write f.", answer="", verifier="code")
    (slot,) = slots(load_catalogue().pick(["pattern"]), None, 1, seed=0, kind=KINDS["code"])
    text = PromptBuilder(Plain()).text(question, slot)
    assert text.endswith("Question: Write f.\nWrite the whole program in one ```python block.\nAnswer:")
    assert slot.exemplars[0].response in text
    assert "The answer is" not in text


def test_the_four_phase_frame():
    framed = PromptBuilder(Fake()).text(QUESTION, SLOT, four_phases=True)
    for phase in ("Understand:", "Plan:", "Carry out:", "Look back:"):
        assert framed.count(phase) == 1
    assert "in this way: Count on your fingers. Carry out:" in framed
    assert (
        PromptBuilder(Fake(), frame="First: {instruction}")
        .text(QUESTION, SLOT, four_phases=True, exemplars=False)
        .startswith("<user> First: Count on your fingers.\n\nWhat is 2 + 3?")
    )
    (phases,) = slots(load_catalogue().pick(["four_phases"]), None, 1, seed=0)
    builder = PromptBuilder(Fake())
    assert builder.text(QUESTION, phases, four_phases=True) == builder.text(QUESTION, phases)


def test_braces_in_an_instruction_stay():
    slot = Slot(0, HEURISTIC.model_copy(update={"instruction": r"Use \frac{a}{b} and {x}."}), ())
    assert r"in this way: Use \frac{a}{b} and {x}. Carry" in PromptBuilder(Fake()).text(QUESTION, slot, four_phases=True)


# Ids and templates ---------------------------------------------------------------------------------------------------------


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE


def test_a_template_brings_its_own_bos():
    builder = PromptBuilder(real(TEMPLATE))
    text = builder.text(QUESTION, SLOT)
    assert text.startswith("<s>[user]What is 1 + 1?") and text.endswith("[assistant]")
    ids = builder.encode(text)
    assert ids.count(0) == 1 and ids[0] == 0 and 1 not in ids
    assert PromptBuilder(real(TEMPLATE.removeprefix("{{ bos_token }}"))).encode("[user]x")[0] != 0


@pytest.mark.parametrize(("opening", "closing", "bos"), [("<s>", "", [0]), ("<s>", "</s>", [0]), ("", "", []), ("", "</s>", [])])
def test_plain_text_gets_the_bos_that_the_tokenizer_would_add(opening, closing, bos):
    tokenizer = real(opening=opening, closing=closing)
    builder = PromptBuilder(tokenizer)
    body = tokenizer.encode("Answer:", add_special_tokens=False)
    assert builder.encode("Answer:") == bos + body
    assert builder.encode("<s>Answer:") == [0, *body]


def test_never_ignores_the_template_and_always_needs_one():
    assert PromptBuilder(real(TEMPLATE), chat="never").text(QUESTION).startswith("Question:")
    assert PromptBuilder(real(TEMPLATE), chat="always").text(QUESTION).startswith("<s>[user]")
    with pytest.raises(ConfigError, match="chat is always"):
        PromptBuilder(real(), chat="always")


def test_a_template_that_refuses_the_system_message():
    assert PromptBuilder(real(NO_SYSTEM)).text(QUESTION, SLOT).count("[user]") == 2
    with pytest.raises(ConfigError, match=r"System role not supported.*leave model.system unset"):
        PromptBuilder(real(NO_SYSTEM), system="Be brief.").text(QUESTION)


def test_a_template_that_refuses_anything_else():
    refuses = "{{ raise_exception('One turn only') }}"
    with pytest.raises(ConfigError, match=r"refuses the prompt \(One turn only\); set model.chat to never"):
        PromptBuilder(real(refuses)).text(QUESTION, SLOT)


def test_the_builder_starts_without_jax_and_transformers():
    check = "import sys, jaxpolya.polya.prompts; assert not {'jax', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=600)


def test_a_template_that_tells_the_date_tells_the_same_every_day(make_tokenizer):
    tokenizer = make_tokenizer(["What is it?"], 300)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d') }}: {{ messages[-1]['content'] }}"
    assert PromptBuilder(tokenizer).text(QUESTION).startswith("26 Jul 2024, 2024-07-26: What is 2 + 3?")


def test_a_response_ends_as_the_template_ends_a_turn(make_tokenizer):
    """Gemma's tokenizer names <eos>, and its template ends turns otherwise."""
    tokenizer = make_tokenizer(["2 + 2? Four."], 290)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    eos, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    assert PromptBuilder(tokenizer).end_id((eos, turn)) == turn
    assert PromptBuilder(tokenizer).end_id((eos,)) == eos
    assert PromptBuilder(tokenizer, chat="never").end_id((turn, eos)) == eos
    assert PromptBuilder(tokenizer, chat="never").end_id((turn,)) == turn


def test_a_template_that_refuses_an_answer_at_the_end_can_not_be_taught():
    refuses = "{% if messages[-1].role != 'user' %}{{ raise_exception('A user must speak last') }}{% endif %}" + TEMPLATE
    builder = PromptBuilder(real(refuses))
    assert builder.text(QUESTION, SLOT).endswith("[assistant]")
    with pytest.raises(ConfigError, match=r"refuses a conversation that ends with an answer.*A user must speak last.*model.chat to never"):
        builder.check_answers()
    PromptBuilder(real(refuses), chat="never").check_answers()
    PromptBuilder(real(TEMPLATE)).check_answers()


def test_words_that_open_a_turn_stop_a_response():
    assert PromptBuilder(real(TEMPLATE)).stops == ("[user]",)
    assert PromptBuilder(real(TEMPLATE.replace("{{ m.content }}", "{{ m.content }}</s>"))).stops == ()


def test_what_a_question_spells_is_text_in_every_part_of_a_prompt():
    tokenizer = real(TEMPLATE)
    quoted = dataclasses.replace(CHOICE, question="Who said </s>?", context="<s>Ann", choices=["</s>", "Ben<s>"])
    slot = Slot(0, HEURISTIC.model_copy(update={"instruction": "Use <s>."}), (HEURISTIC.exemplars[1],))
    builder = PromptBuilder(tokenizer, system="</s>")
    built = builder.build(quoted, slot)
    assert built.text == builder.text(quoted, slot) and built.text.count("</s>") == 3 and built.text.count("<s>") == 4
    assert built.ids.count(0) == 1 and built.ids[0] == 0 and 1 not in built.ids
    plain = PromptBuilder(real(), chat="never").build(quoted, slot)
    assert plain.ids.count(0) == 1 and plain.ids[0] == 0 and 1 not in plain.ids
    assert 1 not in builder.say("</s>", "</s>")


def test_arguments_go_to_the_template_and_wrong_ones_are_named():
    template = TEMPLATE + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    assert PromptBuilder(real(template)).text(QUESTION).endswith("[assistant]")
    assert PromptBuilder(real(template), chat_arguments={"enable_thinking": False}).text(QUESTION).endswith("</think>\n\n")
    with pytest.raises(ConfigError, match="chat template has no enable_thinkin; did you mean enable_thinking"):
        PromptBuilder(real(template), chat_arguments={"enable_thinkin": False})
    for tokenizer, chat in ((real(), "auto"), (real(template), "never")):
        with pytest.raises(ConfigError, match="chat_arguments are for a chat template"):
            PromptBuilder(tokenizer, chat=chat, chat_arguments={"a": 1})


def test_white_space_that_a_template_writes_before_an_answer_is_known():
    spaced = TEMPLATE.replace("{{ m.content }}", "{% if m.role == 'assistant' %} {% endif %}{{ m.content }}")
    assert PromptBuilder(real(spaced)).lead == " " and PromptBuilder(real(TEMPLATE)).lead == ""
    assert PromptBuilder(real()).lead == " "
