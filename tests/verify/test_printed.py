"""Printed output, compared as judges of programs do."""

import pytest

from jaxpolya.verify.programs.printed import same


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("7\n", "7"), ("7", "7\n\n"), ("7  \r\n", "7\n"), ("1  2   3", "1 2 3"), ("  7", "7"), ("1 2", "1\t2"), ("1 2", "1  2"),
        ("2.500000", "2.5"), ("2.5", "2.50"), ("0.30000000000000004", "0.3"), ("3.0", "3"), ("2", "2.0"),
        ("1e-3", "0.001"), ("1e6", "1000000.0"),
        ("0.0000001", "0.0"), ("1000000.5", "1000000.0"), ("[0.1, 0.30000000000000004]", "[0.1, 0.3]"), ("$2.5", "$2.50"), ("-0.0", "0.0"),
        ("Case #1: 0.333333333", "Case #1: 0.3333333"), ("", "\n"), ("a b", "a b"), (".5", "0.5"),
    ],
)  # fmt: skip
def test_the_same(printed, expected):
    assert same(printed, expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("2.6", "2.5"), ("2.50001", "2.5"), ("YES", "Yes"), ("\n7", "7"), ("1\n2", "1 2"), ("1 2", "1\n2"), ("12", "1 2"), ("7 8", "7"),
        ("", "7"),
        ("1000000008", "1000000007"), ("1e9", "1000000000"), ("3.0000001", "3"), ("7", "007"), ("+7", "7"), ("1_0", "10"), ("nan", "2.5"),
        ("inf", "1e999"), ("1e999", "1.5e300"), ("[2.5)", "[2.5]"), ("1.2.30", "1.2.3"), ("a\n\nb", "a\nb"), ("٣.٥", "3.5"),
        ("*\n***", " *\n***"), (" *\n ***", " *\n***"), ("a b", "a  b"),
    ],
)  # fmt: skip
def test_not_the_same(printed, expected):
    assert not same(printed, expected)


def test_exactly():
    assert same("2.5 \n", "2.5", exact=True)
    assert not same("2.50", "2.5", exact=True) and not same("1  2", "1 2", exact=True)
