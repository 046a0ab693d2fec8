"""Where a response states its answer: "The answer is", "Answer:", `#### 42`, a heading "Answer", `<answer>`.

Markers are strong or weak. Weak ones ("the answer must be", "the solutions are") are what people also write on their way, and count
only where no strong one is. What looks like a marker and is none: a markdown heading (`#### Step 1`; only `####` before an answer and
nothing else is GSM8K's form), and GSM8K's other form, the line label `A:`, where there is a line `B:` too: a list of options.

A statement ends with its sentence or line. Every step is linear: repetitions are bounded or cannot overlap.
"""

import itertools
import json
import re
from dataclasses import dataclass
from typing import Literal

_BEGINS = r"(?:\A|(?=ans|final|solution|result|root|[#\n]))"
"""Where a marker may begin. It changes no match, but most places of a text are left after this one look."""
_MARKER = re.compile(
    rf"{_BEGINS}(?:"
    r"(?P<strong>(?<![a-z])ans(?:wers?)?(?![a-z])(?P<quoted>[\"']?)[*_`)]{0,4}"
    r"(?:[ \t]{1,3}(?:to|for|of|in|as|after|here|rounded|with|from|that)(?![a-z])[^.:=\n?!]{0,40}?|[ \t]?[(\[][^()\[\]\n]{0,40}[)\]])?"
    r"[ \t]{0,3}[*_\"'`]{0,4}[ \t]{0,3}(?:(?:is|are|equals)(?![a-z'’])|[:：=])"
    r"(?:[ \t]{1,3}(?:thus|therefore|hence|simply|given by|as follows|equal to)(?=[:\n]))?"
    r"|(?<![a-z])final[ \t]{1,3}answer[*_ \t]{0,6}(?=\n)"
    r"|(?:^|\n)[ \t#>*_]{0,12}(?:(?:the|my|our|final|correct)[ \t]){0,3}answer[*_ \t]{0,4}(?:(?=\n)|[-–—](?=[ \t])))"
    r"|(?P<modal>(?<![a-z])answer(?![a-z])[^.:=\n?!]{0,40}?(?<![a-z])(?:must|should|would|will|has to|seems to|turns out to|comes out to)"
    r"(?:[ \t][a-z]{1,12})?[ \t]be(?![a-z]))"
    r"|(?P<result>(?<![a-z])(?:solution|result|root)s?[ \t](?:is|are)(?![a-z'’]))"
    r"|(?P<label>(?:^|\n)[ \t]{0,8}(?:\*\*)?A[:：])"
    r"|(?P<gsm>(?<!\#)\#{4}(?!\#)))",
    re.IGNORECASE,
)
_OTHER_LABEL = re.compile(r"(?:^|\n)[ \t]{0,8}(?:[-*>][ \t])?(?:\*\*)?\(?B[:：.)]", re.IGNORECASE)
_TAG = re.compile(r"<(/?)(?:final[_ ]?)?answer>", re.IGNORECASE)
_CONDITION = re.compile(r"(?<![a-z])(?:if|unless|had|were)(?![a-z])", re.IGNORECASE)
_JSON_VALUE = re.compile(r"\s*(\"(?:[^\"\\\n]|\\.)*+\"|[^,}\n]*+)")
_BETWEEN = " \t\n*_:：`"
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_GOLD = re.compile(r"[ \t]*[*_$]*(?:[-+−–~≈][ \t]?)?[$€£¥₹]?[ \t]?\.?\d")
_NUMBERED = re.compile(r"\d+[.):][ \t]+\S")
_UNDERLINE = re.compile(r"[=-]{3,}[ \t]*\n")

