"""Which program a response gives, for the tests that will judge it."""

import pytest
from growth import assert_linear

from jaxpolya.verify.programs.blocks import extract, readings


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("Here:\n```python\na = 1\n```\nDone.", "a = 1"),
        ("```py\na = 1\n```\nbetter:\n```python\na = 2\n```\nprints\n```\n2\n```", "a = 2"),
        ("```\na = 1\n```", "a = 1"),
        ("```bash\npip install x\n```", None),
        ("```python\n    return 1\n```", "    return 1"),
        ("~~~python\na = '''\n```\n'''\n~~~", "a = '''\n```\n'''"),
        ("````python\na = '```'\n````", "a = '```'"),
        ("  1. so\n   ```Python title=x\r\na = 1\r\n   ```\r\n", "a = 1"),
        ("    return 1", "    return 1"),
        ("<think>```python\na = 1\n```</think>\n    return 2<|im_end|>\nmore", "    return 2"),
        ("<think>```python\na = 1\n```", None),
        ("```python\na = 1\n```\n```python\na = ", None),
        ("```python\n\n```", None),
        ("", None),
    ],
)
def test_extraction(response, program):
    assert extract(response) == program


DOUBLE = "def double(x):\n    return 2 * x"
FENCED = f"```python\n{DOUBLE}\n```\n"


def test_fences_may_be_written_in_many_ways():
    for before, margin, after in (
        ("1. so\n\n    ```python", "    ", "    ```"), ("- so\n\n  ```python", "  ", "  ```"), ("- ```python", "  ", "  ```"),
        ("12) ~~~py", "    ", "~~~"), ("> ```python", "> ", "> ```"), ("> - ```python", ">   ", ">   ```"),
        ("\t```Python3", "\t", "\t```"),
        ("```{.python .numberLines}", "", "```"), ("``` python", "", "```"), ("```python:main.py", "", "```"),
        ("```py3.11 title=x", "", "```"),
        ("```", "", "```"), ("````", "", "`````  "),
    ):  # fmt: skip
        body = "\n".join(margin + line for line in DOUBLE.split("\n"))
        for tail in ("", "\nThat is it.\n"):
            assert extract(f"{before}\n{body}\n{after}{tail}", {"double"}) == DOUBLE, before


def test_a_fence_within_a_text_of_the_program_ends_nothing():
    program = 'def double(x):\n    """\n    ```\n    double(2)\n    ```\n    """\n    return 2 * x'
    assert extract(f"```python\n{program}\n```", {"double"}) == program


@pytest.mark.parametrize(
    "after",
    [
        "```python\nprint(double(5))  # 10\n```", "```python\nassert double(3) == 6\n```", "```\n10\n```", "```text\n4\n```",
        "```python\n>>> double(4)\n8\n```",
        "```pycon\n>>> double(4)\n8\n```",
        "```python\nfrom solution import double\nprint(double(5))\n```",
        "```python\nimport unittest\n\nclass Test(unittest.TestCase):\n    def test(self):\n        self.assertEqual(double(1), 2)\n```",
        "```python\ndef test_double():\n    assert double(2) == 4\n```", "```bash\npython double.py\n```", "```\nComplexity: O(1)\n```",
        "```cpp\nint double(int x) { return 2 * x; }\n```", "```python\nresult = double(3)\nprint(result)\n```",
    ],
)  # fmt: skip
def test_demonstrations_tests_and_outputs_are_no_programs(after):
    assert extract(f"{FENCED}So:\n{after}\n", {"double"}) == DOUBLE


def test_the_last_definition_counts():
    assert extract(f"```python\ndef double(x):\n    return x\n```\nbetter:\n{FENCED}", {"double"}) == DOUBLE
    assert extract(f"```python\ndouble = lambda x: x\n```\n{FENCED}", {"double"}) == DOUBLE
    assert extract(f"{FENCED}or\n```python\ndouble: object = lambda x: x + x\n```", {"double"}) == "double: object = lambda x: x + x"


def test_blocks_that_need_each_other_come_together():
    imports, helper, main = "import math as m", "def half(x):\n    return x / 2", "def area(r):\n    return m.pi * half(2 * r) ** 2"
    fenced = "and\n".join(f"```python\n{part}\n```\n" for part in (imports, "result = 1 / 0", helper, main, "print(area(1))"))
    assert extract(fenced, {"area"}) == f"{imports}\n\n{helper}\n\n{main}"
    assert extract(fenced, {"area", "half"}) == f"{imports}\n\n{helper}\n\n{main}"
    unrelated = "```python\nresult = nosuch()\n```\n```python\ndef f(x, y=1):\n    result = y\n    return result\n```"
    assert extract(unrelated, {"f"}).startswith("def f")


