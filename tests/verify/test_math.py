"""Whether an answer is the gold answer: the policy, type by type."""

import contextlib

import pytest

from jaxpolya.verify.mathematics.compare import MAX_ANSWER, NOT_EVALUATED, RESTATES, equal, judge
from jaxpolya.verify.mathematics.expression import TooLarge

RIGHT = [
    # numbers
    ("42", "42"), ("42", "42."), ("42", "42.0"), ("42", " $42$ "), ("42", r"\(42\)"), ("42", r"\boxed{42}"), ("42", "x = 42"),
    ("42", "+42"),
    ("1234567", "1,234,567"), ("1234", r"1,\!234"), ("1234", "1{,}234"), ("1000", "1 000"), ("-3", "−3"), ("27.0", "27"),
    ("0.5", r"\frac12"), ("1/2", "0.5"), (r"\frac{1}{2}", "2/4"), ("2/(-3)", "-2/3"), (r"11\frac{1}{2}", "11.5"), ("2.5", "2 1/2"),
    (r"-2\frac12", "-5/2"), ("300000", r"3 \times 10^5"), ("300000", "3e5"), ("051", r"\textbf{(51)}"),
    ("1000.99", "1000,99"), (r"2.\overline{3}", "2.33"), (r"2.\overline{3}", r"\frac73"), (r"0.1\overline{6}", "1/6"),
    # decimals for exact values
    (r"\frac13", "0.333333"), (r"\sqrt2", "1.414214"), ("3.14159265", "3.141593"), ("7.78", "70/9"),
    ("3000000", r"\$3 million"), ("12", "twelve"), ("205", "two hundred and five"), ("12", "twelve apples"), (r"\frac34", "three quarters"),
    ("7", "7th"), ("1234567", "1'234'567"), ("1234.5", "1.234,5"), ("123456", "1,23,456"), ("12345.678", "12 345.678"), ("20", "=20"),
    ("0.00002", "2 x 10^-5"), ("100000", "10⁵"), ("40", r"\large 40"), ("17", r"17 \pmod{29}"), ("3.5", "3 ½"), ("8", "(8)"),
    ("45", "45 km/h"), ("45 mph", "45 miles per hour"), (r"\sqrt{51}", "√51"), ("M^2", "(M)^2"), (r"\text{(B)}", r"\text{(B) } 42"),
    ("0x4f", "0x4F"),
    # alphabets, fonts, signs of Unicode
    ("45", "𝟒𝟓"), ("45", "４５"), ("-45", "－45"), (r"\frac38", "⅜"), ("45", r"\color{blue}{45}"), ("45", r"\texttt{45}"),
    ("45", r"{\bf 45}"),
    ("45", r"45\ \checkmark"), ("45", "45\u200b"), ("(4,5)", "⟨4,5⟩"), (r"\sin\theta", "sin θ"), (r"\frac37", r"{3 \over 7}"),
    ("45", r"\text{45 metres}"),
    ("75", r"\text{seventy-five}"), ("-45", "negative 45"), (r"\emptyset", r"\{\}"), ("4:7", r"4 \text{ to } 7"), ("120", "5! = 120 ways"),
    # repeating decimals and bases
    (r"\frac56", r"0.8\overline{3}"), (r"\frac{7}{11}", r"0.\dot{6}\dot{3}"), ("1", r"0.\overline{9}"), (r"\frac16", r"0.1666\ldots"),
    (r"\frac{4}{33}", "0.1212..."), (r"16\frac23\%", r"16.\overline{6}\%"), ("(2, 1/9)", r"(2, 0.\overline{1})"),
    ("302_4", r"302_{\text{four}}"), ("302_4", "(302)_4"), ("302", "302_4"), ("302_4", "302 (base 4)"), ("302_4", r"50_{10} = 302_4"),
    ("7F_{16}", r"7\text{F}_{16}"),
    # times
    ("7:05", "7:05 PM"), ("3:00 p.m.", "3 PM"), ("3:00 p.m.", "15:00"), (r"11:20", r"11\!:\!20"), ("9", "9 AM"),
    # units
    ("6", "6 oz"), ("6", "6 mL"), ("6", "6 L"), ("6", "6 m/s"), ("6", "6 men"), ("6", "6 yrs"), ("36.6", "36.6 °C"), ("6", "Rs 6"),
    ("6", "6 km/h"),
    ("6", r"6\ \mathrm{cm}"), ("6", "¥6"), ("6", r"\$6 per day"), ("6", "6 (six)"),
    ("6", r"\(6\) goats"), ("0.0002", r"2 \times 10^{-4} \mathrm{N}"),
    # degrees
    (r"\cos 30^\circ", r"\frac{\sqrt3}{2}"), (r"3\sin 20^\circ", r"3\cos 70^\circ"),
    # percents, money, units
    (r"30\%", "30 per cent"), (r"30\%", "30 percent of the goats"),
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
    (r"\emptyset", r"\varnothing"), ("(3,8]", "]3,8]"), (r"(-\infty,4)\cup(4,\infty)", r"x \ne 4"), ("(2,7)", "2<x and x<7"),
    (r"(-\infty,4)\cup(4,\infty)", r"\mathbb{R} \setminus \{4\}"), (r"(-\infty,\infty)", r"\mathbb{R}"),
    ("[2,7)", r"\{x \mid 2 \le x < 7\}"),
    (r"(-\infty,0) \cup (1,\infty)", r"(-\infty,0) U (1,\infty)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\mathbf{v} = \begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}2&4\end{pmatrix}", r"2\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}^T"),
    # expressions and relations
    ("x^2+2x+1", "(x+1)^2"), (r"18\sqrt{3}", r"\sqrt{972}"), (r"\tan^2 y+1", r"\sec^2 y"), (r"2\sin b\cos a", r"\sin(a+b)-\sin(a-b)"),
    (r"\frac94\pi", r"\frac{9\pi}{4}"), (r"5-12i", "-12i+5"), ("2x+3y=6", "4x+6y=12"), ("y=2x+3", "2x-y=-3"), (r"x\le 5", r"5 \ge x"),
    ("x<1", "-x>-1"),
    ("f(x)=x^2", "x^2"), ("k=1", "1"),
    # words and letters
    (r"\text{Monday}", "monday"), (r"\text{(C)}", "C"), ("A", "a"), ("B", r"\text{B}"), ("answer", "an answer"), (r"\text{A, B}", "A,B"),
    ("odd", r"\text{Odd}"),
    (r"204_5", "204_{5}"), (r"204_5", "204"), (r"\text{does not exist}", "DNE"), ("42", r"\text{(B) } 42"), ("B", r"\textbf{(B)}\ 42"),
    ("B", "Option B"), (r"\text{(C)}", "(c)"),
]  # fmt: skip