_DISPLAY = {r"\[": r"\]", "$$": "$$", r"\(": r"\)", "$": "$"}
_ABBREVIATED = "".join(rf"(?<!\b{word})" for word in ("Rs", "Mr", "Ms", "Mrs", "Dr", "St", "approx", "ca", "sq", "cu", "vs", "No"))
_SENTENCE_END = re.compile(rf"{_ABBREVIATED}[.?](?=[\s*\"]|$)|!(?=\s|\*|$)(?!\s*[-+*/=^×·)\\]\s*[\d(\\])|\n")
_CLAUSE = re.compile(
    r"[,;]?\s(?:because|since|which|where|so that|as required|per our)\b|[,;]\sso\b|\s(?:—|--)\s(?=[a-z]{2})|\s\(?(?:I hope|QED)\b",
    re.IGNORECASE,
)
_ADVERB = re.compile(
    r"(?:(?:therefore|thus|hence|simply|clearly|just|exactly|then|now|also|indeed|equal to|given by)[,:]?\s+|=\s*)+", re.IGNORECASE
)
_PREDICATE = re.compile(
    r"([^\n]*[A-Za-z$)\d]) (?:is|are|equals|be)(?: equal to)?(?: simply| therefore| exactly| just)?:? (?=[^ ])", re.IGNORECASE
)
_NEGATED = re.compile(r"(?:(?<![a-z])(?:not|never|cannot)|n['’]t)(?: [a-z]{1,15}){0,3} be:? $", re.IGNORECASE)
_STARTS_WITH_NUMBER = re.compile(r"[-−]?[$€£¥₹]?\d")
_NO_VALUE = re.compile(r"[^\d\\$]*$")
_COMPUTED = re.compile(r"[$\d\s.,()*/×·÷+−–^-]*\d[$\d\s.,()*/×·÷+−–^-]*=\s*(?=[$€£¥₹]?[\d.,/]+\s[A-Za-z]{2})")
_NUMBER_IS = re.compile(r"([-−]?[$€£¥₹]?\d[\d.,/]*%?) (?:is|are|was)(?![A-Za-z]| (?:not|wrong|incorrect|false))")
_ORNAMENTS = "*_:：\"'`’” \t\n\ufe0f\u200d∎" + "".join(
    map(chr, itertools.chain(range(0x25A0, 0x27C0), range(0x2B50, 0x2B56), range(0x1F300, 0x1FB00)))
)
"""What decorates a statement and says nothing: emphasis, quotes, check marks, the black square that ends a proof."""


@dataclass(frozen=True)
class Statement:
    """One statement: how much its marker weighs, the rest of its line, and where that begins.

    `whole`: the line is all that is stated (an answer tag, a value in JSON), not a sentence to be looked through.
    """

    weight: Literal["strong", "weak", "label"]
    line: str
    start: int
    whole: bool = False


def statements(speech: str) -> list[Statement]:
    """Every statement in a text, in order; what stands in answer tags is one."""
    tags = _tags(speech)
    ending = len(speech.rstrip())
    options = bool(_OTHER_LABEL.search(speech))
    stated = [Statement("strong", speech[start:end].strip(), start, whole=True) for _, start, end in tags]
    marks = [mark for mark in _MARKER.finditer(speech) if not (mark["label"] and options)]
    limits = sorted([*(mark.start() for mark in marks), *(opening for opening, _, _ in tags), len(speech)])
    limit = tag = 0
    for mark in marks:
        while limit < len(limits) - 1 and limits[limit] <= mark.start():
            limit += 1
        while tag < len(tags) and tags[tag][2] <= mark.start():
            tag += 1
        if (tag == len(tags) or mark.start() < tags[tag][0]) and (statement := _statement(speech, mark, limits[limit], ending)):
            stated.append(statement)
    return sorted(stated, key=lambda statement: statement.start)


def last_statement(speech: str) -> Statement | None:
    """The last strong statement, or the last weak one where none is strong."""
    stated = statements(speech)
    return next((one for one in reversed(stated) if one.weight != "weak"), stated[-1] if stated else None)


def text_of(speech: str, statement: Statement) -> tuple[str | None, int]:
    """What a statement says, without mark-up, reasons and preamble, and where it ends in the text. None: nothing is left.

    Linear in the length of the whole text: for the one statement that counts, not for each.
    """
    start, end = statement.start, statement.start + len(statement.line)
    if statement.whole:
        inner = last_statement(statement.line)
        return (text_of(statement.line, inner)[0] if inner else statement.line or None), end
    for opening, closing in _DISPLAY.items():  # a formula may hold full stops and line ends
        if speech.startswith(opening, start):
            close = speech.find(closing, start + len(opening))
            if close >= 0 and not (opening == "$" and _is_price(speech[start + 1 : close])):
                rest = close + len(closing)
                end = rest + len(first_sentence(speech[rest:]))
                return clip(speech[start:end]), end
            break
    sentence = first_sentence(speech[start:])
    return clip(sentence), start + len(sentence)


