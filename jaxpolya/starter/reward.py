"""What a response is paid in RL: edit this, and the next run trains on it (docs/extending.md).

A function may ask for any of question, response, verdict, length (in tokens) and finish ("stop", or "length" where it was cut off).
A right answer should always be paid more than a wrong one: RL finds whatever else is.
"""

from jaxpolya.records import Finish, Verdict


def reward(verdict: Verdict, finish: Finish) -> float:
    """1 for a right answer, and a tenth for a response that came to its end."""
    right = 1.0 if verdict.verdict == "correct" else 0.0
    return right + (0.1 if finish == "stop" else 0.0)