WRONG = [
    # words and powers that change what stands before them
    ("45", r"45\text{ plus one}"), ("45", r"45 \text{ is wrong}"), ("45", "45 (wrong)"), ("45", r"45\text{ ninths}"),
    ("45", r"45x\text{ kg}"),
    (r"45\text{ m}", r"45\text{ m}^2"), (r"45\text{ m/s}", r"45\text{ km/h}"), ("45", r"45 \approx 700"), (r"5\pmod{11}", r"5\pmod{7}"),
    # a letter with another one, or with arithmetic
    (r"\text{(B)}", r"\text{(B) or (C)}"), (r"\text{(B)}", "(B), (C)"), (r"\text{(B)}", r"\text{(B)}\text{ is wrong}"), ("B", "(B)+1"),
    ("-3", "(A)-3"),
    (r"\sqrt5", "√51"), ("0", "0x4f"), ("0x4f", "0"), (r"\frac{dx}{dt}=kx", r"\text{not }\frac{dx}{dt}=kx"),
    (r"\cos(xyz)=x^{50}+y^{50}", r"\sin(xyz)=x^{50}+y^{50}"),
    ("45", "45 factorial"), ("45", "45 and a half"), (r"45\text{ cm}^3", r"45\text{ cm}^2"), ("x'", "x''"), ("2<x<5", "2,5"),
    ("(2,3)", "y=2,x=3"),
    # blanks, factorials, times
    ("51/2", "5 1/2"), ("34", "3 4"), ("34", "3~4"), ("34", r"3\;4"), ("1/25", "1/2 5"), (r"3\cdot 4!", "12"), ("12", r"3 \cdot 4!"),
    ("4", "n = 4!"),
    ("11:40", "5:50"), ("2:20", "1:10"), ("1:30", "2:60"), ("5:40", "0.125"), ("8:15 AM", "8:15 PM"), ("25", "6:25"),
    # degrees and radians
    (r"\tan 40^\circ", r"\tan 40"), (r"\sin 10", r"\sin 10^\circ"),
    # percents in words
    ("30", "30 percent of the goats"), ("30", "30 per cent"), ("30", r"30\% of the goats"),
    # an operation in words is no unit
    ("7", "7 squared"), ("7", "7 factorial"), ("7", "7 plus"),
    # digits in a base are no value
    ("50", "302_4"), ("302_4", "302_5"), ("3", "3 million"),
    ("42", "43"), ("42", "-42"), ("42", ""), ("42", "42, 43"), ("42", "42 or 43"), ("42", r"42\%"), ("5", r"5\%"), ("42", "42.0004"),
    ("42", "42x"), ("42", "x"),
    ("32349", "32, 349"), ("0", "0.0000001"), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac13", "0.33"),
    ("306956.63", "306956.61"), ("3.14", "3.15"), ("42", "41 = 42"), (r"0.56 = 56\%", r"0.56 = 66\%"), (r"2^{10}", "1024.0001"),
    ("145.0", "4351/30"), (r"\frac12", r"\frac21"), ("12", "1,2"), ("5 cents", r"\$5"),
    ("5 feet", "5 inches"),
    ("5 x", "5"), ("3ab", "3"), ("2.\\overline{3}", "2.4"), ("-37_8", "-37_5"), ("99.9", "100"), ("1", "1 = 1"), ("1", "x = 4 = 1"),
    ("8", "3 = 5 = 8"), ("0.01", "1.0/100.0"), ("4", "4_2"), (r"\text{(C)}", "z = c"),
    (r"\text{(C)}", r"c\%"), ("C", "A or C"), ("7.77", "70/9"),
    ("1112112_3", "1112122_3"), ("12:00", "1:00"),
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
        judge("42", answer, unevaluated="accept")
    with contextlib.suppress(TooLarge):
        assert judge("42", answer) is not None


def test_digits_say_how_well_a_decimal_must_agree():
    assert equal(r"\frac13", "0.33", digits=2)
    assert not equal(r"\frac13", "0.34", digits=2)


def test_a_percent_sign_is_a_unit_where_the_style_says_so():
    assert judge("45", r"45\%", percent_is_unit=True) is None
    assert judge("45", r"45\%") == ""
    assert judge("45", "4500%", percent_is_unit=True) == ""


# (question, gold, answer): equal, and not worked out.
UNEVALUATED = [
    (r"Simplify $\frac{\sqrt{48}}{2}$.", r"2\sqrt3", r"\frac12\sqrt{48}"), ("Write 3.2e-4 as a decimal.", "0.00032", r"3.2\times10^{-4}"),
    (r"Write $\log_2 3$ with natural logarithms.", r"\frac{\ln3}{\ln2}", r"\log_2 3"), ("", "1+6i", "1+2 3i"),
    # numbers side by side, nothing added or multiplied, complex numbers, another grouping of factors
    ("", r"9\pi", r"\pi 3^2"), ("", r"6\sqrt2", r"6\sqrt2+0"), ("", r"6\sqrt2", r"1 \cdot 6\sqrt2"), ("", r"6\sqrt2", r"|6\sqrt2|"),
    ("", "7i", "3i+4i"),
    ("", "3+4i", "(2+i)^2"), ("", r"2^2\cdot3\cdot5", r"2^2\cdot15"), ("", r"\frac37", r"3 \div 7"), ("", "2:3", "(1+1):3"),
    # roots as powers, bounds and sides turned round
    (r"Simplify $\sqrt{72}$.", r"6\sqrt2", r"\frac{2\sqrt{72}}{2}"), (r"Simplify $\sqrt{72}$.", r"6\sqrt2",
         r"\frac{10 \cdot \sqrt{72}}{10}"),
    (r"Simplify $\sqrt{72}$.", r"6\sqrt2", "72^{1/2}"), (r"Simplify $\sqrt{72}$.", r"6\sqrt2", r"\sqrt{72}^1"),
    (r"Write $x^{-2}$ with a positive exponent.", r"\frac{1}{x^2}", "x^{-2}"),
    (r"Write $x\ge 3$ as an interval.", r"[3,\infty)", r"3 \le x"),
    (r"Write $\sqrt[3]{x^2}$ with a rational exponent.", "x^{2/3}", r"\sqrt[3]{x^2}"),
    (r"Write $0.\overline{36}$ as a fraction.", r"\frac{4}{11}", r"0.\overline{36}"),
    (r"Solve $4x - 2y = -6$ for $y$.", "y=2x+3", r"\frac{4x+6}{2}"),
    # a numeral as gold takes a numeral
    ("", "1024", "2^{10}"), ("", "10", "9+1"), ("", "24", "4!"), ("", "6", r"\binom{4}{2}"), ("", "3", r"\sqrt{9}"), ("", "4", "|-4|"),
    ("", "12", r"3 \cdot 4"), ("", "12", "x = 3 * 4"), ("", "12", "12 = 3 * 4"), ("", "0.5", r"\sin 30^\circ"), ("", "3", r"\log_2 8"),
    ("", "(5, 6)", "(2+3, 6)"), ("", "1, 4", "1, 2^2"), ("", r"\{2,3\}", r"\{1+1, 3\}"), ("", "[0, 8]", "[0, 2^3]"),
    ("", "x > 6", "x > 2*3"),
    ("", r"\frac12", r"\frac{1}{1+1}"), ("", "2.5", r"\frac{1.5+1}{1}"), ("", "25%", "(20+5)%"), ("", r"\$12", r"\$3 * 4"),
    ("", "12 cm", "3*4 cm"),
    ("", "2", r"\frac{1}{\frac12}"), ("", "-1", "i^2"), ("", "7", "0+7"), ("", "7", "7 * 1"),
    # other golds take no arithmetic that they don't hold
    ("", r"6\pi", r"2 \cdot 3\pi"), ("", r"6\pi", r"2\pi \cdot 3"), ("", r"9\pi", r"3^2\pi"), ("", r"2\sqrt{5}", r"\sqrt{4 \cdot 5}"),
    ("", "x + 7", "x + 3 + 4"), ("", "x + 7", "3 + x + 4"), ("", "6x", r"2x \cdot 3"), ("", "2k+2", "(3k-2)+(4-k)"),
    ("", r"\ln 8", r"\ln(2^3)"),
    ("", "2^{100}", r"2 \cdot 2^{99}"), ("", "y = 2x + 3", "y = 2x + 1 + 2"), ("", r"(6\pi, 1)", r"(2 \cdot 3\pi, 1)"),
    # a division of the question's numbers, as it stands or multiplied
    ("Share 12 pears among 4 children.", "3", "12/4"), ("Share 12 pears among four children.", "3", r"\frac{12}{4}"),
    ("Share 12 pears among 4 children.", "3", r"\frac{120}{40}"), ("Share 12 pears among 8 children.", "1.5", "12/8"),
    ("Share 12 pears among 8 children.", r"1\frac12", "-12/-8"), ("In what ratio are 6 red and 4 green pears?", "3:2", "6:4"),
    # the question's own numeral, which was to be written in another way
    (r"Write $\frac{3}{20}$ as a decimal.", "0.15", r"\frac{3}{20}"), ("Write 3/20 as a decimal.", "0.15", "3/20"),
    ("Write 45% as a decimal.", "0.45", r"45\%"),
    ("Write 0.15 as a fraction.", r"\frac{3}{20}", "0.15"), ("Express 0.45 as a percentage.", r"45\%", "0.45"),
    ("Write 9/2 as a mixed number.", r"4\frac12", "9/2"), (r"Write $4\frac12$ as a fraction.", "9/2", r"4\frac{1}{2}"),
    ("Write 4500 in scientific notation.", r"4.5 \times 10^3", "4500"),
    (r"Write $4.5 \times 10^3$ as an integer.", "4500", r"4.5 \times 10^{3}"),
    # an equation of the question behind a name
    ("Solve 78*y**2 = 0 for y.", "0", "f(x) = 78*y**2 = 0"),
    # a formula of the question
    (r"Simplify $\sqrt{12}$.", r"2\sqrt{3}", r"\sqrt{12}"), (r"Simplify $\frac{1}{\sqrt{3}}$.", r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"Expand $(x+1)(x-4)$.", "x^2-3x-4", "(x-4)(x+1)"), (r"Expand $(x+1)(x-4)$.", "x^2-3x-4", "x(x-3)-4"),
    ("Factor x^2 - 3x - 4.", "(x+1)(x-4)", "x^2-3x-4"), ("Factor x^2 - 3x - 4.", "(x+1)(x-4)", "-4-3x+x^2"),
    ("Simplify this expression: 3*(2*x + 4) - x", "5*x + 12", "3*(2*x + 4) - x"), ("Simplify 5y - 3y", "2y", "5y-3y"),
    (r"Solve $4x - 2y = -6$ for $y$.", "y=2x+3", "4x-2y=-6"), (r"Solve $4x - 2y = -6$ for $y$.", "y=2x+3", "2x-y=-3"),
    (r"Compute $2\begin{pmatrix}1&2\end{pmatrix}$", r"\begin{pmatrix}2&4\end{pmatrix}", r"2\begin{pmatrix}1&2\end{pmatrix}"),
    (r"Write $\frac{5}{1-2i}$ in the form $a+bi$.", "1+2i", r"\frac{5}{1-2i}"),
    (r"What is $\sin(a+b)-\sin(a-b)$?", r"2\cos a\sin b", r"\sin(a+b)-\sin(a-b)"),
]  # fmt: skip

# (question, gold, answer): right, though the question holds something like it.
WORKED_OUT = [
    ("If y = 5x and x = 2, what is y?", "10", "y = 5x = 10"), ("Solve x + 3 = 7.", "4", "x = 4"),
    ("A cup holds 1/2 litre.", r"\frac12", "0.5"), ("Add 0.25 and 1/4.", "0.5", "1/2"), ("Take 2/4.", "0.5", "1/2"),
    ("What is 9+1?", "10", "10"), ("Half of 3 is what?", r"\frac32", "1.5"), ("Half of 3 is what?", r"\frac32", r"1\frac12"),
    ("Which of 2/3 and 3/5 is larger?", "2/3", "2/3"), ("", "2^{100}", "2^{100}"), ("", r"\frac{1}{2^{99}}", "2^{-99}"),
    ("", "2^{10}", "1024"),
    ("", r"\frac{100!}{2^{50}}", r"\frac{100!}{2^{50}}"), ("", r"\frac{\sqrt3}{2}", r"\sin 60^\circ"),
    ("", r"\sin 60^\circ", r"\frac{\sqrt3}{2}"),
    ("", r"\cot x", r"\frac{\cos x}{\sin x}"), ("", r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}"), ("", r"18\sqrt3", r"\sqrt{972}"),
    ("", r"\frac12\ln 3", r"\ln\sqrt3"), ("", r"\frac{a+b}{2}", "0.5(a+b)"), ("", "x^2-4", "(x-2)(x+2)"), ("", "1000", "10^3"),
    (r"Is $\sqrt{53}$ or 7.2 larger?", r"\sqrt{53}", r"\sqrt{53}"), ("Does it point east or west?", r"\text{east}", "east"),
    (r"A root is $1+2i$. Which is the conjugate of $1-2i$?", "1+2i", "2i+1"), (r"Simplify $\sqrt{12}$.", r"2\sqrt{3}", r"\sqrt3 \cdot 2"),
    (r"Simplify $\sqrt{12}$.", r"2\sqrt{3}", r"\frac{6}{\sqrt3}"), ("Factor x^2 - 3x - 4.", "(x+1)(x-4)", "(x-4)(x+1)"),
    ("Factor x^2 - 3x - 4.", "(x+1)(x-4)", "(1+x)(x-4)"), ("Factor 4 - 3x - x^2.", "(1-x)(x+4)", "-(x-1)(x+4)"),
    (r"Expand $(x+1)(x-4)$.", "x^2-3x-4", "-4 - 3x + x^2"), (r"Solve $4x - 2y = -6$ for $y$.", "y=2x+3", "2x+3=y"),
    (r"Solve $4x - 2y = -6$ for $y$.", "y=2x+3", "y = 3 + 2x"), ("Line through (0,3) with slope 2?", "y=2x+3", "4x-2y=-6"),
    ("A circle has radius 3. What is its area?", r"9\pi", r"\pi \cdot 9"), ("", "97*49 = 4753", "4753"),
    ("What is 97*49?", "4753", "97*49 = 4753"),
    ("A recipe takes 2 cups for 6 people.", r"\frac13", "1/3"), ("Simplify the ratio 6:4.", "3:2", "3:2"),
    ("Write 6:4 in simplest form.", "3:2", "1.5:1"),
]  # fmt: skip


@pytest.mark.parametrize(("question", "gold", "answer"), UNEVALUATED)
def test_an_answer_must_be_worked_out(question, gold, answer):
    assert judge(gold, answer, question=question) in (NOT_EVALUATED, RESTATES)
    assert judge(gold, answer, question=question, unevaluated="accept") is None


@pytest.mark.parametrize(("question", "gold", "answer"), WORKED_OUT)
def test_what_is_worked_out_is_right_whatever_the_question_says(question, gold, answer):
    assert judge(gold, answer, question=question) is None


@pytest.mark.parametrize(
    ("question", "gold", "answer"),
    [("A clock shows", "6:10", "3:05"), ("", "2:40", "1:20"), ("The ratio of boys to girls is", "2:40", "1:21")],
)
def test_a_time_is_no_ratio(question, gold, answer):
    assert judge(gold, answer, question=question) is not None


def test_a_ratio_is_one_where_the_question_speaks_of_it():
    assert judge("2:15", "4:30", question="What is the ratio of cats to dogs?") is None


def test_the_numbers_of_a_drawing_are_not_the_questions():
    drawing = '[asy]\ndraw((0,0)--(1,0.5)); label("6/8", (0,0.75));\n[/asy]'
    assert judge(r"\frac{1}{2}", "0.5", question=f"What is the chance that two coins agree?\n{drawing}") is None
    assert judge(r"\frac{3}{4}", "6/8", question=f"Which part is shaded?\n{drawing}") is None


def test_a_row_of_numbers_is_no_product():
    for row in ("3 0 1 2 0 0", "0 1 0\n1 1 0", "2 3"):
        assert judge(row, row) is None and judge(row, f"${row}$") is None
        assert all(judge(row, answer) == "" for answer in ("0", "6", "x = 0", "0 0", r"\frac{0}{5}", "0\n0\n0"))
    assert judge("1 000", "1000") is None