@pytest.mark.parametrize(
    "response",
    [
        f"[BEGIN]\n{DOUBLE}\n[DONE]", f"[PYTHON]\n{DOUBLE}\n[/PYTHON]", f"<answer>{DOUBLE}</answer>", f"<code>\n{DOUBLE}\n</code>\n",
        f"````markdown\n# So\n{FENCED}````", ">>> def double(x):\n...     return 2 * x\n...",
        f"{FENCED}as you asked:\n```python\ndef double(x):  # this\n    ...\n```",
    ],
)  # fmt: skip
def test_what_is_set_around_a_program_is_not_part_of_it(response):
    assert extract(response, {"double"}).strip() == DOUBLE


def test_what_was_typed_into_an_interpreter_is_a_program():
    session = "```python\n>>> def double(x):\n...     return 2 * x\n...\n>>> double(2)\n4\n```"
    assert extract(session, {"double"}) == "def double(x):\n    return 2 * x\n\ndouble(2)"


def test_code_without_fences_beside_fenced_output():
    response = f"{DOUBLE}\n\nIt prints\n```\n10\n```\n"
    assert extract(response, {"double"}).startswith(DOUBLE)
    assert f"{DOUBLE}\n" in readings(extract(response, {"double"}))


READ = "a, b = map(int, input().split())\nprint(a + b)"


@pytest.mark.parametrize(
    ("response", "program"),
    [
        (f"```python\n{READ}\n```\n```\nComplexity: O(1)\n```", READ),
        (f"```\n{READ}\n```\n```\n7\n```", READ),
        (f"```python\n{READ}\n```\nA check:\n```python\nprint(3 + 4)\n```", READ),
        (f"```python\n{READ}\n```\n```python\nassert add(3, 4) == 7\n```", READ),
        (f"```python\n{READ}\n```\nInput:\n```\n3 4\n```\nOutput:\n```\n7\n```", READ),
        (
            "```python\nprint(0)\n```\n```python\nprint(sum(map(int, open(0).read().split())))\n```",
            "print(sum(map(int, open(0).read().split())))",
        ),
        ("```python\ndef main():\n    print(input())\n```\n```python\nmain()\n```", "def main():\n    print(input())\n\nmain()"),
        (f"```python\n{READ}\n```\n```python\ndef helper(): pass\n```", READ),
    ],
)
def test_a_program_that_reads_and_prints_is_the_last_that_does_so(response, program):
    assert extract(response, reads=True) == program


def test_the_first_reading_is_the_program_itself():
    assert readings(DOUBLE) == [DOUBLE]
    assert readings(f"Sure:\n\n{DOUBLE}\n\nThis doubles x.\n[DONE]")[1:] == [
        f"{DOUBLE}\n\nThis doubles x.\n[DONE]", f"{DOUBLE}\n\nThis doubles x.", f"{DOUBLE}\n",
    ]  # fmt: skip
    assert f"{READ}\n" in readings(f"So, in short:\n\n{READ}\n\nDone.")
    assert readings("    x = 1\n    print(x)")[1] == "x = 1\nprint(x)"


def test_extraction_is_linear():
    pieces = [
        "```", "```\n", "``` ", "```python\n", "~~~ \t", "`", "> ", ">", "- ", "a:", "a,", "a", "a=", "for ", "def f(", "import (",
        "import a as ", "\n ", "(", "    \n", "def f():\n", "x = f(\n", ">>> ", "```\nf = 1\n```\n",
        "```python\nprint(input())\n```\n", "\n\na b",
    ]  # fmt: skip
    for piece in pieces:
        for frame in ("{}", "```python\n{}\n```", "```\ndef f(): pass\n```\n```\n{}\n```\n"):
            for wanted in ({"names": {"f", "g"}}, {"reads": True}):

                def read(size, piece=piece, frame=frame, wanted=wanted):
                    program = extract(frame.format(piece * (size // len(piece))), **wanted)
                    return program and readings(program)

                assert_linear(read, 50_000, (piece, frame, wanted))
