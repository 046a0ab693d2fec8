"""Rewards of one's own: partial credit, form and length for one response, and brevity within a group.

    jaxpolya run configs/quickstart.yaml --set rl.reward=examples/shaped_reward.py:shaped

What a right response is paid here is always more than what a wrong one can get; the audit of rewards would say where it isn't.
"""

from jaxpolya.records import Finish, Question, Verdict


def shaped(question: Question, response: str, verdict: Verdict, length: int, finish: Finish) -> float:
    """The verdict's pay (a score, where its verifier gives one), 0.1 for a box, and up to 0.2 off for 1,000 tokens or more."""
    reward = verdict.reward or 0.0
    if "\\boxed{" in response and finish == "stop":
        reward += 0.1
    return reward - 0.2 * min(length / 1000, 1.0)


def briefest(verdicts: list[Verdict], lengths: list[int]) -> list[float]:
    """1 for right responses, and half as much again for the shortest of them; a group is all responses to one question."""
    right = [length for verdict, length in zip(verdicts, lengths, strict=True) if verdict.verdict == "correct"]
    return [
        (1.5 if length == min(right) else 1.0) if verdict.verdict == "correct" else 0.0
        for verdict, length in zip(verdicts, lengths, strict=True)
    ]
