"""Rollouts of one's own to train on: a function gives the records of each round, and nobody is asked.

    jaxpolya run configs/quickstart.yaml --set rl.replay=examples/my_rollouts.py:rounds --set rl.old_logprobs=trainer \
        --set rl.prompts=2 --set rl.group=2 --set rl.updates=1 --set rl.steps=2

Here they are worked out on the spot, for bytes as tokens; yours may come from another sampler, a log, or people. They must be tokens of the
model that is trained. As nobody knows with what chance they were drawn, the trainer's log-probs stand in (`rl.old_logprobs: trainer`).
"""

from collections.abc import Iterator
from typing import Any

QUESTIONS = ("What is 3 + 4?", "What is 2 + 6?")
RESPONSES = {"The answer is 7.": (1.0, 0.0), "The answer is 8.": (0.0, 1.0)}
"""A response, and what it is paid as an answer to each question."""


def rounds(step: int) -> Iterator[dict[str, Any]]:
    """The records of round `step`: those of a prompt are its group. A training that goes on after a kill asks for a round again."""
    for number, question in enumerate(QUESTIONS):
        for response, pays in RESPONSES.items():
            yield {
                "prompt": f"Question {step}: {question}\nAnswer:",  # or prompt_ids, or the question_id of one of rl.questions
                "token_ids": [1 + byte % 64 for byte in response.encode()][:16],
                "reward": pays[number],
                "finish": "stop",
            }
