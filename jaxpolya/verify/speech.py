"""What a response says: its text without thoughts, without a chat format's own tokens, and up to the end of its turn.

Models think in front of their answer, between tags that each family spells in its own way: `<think>`, `[THINK]`, `<seed:think>`,
`<|begin_of_thought|>`, a channel called "analysis". A tag is read by its words, whatever brackets it wears, so that a spelling that
nobody listed is understood all the same. What is thought is not said, and a thought that never ends hides whatever follows:

- A closing tag that nothing opened closes what the response began with: the prompt had opened it, and it was not passed on.
- A thought inside a thought leaves the outer one open; the end of the outer one ends both. The same tag twice in a row, once by a
  template and once by the model, is one.
- A closing tag of another name closes nothing.

Where that is too strict for somebody's text, it pays nothing; the other way round, a model would learn to answer in its thoughts.

This runs in the parent process, where no deadline protects it: one scan, linear in the response's length.
"""

import re
from typing import Literal

_THINKING = re.compile(
    r"(?:begin|start|end)?(?:of)?([a-z]*(?:think|thought|scratch|reflect|monologue)[a-z]*|reason(?:ing)?|analysis|rationale|cot)"
)
_SPEAKERS = frozenset({"assistant", "model", "chatbot", "answer", "final", "response"})
_ENDS = re.compile(r"/s|eo[stmd](?:_id)?|end[_▁]?of[_▁]?(?:text|turn|sentence)|return|call|user|system")
_MARK = re.compile(
    # The head of a turn or channel, with who speaks: <|im_start|>assistant, <|channel|>analysis<|message|>, <|channel>thought
    r"(?:<\|(?:im_start|start_header_id|start|channel)\|?>|<start_of_turn>)[ ]?(?P<speaker>[a-z]{1,20})(?![a-z])"
    r"(?:(?:[ ][^<>\n]{1,80})?(?:<\|constrain\|>[^<>\n]{0,40})?<\|(?:end_header_id|message)\|>)?"
    # A token of the chat format: <|eot_id|>, <｜end▁of▁sentence｜>, </s>
    r"|<[|｜](?P<token>/?[a-z0-9_▁]{1,40})[|｜]?>|<(?P<bare>/?s|bos|eos|pad|end_of_turn|start_of_turn|channel(?=\|))\|?>"
    # A tag: <think>, </seed:think>, <scratchpad id="1">, [THINK], ◁think▷
    r"|<(?P<tag>/?[a-z][a-z_:▁-]{1,40})(?:\s[^<>]{0,80})?>|\[(?P<square>/?think(?:ing)?)\]|◁(?P<arrow>/?[a-z]{1,20})▷",
    re.IGNORECASE,
)
_LONGEST_MARK = 250
_DEEPEST = 50
_WORD = re.compile(r"[a-z]+")

_Kind = Literal["text", "opens", "closes", "speaks", "frame", "pause", "token", "end"]
_TURN = "a turn"
"""The name of a thought that is a turn or channel of its own; any other is named by its tag."""


def spoken(response: str) -> str:
    """What a response says after its thinking, up to the first end-of-text token; nothing where the thought never ends."""
    return after_thinking(response).strip()


def after_thinking(response: str) -> str:
    """What `spoken` returns, with the white space around it: a program may begin with its indentation."""
    pieces: list[str] = []
    silent = True  # nothing but white space was said so far
    opened: list[str] = []  # the names of the thoughts that are open, outermost first
    start = 0
    for mark in _MARK.finditer(response):
        kind, name = _read(mark)
        if kind == "text":
            continue
        before, start = response[start : mark.start()], mark.end()
        blank = not before.strip()
        if not opened:
            pieces.append(before)
            silent = silent and blank
        match kind:
            case "opens" if len(opened) < _DEEPEST and (silent or opened or name != _TURN):
                if opened[-1:] != [name] or not (blank or name == _TURN):
                    opened.append(name)
            case "closes" if not opened:
                pieces, silent = [], True
            case "closes":
                if name in opened:
                    while opened.pop() != name:
                        pass
                    pieces.append("\n")
            case "speaks" | "pause" if opened == [_TURN]:
                opened.clear()
            case "frame":
                pass
            case "speaks" if silent and not opened:
                pass
            case "token" if opened:
                pass
            case _:
                return "".join(pieces)
    return "".join(pieces) if opened else "".join([*pieces, response[start:]])


def opened_thought(prompt: str) -> str:
    """The tag of a thought that a prompt ends with (`<think>\\n`, where a template opens it), or "".

    A response to such a prompt is to be judged as what this returns and the response together: only so can the verifier see whether
    the thought ended.
    """
    end = prompt[-_LONGEST_MARK:]
    for mark in _MARK.finditer(end):
        if not end[mark.end() :].strip() and _read(mark)[0] == "opens":
            return end[mark.start() :]
    return ""


def _read(mark: re.Match[str]) -> tuple[_Kind, str]:
    """What a mark does, and the name of the thought that it opens or closes."""
    if speaker := mark["speaker"]:
        if _THINKING.fullmatch(speaker := speaker.lower()) or speaker == "commentary":
            return "opens", _TURN
        return ("speaks" if speaker in _SPEAKERS else "end"), ""
    label = (mark["token"] or mark["bare"] or mark["tag"] or mark["square"] or mark["arrow"]).lower()
    words = _WORD.findall(label)
    if thinking := [match[1] for word in words if (match := _THINKING.fullmatch(word))]:
        closes = label.startswith("/") or any(word.startswith("end") for word in words)
        return ("closes" if closes else "opens"), " ".join(thinking)
    if mark["tag"] or mark["square"] or mark["arrow"]:
        return "text", ""
    if label in ("s", "bos") or words[:1] in (["begin"], ["startoftext"]) or "response" in words:
        return "frame", ""
    if label in ("end", "im_end", "channel"):
        return "pause", ""
    if label in _SPEAKERS:
        return "speaks", ""
    return ("end" if _ENDS.fullmatch(label) else "token"), ""
