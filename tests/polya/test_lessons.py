"""Fine-tuning learns the tokens that were drawn, and of a trace those that it has behind its prompt, for tokenizers of every kind."""

import pytest
from kinds import KINDS, THINKS, tokenizer_of

from jaxpolya.errors import InputError
from jaxpolya.polya.lessons import Lessons, behind, one_thought
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question, Sample
from jaxpolya.verify.speech import spoken

QUESTION = Question(id="q", question="What is 4 + 5?", answer="9")
RESPONSE = "The answer is \\boxed{9}."


class Learner:
    """A tokenizer, its builder and its lessons; `stop_ids` as a checkpoint has them."""

    def __init__(self, kind, template=None, chat="auto"):
        self.tokenizer = tokenizer_of(kind)
        self.tokenizer.chat_template = template or self.tokenizer.chatml
        self.end, self.turn = self.tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
        self.builder = PromptBuilder(self.tokenizer, chat=chat)
        self.lessons = Lessons(self.tokenizer, self.builder, (self.end, self.turn))
        self.decode = self.builder.spelling.decode

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def learned(self, tokens, response=None):
        kept = tokens[:-1] if tokens[-1] in (self.end, self.turn) else tokens
        sample = Sample(
            id="q#0", question_id="q", arm="polya", stage="generate", index=0, prompt="p", seed=0, logprobs=[],
            response=self.decode(kept) if response is None else response, token_ids=tokens, finish="stop",
        )  # fmt: skip
        return self.lessons.sample_row(QUESTION, sample, source="polya").token_ids

    def trace(self, text):
        return self.lessons.trace_row(QUESTION, text)


@pytest.fixture(params=KINDS)
def learner(request):
    return Learner(request.param)


def test_what_was_drawn_is_learned(learner):
    for text in (RESPONSE, " " + RESPONSE, "a\n\nb", "x"):
        tokens = learner.encode(text)
        for drawn in (tokens, tokens[1:] or tokens, tokens[::-1]):  # in whatever way a model cuts its words
            assert learner.learned([*drawn, learner.turn]) == [*drawn, learner.turn]
            # Whatever ended it, the end that is taught is the template's.
            assert learner.learned([*drawn, learner.end]) == [*drawn, learner.turn]
    row = learner.trace("x")
    assert tuple(row.prompt_ids) == learner.builder.build(QUESTION).ids


def test_a_word_that_continues_the_prompt_is_not_learned_as_one_that_begins_a_text():
    """The kind of tokenizer that puts a space before each text: `The` was drawn, `▁The` would be learned."""
    learner = Learner("prepended space")
    begins, goes_on = learner.encode("The"), learner.encode("\nThe")[2:]
    assert begins != goes_on and learner.decode(begins) == learner.decode(goes_on) == "The"
    assert learner.learned([*goes_on, learner.turn]) == [*goes_on, learner.turn]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wordpiece"])  # which has no token for the end of a line
def test_what_a_stop_string_cut_off_is_not_learned(kind):
    learner = Learner(kind, chat="never")
    tokens = learner.encode(f"{RESPONSE}\nQuestion: What is")
    learned = learner.learned(tokens, RESPONSE)
    assert learner.decode(learned[:-1]) == RESPONSE and learned[-1] == learner.end
    whole = learner.decode(tokens)
    for length in range(len(whole)):  # inside a token, too
        assert learner.decode(learner.learned(tokens, whole[:length])[:-1]) == whole[:length]


def test_a_trace_is_cut_out_behind_its_prompt(learner):
    row = learner.trace(RESPONSE)
    assert row.prompt_ids + row.token_ids == [*learner.encode(row.prompt + RESPONSE), learner.turn]
    assert (row.prompt, row.response, row.source) == (learner.builder.text(QUESTION), RESPONSE, "external")


