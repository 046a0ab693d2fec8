"""Whether an answer is the gold answer: the policy, type by type."""

import pytest

from jaxpolya.verify.expression import TooLarge
from jaxpolya.verify.math import MAX_ANSWER, equal

RIGHT = [
    # numbers
    ("42", "42"), ("42", "42."), ("42", "42.0"), ("42", " $42$ "), ("42", r"\(42\)"), ("42", r"\boxed{42}"), ("42", "x = 42"),
    ("42", "+42"),
    ("1234567", "1,234,567"), ("1234", r"1,\!234"), ("1234", "1{,}234"), ("1000", "1 000"), ("-3", "−3"), ("27.0", "27"),
    ("0.5", r"\frac12"), ("1/2", "0.5"), (r"\frac{1}{2}", "2/4"), ("2/(-3)", "-2/3"), (r"11\frac{1}{2}", "11.5"), ("2.5", "2 1/2"),
    (r"-2\frac12", "-5/2"), ("1024", "2^{10}"), ("300000", r"3 \times 10^5"), ("300000", "3e5"), ("10", "9+1"), ("051", r"\textbf{(51)}"),
    ("1000.99", "1000,99"), (r"2.\overline{3}", "2.33"), (r"2.\overline{3}", r"\frac73"), (r"0.1\overline{6}", "1/6"),
    # decimals for exact values
    (r"\frac13", "0.333333"), (r"\sqrt2", "1.414214"), ("3.14159265", "3.141593"), ("7.78", "70/9"),
    # percents, money, units
    (r"50\%", "50"), (r"50\%", "0.5"), (r"50\%", r"50\%"), ("0.5", r"50\%"), ("5", r"\$5"), (r"\$1,234.50", "1234.50"), ("90", r"90^\circ"),
    ("64", "64 square feet"), (r"12 \text{ gm}", "12 GM"), (r"15\mbox{ cm}^2", "15"), ("5 feet", "5 ft"),
    (r"164\pi\mbox{ square feet}", r"164\pi"),
    (r"\approx 8.24 \text{ mph}", "8.24"), ("125 miles", r"125\text{ miles}"),
    # structures
    ("(1,2)", "(1, 2)"), ("(1,2)", "1,2"), (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"), ("1,2", "2,1"), (r"\{1,2\}", r"\{2,1\}"),
    (r"\{1,2\}", "2, 1"), ("1,2", r"\{1,2\}"), (r"1 \pm \sqrt2", r"1-\sqrt2, 1+\sqrt2"), ("[0,1)", r"\left[0,1\right)"), ("6", "6, 6"),
    (r"(-\infty,0)\cup(1,2]", r"(1,2]\cup(-\infty,0)"), (r"[-5,1]\cup[3,9]", r"-5\le x\le 1 or 3\le x\le 9"), (r"x \geq 2", r"[2,\infty)"),
    ("(0,1)", "0<f(x)<1"), (r"x\in[1,2]", "[1,2]"), ("1:2", "2:4"), ("1:2", r"\frac12"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\begin{pmatrix}1/2&0\\0&1\end{pmatrix}", r"\left[\begin{array}{cc}0.5&0\\0&1\end{array}\right]"),
    (r"\begin{pmatrix}6&8\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}5&6\end{pmatrix}"),
    ("(1,7,103, 105), (3,5,101,107)", "(3,5,101,107), (1,7,103,105)"), ("n=2,3", "2,3"), ("a=1, b=2", "b=2, a=1"),
    (r"6, 8\text{, and }10", "6,8,10"),
    # expressions and relations
    ("x^2+2x+1", "(x+1)^2"), (r"18\sqrt{3}", r"\sqrt{972}"), (r"\tan^2 y+1", r"\sec^2 y"), (r"2\sin b\cos a", r"\sin(a+b)-\sin(a-b)"),
    (r"\frac94\pi", r"\frac{9\pi}{4}"), (r"5-12i", "-12i+5"), ("2x+3y=6", "4x+6y=12"), ("y=2x+3", "2x-y=-3"), (r"x\le 5", r"5 \ge x"),
    ("x<1", "-x>-1"),
    ("f(x)=x^2", "x^2"), ("k=1", "1"),
    # words and letters
    (r"\text{Monday}", "monday"), (r"\text{(C)}", "C"), ("A", "a"), ("B", r"\text{B}"), ("answer", "an answer"), (r"\text{A, B}", "A,B"),
    ("odd", r"\text{Odd}"),
    (r"204_5", "204_{5}"), (r"204_5", "204"),
]  # fmt: skip

WRONG = [
    ("42", "43"), ("42", "-42"), ("42", ""), ("42", "42, 43"), ("42", "42 or 43"), ("42", r"42\%"), ("5", r"5\%"), ("42", "42.0004"),
    ("42", "42x"), ("42", "x"),
    ("32349", "32, 349"), ("0", "0.0000001"), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac13", "0.33"),
    ("306956.63", "306956.61"), ("3.14", "3.15"), ("42", "41 = 42"), (r"0.56 = 56\%", r"0.56 = 66\%"), (r"2^{10}", "1024.0001"),
    ("145.0", "4351/30"), (r"\frac12", r"\frac21"), ("12", "1,2"), ("5 cents", r"\$5"),
    ("5 feet", "5 inches"),
    ("5 x", "5"), ("3ab", "3"), ("2.\\overline{3}", "2.4"), ("-37_8", "-37_5"), ("1112112_3", "1112122_3"), ("12:00", "1:00"),
    ("2^{4950}", r"\frac{\pi}{2}"),
    ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), ("[1,4]", "(1,4)"), ("(0,1)", "(0,1.5)"), ("[-36,104]", "(-36,104)"), ("1,2,3", "1,2"),
    ("1,2", "1,2,3"),
    (r"\pm 2021", "2021"), (r"\{1,2\}", r"\{1,3\}"), ("2:4", "1:3"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("n=2,3,4", "n=1,2,3"), (r"x \geq 2", r"(2,\infty)"), ("x > 5", "x < 5"), ("x<1", "x>-1"), (r"(1,2)\cup(3,4)", "(1,2)"),
    ("x^2+2x+1", "y^2+2y+1"), ("x^2-5", "x^2-5=0"), ("x^2-5", "x^2-5+1"), (r"1-\frac1e", r"1+\frac1e"),
    (r"1-\frac1e", r"1+\frac{1}{\mathrm{e}}"), ("i", "-i"),
    ("|x|", "x"), ("a+3z=0", "0"), ("7=11a+c", "11a+c"), ("2x+z=1", "1"), ("2x+3y=6", "4x+6y=13"), ("3x+4y+14=0", "3x-y+13=0"),
    ("f(x)", "f(y)"),
    ("5x", "5"), (r"\text{Monday}", "Tuesday"), ("A", "B"), ("C", "A or C"), (r"\text{even}", "odd or even"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold, answer):
    assert equal(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold, answer):
    assert not equal(gold, answer)


@pytest.mark.parametrize("answer", [right for _, right in RIGHT] + [gold for gold, _ in RIGHT])
def test_every_answer_is_itself(answer):
    assert equal(answer, answer)


@pytest.mark.parametrize(
    "answer",
    ["2^{10000000}", "10^{10^{10}}", "1000000000!", r"\binom{10^9}{5}", "(" * 1000 + "1" + ")" * 1000, "9**9**9**9", "1" * (MAX_ANSWER + 1),
     "+".join("1" for _ in range(900)), ",".join("1" for _ in range(900)), r"\sqrt{" * 200 + "2" + "}" * 200],
)  # fmt: skip
def test_what_costs_too_much_is_refused(answer):
    with pytest.raises(TooLarge):
        equal("42", answer)


def test_digits_say_how_well_a_decimal_must_agree():
    assert equal(r"\frac13", "0.33", digits=2)
    assert not equal(r"\frac13", "0.34", digits=2)
