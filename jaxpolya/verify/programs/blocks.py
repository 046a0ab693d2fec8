"""Which program a response gives: of its fenced blocks, those that a question's tests can run.

The last block is often no program but a demonstration, a test or the output. So a question whose tests call names takes the last block
that defines each of them, and a program that reads and prints is the last block that does so; blocks that these need (imports,
helpers) come along, in the response's order. Markdown is read as models write it: fences may be indented, stand in a list item or a
quotation, be of backticks or tildes, with or without a language; `>>>` examples are read as the code in them. A block that
never ends was cut off, and is no answer. Where nothing is fenced, the response itself is the program, with or without words around it.

This runs in the process that trains, on whatever a model wrote, so nothing here parses Python: names are found by regular expressions,
in linear time. Whether something compiles is found out in the sandbox, which tries the `readings` of a program in their order.
"""

import re
import textwrap
from collections.abc import Collection
from dataclasses import dataclass

from jaxpolya.verify.speech import after_thinking

MAX_SOURCE = 200_000
"""Characters of a program; nobody writes more by hand."""
MAX_READINGS = 24
MAX_BLOCKS = 32
"""Blocks that are looked at, from the last; nobody spreads a program over more."""

_OPENING = re.compile(r"(?P<lead>[ \t]*(?:>[ \t]*|(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)")
_PYTHON = re.compile(r"(?:python|py|ipython)[\d.]*")
_LANGUAGE = re.compile(r"[\s{.]*([\w+#-]*(?:\.\d+)*)")
_WRAPPERS = r"(?:answer|code|python|solution)"
_TAG = re.compile(rf"^[ \t]*(?:\[/?[A-Z]{{2,20}}\][ \t]*$|</?{_WRAPPERS}>[ \t]*)|</{_WRAPPERS}>[ \t]*$", re.MULTILINE)
"""What some formats set around code: `[BEGIN]`, `[DONE]`, `<answer>`."""
_STUB = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+\w[^\n]*:[ \t]*(?:#[^\n]*)?\n?[ \t]*(?:\.\.\.|pass)[ \t]*$", re.MULTILINE)
"""A function without a body, such as a reminder of what was asked for."""
_NAME = re.compile(r"[^\W\d]\w*")
_DEFINITION = re.compile(r"^([ \t]*)(?:(?:async[ \t]+)?def|class)[ \t]+([^\W\d]\w*)", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^([^\W\d]\w*+(?:[ \t]*+,[ \t]*+[^\W\d]\w*+)*+)[ \t]*+(?::[^=\n]*)?=(?!=)", re.MULTILINE)
_IMPORT = re.compile(r"^(?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+(\([^()]*\)|[^\n#;]*)", re.MULTILINE)
_IMPORTED = re.compile(r"([\w.]+)(?:\s+as\s+(\w+))?")
_BOUND = re.compile(
    r"\b([^\W\d]\w*+)[ \t]{0,8}(?::[^=\n,()]{0,80})?=(?!=)|\bas[ \t]{1,8}(\w++)"
    r"|\b(?:for|lambda)\b([^:\n]{0,200}?)(?:\bin\b|:)|\bdef[ \t]{1,8}\w++[ \t]{0,8}\(([^()]*)"
)
"""Where a name gets a value: (assigned or a default's, `as`, a loop's or lambda's, parameters)."""
_WRITES = re.compile(r"\b(?:print|pprint|write|writelines)[ \t]*\(")
_READS = re.compile(r"\b(?:input|stdin|fileinput)\b|\bopen\([ \t]*(?:0|[\"']/dev/)|\bos\.read\b")
_ACTS = re.compile(r"^(?!def |class |async |import |from |@|#)(?:(?:if|for|while|with|try)\b|[^\s#\"'][^\n#]*\()", re.MULTILINE)
_BODY = re.compile(r"(?:[ \t]*\n)*[ \t]+\S|(?:.*\n)*?(?:return|yield)\b")
_START = re.compile(
    r"^(?:from[ \t]+[\w.]+[ \t]+import\b|import[ \t]+\w|(?:async[ \t]+)?def[ \t]+\w|class[ \t]+\w|@\w|print[ \t]*\("
    r"|[^\W\d]\w*(?:[ \t]*,[ \t]*[^\W\d]\w*)*[ \t]*=[^=])",
    re.MULTILINE,
)
_PARAGRAPH = re.compile(r"\n(?=[^\s#)\]}])")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    text: str
    python: bool
    """Whether its fence says so; else it names no language."""


def extract(response: str, names: Collection[str] = (), reads: bool | None = None) -> str | None:
    """The program that a response gives, or None. Linear in the response's length; raises nothing.

    names: what tests want from the program. reads: of a program that reads and prints, whether there is anything to read.
    """
    speech = after_thinking(response)
    blocks, outside, cut_off = _blocks(speech)
    if cut_off:
        return None
    fenced = outside.count("\n") < speech.count("\n")
    if not fenced:
        outside = _unprompted(_TAG.sub("", speech).split("\n"))
    if names:
        program = _defining(blocks, names)
        if not program and _defined(outside).intersection(names):
            program = outside
    else:
        program = _script(blocks, reads) if reads is not None else ""
    if not program:
        last = next(iter(_last_first(blocks)), None)
        if names:  # a body, of a prompt's last function, is no demonstration
            last = next((index for index in _last_first(blocks) if _BODY.match(blocks[index].text)), last)
        program = blocks[last].text if last is not None else "" if fenced else outside
    program = program.strip("\r\n").rstrip()
    return program if program.strip() and len(program) <= MAX_SOURCE else None


def readings(program: str, prompt: str = "") -> list[str]:
    """The ways of reading a program, best first: as it is, without common indentation, without the words around it.

    Behind a prompt that ends in a function, whole definitions follow it and indented lines go on with its body, whichever they are. Else
    the program is a body whose first line, or every line, has lost its indentation, or a body with prose behind it.
    """
    texts = [program]
    if prompt:
        indented = "".join(f"    {line}" for line in program.splitlines(keepends=True))
        body = re.match(r"(?:[ \t]+\S[^\n]*(?:\n|$)|[ \t]*\n)*", program)
        texts += ["    " + program, indented, body.group() if body else ""]
    texts.append(textwrap.dedent(program))
    if start := _START.search(program):
        ends = [match.start() for match in _PARAGRAPH.finditer(program, start.end())]
        texts += [program[start.start() : end] for end in [len(program), *reversed(ends[1 - MAX_READINGS :])]]
    texts = list(dict.fromkeys(reading for reading in texts if reading.strip()))
    return [f"{prompt}\n{reading}" for reading in texts] if prompt else texts


def _blocks(speech: str, document: bool = False) -> tuple[list[Block], str, bool]:
    """(blocks that may be Python, what stands outside of all blocks, whether the last block may be Python and never ends)."""
    blocks: list[Block] = []
    outside: list[str] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for whole in speech.split("\n"):
        line = whole.removesuffix("\r")
        if opened is None:
            opened = _OPENING.fullmatch(line)
            lines = []
            if opened is None:
                outside.append(line)
        elif _closes(line, opened):
            if opened["info"].strip().lower() in ("markdown", "md") and not document:  # an answer that is a document
                blocks += _blocks("\n".join(lines), document=True)[0]
            elif (python := _may_be_python(opened["info"])) is not None:
                blocks.append(Block(_unprompted(lines), python))
            opened = None
        else:
            lines.append(_within(line, opened["lead"]))
    return blocks[-MAX_BLOCKS:], "\n".join(outside), opened is not None and _may_be_python(opened["info"]) is not None


def _closes(line: str, opened: re.Match[str]) -> bool:
    mark = line.strip(" \t>") if ">" in opened["lead"] else line.strip()
    fence = opened["fence"]
    return mark.startswith(fence) and not mark.strip(fence[0]) and len(line) - len(line.lstrip(" \t>")) <= len(opened["lead"]) + 3


def _within(line: str, lead: str) -> str:
    """A line of a block without what its list item or quotation puts before it."""
    if ">" in lead and line.lstrip().startswith(">"):
        line = line.replace(">", " ", 1)
    margin = min(len(lead), len(line) - len(line.lstrip(" \t")))
    return line[margin:]


def _may_be_python(info: str) -> bool | None:
    """Whether a fence says Python; None where it names something else."""
    language = _LANGUAGE.match(info)
    name = language.group(1).lower() if language else ""
    return True if _PYTHON.fullmatch(name) else None if name not in ("", "pycon") else False


def _unprompted(lines: list[str]) -> str:
    """The lines of a block; of an interpreter's session, what was typed."""
    first = next((line for line in lines if line.strip()), "")
    if not first.lstrip().startswith(">>>"):
        return "\n".join(lines)
    typed = (line.lstrip() for line in lines)
    return "\n".join(line[4:] for line in typed if line.startswith((">>>", "...")))


# The choice ------------------------------------------------------------------------------------------------------------------


def _defined(text: str) -> set[str]:
    """What a text defines at its top level."""
    names = {match.group(2) for match in _DEFINITION.finditer(_STUB.sub("", text)) if not match.group(1)}
    for match in _ASSIGNMENT.finditer(text):
        names.update(_NAME.findall(match.group(1)))
    return names


def _imported(text: str) -> set[str]:
    return {alias or module.partition(".")[0] for match in _IMPORT.finditer(text) for module, alias in _IMPORTED.findall(match.group(1))}


def _defining(blocks: list[Block], names: Collection[str]) -> str:
    """The last blocks that define the names, with what they need; empty where none does."""
    for find in (_defined, lambda text: {match.group(2) for match in _DEFINITION.finditer(text)}):
        defined = [find(block.text) for block in blocks]
        last = {name: max((index for index, of_block in enumerate(defined) if name in of_block), default=-1) for name in names}
        if chosen := set(last.values()) - {-1}:
            return _with_needs(blocks, chosen)
    return ""


def _with_needs(blocks: list[Block], chosen: set[int]) -> str:
    """Blocks, and before them those that define what they use, in the response's order."""
    defined = [_defined(block.text) | _imported(block.text) for block in blocks]
    used = [set(_NAME.findall(block.text)) - _bound(block.text) for block in blocks]
    while True:
        missing = set().union(*(used[index] for index in chosen)).difference(*(defined[index] for index in chosen))
        more = next((index for index in reversed(range(max(chosen))) if index not in chosen and missing & defined[index]), None)
        if more is None:
            return "\n\n".join(blocks[index].text for index in sorted(chosen))
        chosen = chosen | {more}


def _bound(text: str) -> set[str]:
    """Names that get a value somewhere in a text: its own variables."""
    return {name for match in _BOUND.finditer(text) for group in match.groups() if group for name in _NAME.findall(group)}


def _script(blocks: list[Block], reads: bool) -> str:
    """The last block that is a whole program, else the last that is one with what it needs; empty where none is."""

    def whole(text: str) -> bool:
        return bool(_ACTS.search(text) and _WRITES.search(text) and (not reads or _READS.search(text)))

    order = _last_first(blocks)
    acting = [index for index in order if _ACTS.search(blocks[index].text)]
    alone = (blocks[index].text for index in acting)
    together = (_with_needs(blocks, {index}) for index in acting)
    for texts in (alone, together):
        if program := next(filter(whole, texts), None):
            return program
    return next((blocks[index].text for index in acting if _WRITES.search(blocks[index].text)), "")


def _last_first(blocks: list[Block]) -> list[int]:
    """Indices of the blocks that say Python, from the last, then of the others."""
    return sorted(range(len(blocks)), key=lambda index: (blocks[index].python, index), reverse=True)
