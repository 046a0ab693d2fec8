"""The small reader of closed forms, and its evaluator."""

from fractions import Fraction

import pytest

from jaxpolya.verify.mathematics.expression import TooLarge, Unreadable, evaluate, names, read, same


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/2", Fraction(1, 2)), (r"\frac12", Fraction(1, 2)), (r"\frac{1}{2}3x^0", None), ("2+3*4", Fraction(14)),
        ("-2^2", Fraction(-4)), ("2^{3^2}", Fraction(512)),
        ("2^-1", Fraction(1, 2)), ("3!", Fraction(6)), (r"\binom{5}{2}", Fraction(10)), (r"\sqrt{49}", Fraction(7)),
        (r"\sqrt[3]{27}", Fraction(3)),
        ("4^{3/2}", Fraction(8)), ("|3-5|", Fraction(2)), (r"2\frac13", Fraction(7, 3)), (r"2\frac{3}{2}", Fraction(3)),
        ("(2)(3)", Fraction(6)), ("2(3)", Fraction(6)),
        ("(-1)9", Fraction(-9)), ("1^{10^{30}}", Fraction(1)), ("8/2/2", Fraction(2)), (r"6\div 2", Fraction(3)), ("0^0", Fraction(1)),
    ],
)  # fmt: skip
def test_exact_values(text, value):
    if value is None:
        with pytest.raises(Unreadable):
            read(text)
    else:
        assert evaluate(read(text)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [(r"\sqrt2", 2**0.5), (r"\pi/4", 0.7853981633974483), (r"\sin 30^\circ", 0.5), (r"\log_2 8", 3), (r"\sin^2 1 + \cos^2 1", 1),
     (r"\ln e", 1), (r"\sqrt{-4}", 2j)],
)  # fmt: skip
def test_closed_forms(text, value):
    assert abs(complex(evaluate(read(text))) - value) < 1e-12


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "(1",
        "1)",
        "1 2",
        "f(x)",
        r"\foo",
        "1//2",
        "__import__('os')",
        "1=2",
        "x_",
        "\x00",
        r"\frac1",
        "--" * 3 + "1",
        "1/0",
        "0^{-1}",
    ],
)
def test_unreadable(text):
    with pytest.raises(Unreadable):
        evaluate(read(text), {"x": Fraction(1)})


def test_names():
    assert names(read(r"x_1 + \alpha y + e^{i\pi}")) == {"x_1", "alpha", "y"}


@pytest.mark.parametrize("text", ["2^{1000000}", "2" * 1001, "10^{999}^{999}", "3001!", "e^{10000}", "+".join("x" * 500)])
def test_too_large(text):
    with pytest.raises(TooLarge):
        evaluate(read(text), {"x": Fraction(1)})


def test_floats_leave_near_misses_to_others():
    assert same(read(r"\sqrt2\sqrt2"), read("2")) is True
    assert same(read(r"\sqrt2"), read(r"\sqrt2+10^{-9}")) is None
    assert same(read(r"\sqrt2"), read(r"\sqrt2+10^{-3}")) is False
    assert same(read(r"e^{-100}"), read("0")) is None