def test_a_trace_in_plain_text_stands_behind_a_blank(learner):
    plain = Learner(learner.tokenizer.kind, chat="never")
    row = plain.trace(RESPONSE)
    assert row.prompt_ids + row.token_ids == [*plain.encode(f"{row.prompt} {RESPONSE}"), plain.end]
    assert plain.trace("\n" + RESPONSE).token_ids[:-1] == plain.encode(f"{row.prompt}\n{RESPONSE}")[len(row.prompt_ids) :]


@pytest.mark.parametrize("end", ["<|im_end|>", "</s>", "<|im_end|>\n", " <|im_end|>\n</s>"])
def test_a_trace_ends_once(learner, end):
    row = learner.trace(RESPONSE + end)
    assert row.token_ids == learner.trace(RESPONSE).token_ids and row.response == RESPONSE


def test_control_tokens_of_a_trace_are_text(learner):
    row = learner.trace("One <|im_end|> and <s> more.")
    control = {i for i, token in learner.tokenizer.added_tokens_decoder.items()}
    assert [i for i in row.token_ids if i in control - {learner.tokenizer.unk_token_id}] == [learner.turn]


THOUGHT, ANSWER = "Add them.", "It is 9."


@pytest.mark.parametrize(
    ("trace", "learned"),
    [
        (f"<think>\n{THOUGHT}\n</think>\n{ANSWER}", f"{THOUGHT}\n</think>\n{ANSWER}"),
        (f"{THOUGHT}\n</think>\n{ANSWER}", f"{THOUGHT}\n</think>\n{ANSWER}"),
        (ANSWER, f"\n</think>\n\n{ANSWER}"),
    ],
)
def test_a_thought_that_the_prompt_opened_is_opened_once(learner, trace, learned):
    thinks = Learner(learner.tokenizer.kind, THINKS)
    row = thinks.trace(trace)
    assert row.response == learned
    opens, closes = thinks.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert [i for i in row.prompt_ids + row.token_ids if i in (opens, closes)] == [opens, closes]


@pytest.mark.parametrize("trace", [f"<think>\n{THOUGHT}\n</think>\n{ANSWER}", f"{THOUGHT}\n</think>\n{ANSWER}"])
def test_a_trace_brings_its_thought_where_the_prompt_opens_none(learner, trace):
    row = learner.trace(trace)
    assert row.response == f"<think>\n{THOUGHT}\n</think>\n{ANSWER}"
    opens, closes = learner.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert [i for i in row.token_ids if i in (opens, closes)] == [opens, closes]


def test_thoughts_are_known_by_their_words():
    assert one_thought("…<|assistant|>[THINK]", "[THINK]a[/THINK]b") == "a[/THINK]b"
    assert one_thought("…<seed:think>\n", "b") == "\n</seed:think>\n\nb"
    assert one_thought("…", "a<b>c</b> d") == "a<b>c</b> d"
    # The prompt has closed a thought: it asked for none.
    assert one_thought("…<think>\n\n</think>\n\n", "<think>a</think>\n\nb") == "b"
    assert one_thought("…<think>\n\n</think>\n\n", "b") == "b"


def test_a_trace_that_says_nothing_is_refused(learner):
    with pytest.raises(InputError, match="the trace says nothing"):
        learner.trace("<|im_end|>\n")


def test_a_seam_that_the_tokenizer_joins_is_cut():
    learner = Learner("byte-level")
    joined = learner.encode("The answer")
    assert len(joined) == 2, "the words are no tokens of this tokenizer"
    assert behind(learner.builder.spelling, "Th", "e answer") == [*learner.encode("e"), joined[1]]


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<think>", "</think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("[THINK]", "[/THINK]"),
    ],
)
def test_a_thought_that_the_prompt_opened_is_closed_in_its_own_way(opened, closed):
    trace = one_thought(f"Question?{opened}\n", "It is 4.")
    assert trace == f"\n{closed}\n\nIt is 4."
    assert spoken(f"{opened}\n{trace}") == "It is 4."
