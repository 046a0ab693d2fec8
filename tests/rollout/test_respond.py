"""What the verifier is shown of a response, and what is recorded of it."""

from concurrent.futures import Future

import pytest
from kinds import CHATML, THINKS, tokenizer_of

from jaxpolya.decode.engine import Completion
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question
from jaxpolya.rollout.respond import Draws, make_prompts, respond
from jaxpolya.verify.judge import judge
from jaxpolya.verify.speech import opened_thought

QUESTION = Question(id="q", question="What is 4 + 5?", answer="9", extraction="number")


class Says:
    """An engine whose model gives fixed responses."""

    def __init__(self, *texts):
        self.texts = texts

    def run(self, params, requests, seed):
        yield [Completion(request, index, self.texts[index], [1], [0.0], "stop") for request in requests for index in request.samples]


class Judges:
    """A pool without processes."""

    def submit(self, item):
        future = Future()
        future.set_result(judge(item))
        return future

    def results(self, futures):
        return [future.result() for future in futures]


@pytest.mark.parametrize(
    ("template", "verdicts"),
    [
        (CHATML, ["correct", "correct", "correct", "unparseable"]),
        # The prompt ends in <think>: a response that doesn't close it has thought, and said nothing.
        (THINKS, ["unparseable", "correct", "correct", "unparseable"]),
    ],
)
def test_a_thought_that_the_prompt_opened_has_to_end(template, verdicts, tmp_path):
    tokenizer = tokenizer_of("byte-level", 300)
    tokenizer.chat_template = template
    texts = ["It is 9.", "Hm, 8.</think>It is 9.", "<think>8</think>\nIt is 9.", "<think>It is 9."]
    prompts, _ = make_prompts(PromptBuilder(tokenizer), [(QUESTION, None)], longest=500, key="eval")
    samples = respond(Says(*texts), dict, prompts, Draws("base", "eval", len(texts), 0), pool=Judges(), out=tmp_path / "samples.jsonl")
    assert [sample.verdict for sample in samples] == verdicts
    assert [sample.response for sample in samples] == texts
    # The record holds all that the verdict is on.
    assert {opened_thought(sample.prompt) for sample in samples} == {"<think>\n" if template == THINKS else ""}
