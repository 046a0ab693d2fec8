"""Which questions a training asks once it goes on: those that it would have asked, had nobody stopped it.

Trainers of this field have lost the state of their shuffle with the process (google/tunix#2288), and counted optimizer steps as rounds, so
that with several passes over a round they skipped questions that nobody had been asked (google/tunix#2290). Here a round's questions are
a function of its number and of the log. That the log and a checkpoint agree on that number, under several passes and refills, is in
tests/pipeline/test_pipeline.py.
"""

import random

import pytest
from test_respond import Judges

from jaxpolya.config import RlConfig
from jaxpolya.decode.engine import Completion, Usage
from jaxpolya.progress import Display
from jaxpolya.records import Question
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rounds import Live

QUESTIONS, PROMPTS, ROUNDS = 7, 3, 9


class Wavers:
    """An engine whose model answers one half of the questions rightly now and then, and the others never."""

    usage = Usage()

    def run(self, params, requests, seed):
        for request in requests:
            right = int(request.id.removeprefix("q")) % 2
            yield [Completion(request, i, "9" if right and i else "8", [1], [0.0], "stop") for i in request.samples]


def config(epochs: int) -> RlConfig:
    tree = {
        "questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": {"max_new_tokens": 8}, "optimizer": {"learning_rate": 1e-2},
        "batching": {"row_tokens": 32, "micro_rows": 2}, "steps": ROUNDS, "prompts": PROMPTS, "group": 2, "updates": 3, "epochs": epochs,
    }  # fmt: skip
    return RlConfig.model_validate(tree)


def asked(directory, log: list[dict], epochs: int, refills: int) -> list[list[list[str]]]:
    """The questions of each piece of each round behind those of the log, asked by a process that knows nothing but the log."""
    questions = [Question(id=f"q{i}", question="What is 4 + 5?", answer="9", extraction="number") for i in range(QUESTIONS)]
    prompts = [Prompt(question, question.id, (10, 11 + i)) for i, question in enumerate(questions)]
    rounds = []
    with Display(quiet=True).task("rl", 0) as task:
        live = Live(config(epochs), prompts, Wavers(), Judges(), arm="rl", directory=directory, refills=refills, task=task)
        log = list(log)
        for step in range(len(log), ROUNDS):
            round_ = live.draw(step, {}, sum(row["refills"] for row in log))
            log.append({"refills": len(round_.pieces) - 1})
            rounds.append([[prompt.id for prompt in piece] for piece, _ in round_.pieces])
    return rounds


@pytest.mark.parametrize(("epochs", "refills"), [(1, 0), (2, 0), (2, 2)])
def test_a_training_that_goes_on_asks_what_it_would_have_asked(tmp_path, epochs, refills):
    whole = asked(tmp_path / "whole", [], epochs, refills)
    assert all(len(set(piece)) == PROMPTS for pieces in whole for piece in pieces)
    assert any(len(pieces) > 1 for pieces in whole) == bool(refills)
    order = [question for pieces in whole for piece in pieces for question in piece]
    passes = [order[first : first + 2 * PROMPTS] for first in range(0, len(order), 2 * PROMPTS)]
    assert len(set(map(tuple, passes))) == len(passes) > 3, "each pass is shuffled anew, and nothing of it is skipped or asked twice"
    for stopped in range(ROUNDS):
        random.seed(stopped)
        log = [{"refills": len(pieces) - 1} for pieces in whole[:stopped]]
        assert asked(tmp_path / str(stopped), log, epochs, refills) == whole[stopped:]