def tagged(speech: str) -> str | None:
    """What the last answer tag holds; None where that one was not closed."""
    tags = _tags(speech)
    opened = max((match.start() for match in _TAG.finditer(speech) if not match[1]), default=-1)
    return speech[tags[-1][1] : tags[-1][2]].strip() if tags and opened == tags[-1][0] else None


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence or line."""
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def clip(sentence: str) -> str | None:
    """A sentence without mark-up, reasons and preamble; None where nothing is left."""
    clause = _CLAUSE.search(sentence)
    if clause and clause.start():
        sentence = sentence[: clause.start()]
    sentence = sentence.strip(_ORNAMENTS)
    if adverb := _ADVERB.match(sentence):
        sentence = sentence[adverb.end() :]
    if computed := _COMPUTED.match(sentence):  # 3 * 5 = 15 goats
        sentence = sentence[computed.end() :]
    if (number := _NUMBER_IS.match(sentence)) and number.end() < len(sentence):
        return number[1]
    predicate = _PREDICATE.match(sentence)
    if (
        predicate
        and not _NEGATED.search(predicate.group())
        and not (_STARTS_WITH_NUMBER.match(sentence) and _NO_VALUE.match(sentence, predicate.end()))
    ):
        sentence = sentence[predicate.end() :]
    return sentence.strip(_ORNAMENTS).rstrip(", ") or None


def _tags(speech: str) -> list[tuple[int, int, int]]:
    """(start of its opening, start and end of what it holds) of every answer tag that is closed."""
    tags = []
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(speech):
        if not tag[1]:
            opened = tag
        elif opened:
            tags.append((opened.start(), opened.end(), tag.start()))
            opened = None
    return tags


def _statement(speech: str, mark: re.Match[str], limit: int, ending: int) -> Statement | None:
    """What follows a marker, if that makes it one. limit: where the next one begins; ending: where the text ends."""
    start = mark.end()
    if mark["quoted"] and speech[start - 1] == ":":
        value = _JSON_VALUE.match(speech, start, limit)
        return Statement("strong", _unquoted(value[1]), value.start(1), whole=True) if value else None
    if mark["gsm"]:
        end = speech.find("\n", start, limit)
        line = speech[start : end if end >= 0 else limit]
        return Statement("strong", line.strip().rstrip(","), start) if _is_gold(line, last=start + len(line) >= ending) else None
    while start < limit and speech[start] in _BETWEEN:
        start += 1
    if underline := _UNDERLINE.match(speech, start, limit):
        start = underline.end()
    end = speech.find("\n", start, limit)
    line = speech[start : end if end >= 0 else limit].strip()
    weight: Literal["strong", "weak", "label"] = "strong"
    if mark["label"]:
        weight = "label"
    elif mark["modal"] or mark["result"]:
        if _CONDITION.search(line) or (mark["result"] and start + len(line) < ending):
            return None
        weight = "weak"
    return Statement(weight, line, start) if line else None


def _is_gold(line: str, last: bool) -> bool:
    """Whether `####` and a line are GSM8K's form: an answer alone, with a word or two of unit at the end of the response."""
    if not (words := _WORD.findall(line)):
        return bool(line.strip())
    return last and len(words) <= 2 and bool(_GOLD.match(line)) and all(map(str.islower, words)) and not _NUMBERED.match(line.strip())


def _is_price(text: str) -> bool:
    """Whether what stands between two dollar signs is prose, so that they are prices and no delimiters."""
    return "\\" not in text and ("\n" in text or len(_WORD.findall(text)) > 1)


def _unquoted(value: str) -> str:
    value = value.strip()
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass
    return value.strip("\"' ")
