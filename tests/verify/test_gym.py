"""reasoning-gym's scorers, and what they are kept from."""

import json

import pytest
import reasoning_gym

from jaxpolya.verify import gym
from jaxpolya.verify.expression import TooLarge

NAMES = ["countdown", "polynomial_multiplication", "simple_integration", "intermediate_integration", "n_queens", "spiral_matrix",
"string_insertion",
         "binary_matrix", "basic_arithmetic", "chain_sum", "leg_counting", "propositional_logic", "word_sorting"]  # fmt: skip


def entries(name: str, size: int = 4) -> list[dict]:
    """Entries as they come back from a file."""
    return json.loads(json.dumps([entry for entry in reasoning_gym.create_dataset(name, size=size, seed=3)], default=str))


@pytest.mark.parametrize("name", NAMES)
def test_the_right_answer_is_right_and_another_is_not(name):
    for entry in entries(name):
        if entry["answer"] and "Integral" not in entry["answer"]:  # what sympy could not integrate can't be answered either
            assert gym.correct(entry["answer"], entry)
            assert gym.correct(f"${entry['answer']}$", entry)
        assert not gym.correct("no idea", entry)
        assert not gym.correct("", entry)


@pytest.mark.parametrize("name", sorted(gym._LITERALS | gym._FORMULAS - {"puzzle24"}))
def test_python_in_an_answer_is_never_run(name, tmp_path):
    mark = tmp_path / "ran"
    for attack in (
        f"open({str(mark)!r}, 'w')",
        f"[open({str(mark)!r}, 'w')]",
        f"__import__('os').system('touch {mark}')",
        "().__class__",
        "lambda: 1",
    ):
        assert not gym.correct(attack, entries(name, 1)[0])
    assert not mark.exists()


def test_a_power_that_can_not_be_computed_is_refused():
    with pytest.raises(TooLarge):
        gym.correct("9**9**9**9", entries("countdown", 1)[0])


@pytest.mark.parametrize(
    "entry", [{}, {"metadata": {}}, {"metadata": {"source_dataset": "nosuch"}}, {"metadata": {"source_dataset": "chain_sum"}}]
)
def test_broken_entries_are_ours(entry):
    with pytest.raises(gym.BrokenEntry):
        gym.correct("1", entry)
