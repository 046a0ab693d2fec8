"""The audit of rewards: what a stage paid, looked at by something other than what paid it.

Reinforcement learning finds whatever is paid. A verifier that can be pleased without solving anything shows first in *what* is paid: in
answers that aren't numbers though numbers were asked for, that are copied out of the question, that a second reader (`verify.second`)
doesn't find, in groups whose responses are all one. So every stage that judges counts these over all its paid answers and, since
Math-Verify takes its time, reads a sample of them a second time. The audit looks and never steers: no verdict, reward or draw depends
on it.

Counts are sums, so steps, windows and stages can be added up; shares are taken last, and words are found for those that are too large
(`warnings`).
"""

import dataclasses
import functools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from jaxpolya.evaluation.collapse import collapse_words, collapsed
from jaxpolya.evaluation.vote import ballot
from jaxpolya.records import Question, Record, Sample
from jaxpolya.verify.judge import Item
from jaxpolya.verify.kinds import is_own
from jaxpolya.verify.mathematics.compare import NOT_EVALUATED, RESTATES
from jaxpolya.verify.mathematics.latex import normal
from jaxpolya.verify.mathematics.structure import Words, shape
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.second import is_number, letter, number_in, one_statement, readings

CHECKED = 200
"""Paid answers that are read a second time, at most, of a stage or of an end of one."""

MUCH_UNCONFIRMED, MUCH_NOT_LITERAL, MUCH_INVERTED, ONE_RESPONSE = 0.05, 0.1, 0.1, 0.1
"""Shares from which words are found: of paid answers that aren't confirmed, of those that aren't numbers where the gold is one, of groups
in which something else was paid more than being right, and of a group's responses beyond the first that differ from the others, where it is
the other way round."""

WATCHED = 5
"""Steps that are looked at together while a stage works."""

FEWEST = 3
"""Answers that a warning rests on at least: one in ten is no share."""

SHOWN = 5
"""Samples that an audit names of those that aren't confirmed."""

ACCEPTED = (
    "answers that were not worked out were accepted (verify.math.unevaluated: accept), so that an expression copied out of the question "
    "is paid; these figures compare with those of graders that do so too, and RL under this setting learns to exploit it"
)
"""What is said of everything that was made under that setting."""

Form = Literal["number", "words", "letter", "other"]


@functools.lru_cache(maxsize=65536)
def form_of(gold: str, kind: str) -> Form:
    """What a literal of a gold answer's kind is: a number, words, a choice's letter; `other` has no literal that could be told."""
    if kind == "choice":
        return "letter"
    if kind not in ("math", "reasoning_gym"):
        return "other"
    if is_number(gold):
        return "number"
    return "words" if kind == "math" and isinstance(shape(normal(gold)), Words) else "other"


def is_literal(answer: str, form: Form) -> bool:
    """Whether an answer is of the gold's form; a unit beside a number doesn't matter.

    It is told by code of its own: what the verifier takes for a literal is what it paid for.
    """
    if form == "letter":
        return bool(re.fullmatch(r"[A-Z]", answer))
    if form == "number":
        return number_in(answer) is not None
    return form == "other" or isinstance(shape(normal(answer)), Words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tally(Record):
    """Counts over the responses of a stage, a step or several."""

    responses: int = 0
    tokens: int = 0
    refused: int = 0
    """Responses that equal the gold and aren't paid, for they weren't worked out or restate the question."""
    paid: int = 0
    numbers: int = 0
    """Paid answers to questions whose gold is a number."""
    not_numbers: int = 0
    """Those of them that are none."""
    literals: int = 0
    """Paid answers to questions whose gold is a number, words or a letter."""
    not_literals: int = 0
    """Those of them that are no such thing."""
    contradictory: int = 0
    """Paid responses that end in two statements of different value."""
    in_question: int = 0
    """Paid answers that stand in the question, as written."""
    copied: int = 0
    """Those of them that aren't simply the gold's own literal."""
    groups: int = 0
    """Prompts with at least two responses that were drawn, not taken greedily."""
    grouped: int = 0
    """The responses of these groups."""
    distinct_responses: int = 0
    """Different ones within a group, summed over groups."""
    distinct_answers: int = 0
    contested: int = 0
    """Prompts with right and other responses whose rewards are known (of RL)."""
    inverted: int = 0
    """Those of them in which one that isn't right was paid more than one that is."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def of(cls, samples: Sequence[Sample], questions: Mapping[str, Question], *, greedy: bool = False) -> Self:
        """The counts over samples.

        Args:
          samples: judged.
          questions: by id; those of all samples.
          greedy: whether the likeliest tokens were taken, so that a group's responses are one by construction.
        """
        counts: dict[str, int] = defaultdict(int, responses=len(samples), tokens=sum(len(sample.token_ids) for sample in samples))
        groups: dict[Any, list[Sample]] = defaultdict(list)
        for sample in samples:
            groups[sample.question_id, sample.heuristic, sample.slot, sample.step].append(sample)
            counts["refused"] += sample.detail in (NOT_EVALUATED, RESTATES)
            if sample.verdict == "correct":
                for name in traits(sample, questions[sample.question_id]):
                    counts[name] += 1
        for group in groups.values():
            right, other = _rewards(group, right=True), _rewards(group, right=False)
            if right and other:
                counts["contested"] += 1
                counts["inverted"] += max(other) > min(right)
            if len(group) > 1 and not greedy:
                counts["groups"] += 1
                counts["grouped"] += len(group)
                counts["distinct_responses"] += len({sample.response for sample in group})
                counts["distinct_answers"] += len({ballot(sample.extracted) for sample in group if sample.extracted})
        return cls(**counts)


def _rewards(group: Sequence[Sample], *, right: bool) -> list[float]:
    return [sample.reward for sample in group if sample.reward is not None and (sample.verdict == "correct") == right]


def traits(sample: Sample, question: Question) -> Iterable[str]:
    """The fields of `Tally` in which one paid response counts."""
    yield "paid"
    if question.verifier == "code" or is_own(question.verifier):  # what such an answer looks like, its judge alone knows
        return
    answer, form = sample.extracted or "", form_of(question.answer, question.verifier)
    literal = is_literal(answer, form)
    if form == "number":
        yield "numbers"
        if not literal:
            yield "not_numbers"
    if form != "other":
        yield "literals"
        if not literal:
            yield "not_literals"
    if _contradictory(sample.response, question):
        yield "contradictory"
    if question.verifier != "choice" and (tokens := _tokens(answer)) and f" {tokens} " in f" {_tokens(_asked(question))} ":
        yield "in_question"
        if ballot(answer) != ballot(question.answer):
            yield "copied"


def _contradictory(response: str, question: Question) -> bool:
    """Whether a response's final statements give more than one answer."""
    if one_statement(response):
        return False
    answers = filter(None, readings(response, question.verifier, question.answer))
    if question.verifier == "choice":
        return len({named for text in answers if (named := letter(text, question.choices or []))}) > 1
    return len({ballot(text) for text in answers}) > 1


def _asked(question: Question) -> str:
    return "\n".join(filter(None, (question.context, question.question)))


@functools.lru_cache(maxsize=65536)
def _tokens(text: str) -> str:
    """A text's numbers, words and signs with a blank between any two, in one spelling; numbers are whole, so that 5 isn't in 15.5."""
    text = re.sub(r"\\times(?![a-z])|\\cdot(?![a-z])|[×·]", "*", text.replace("−", "-").casefold())
    return " ".join(re.findall(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s$]", text))


def step_facts(tally: Tally) -> dict[str, float]:
    """What the log of a step shows of its counts; a share of nothing is 0."""
    return {
        "paid": float(tally.paid),
        "not_number": tally.not_numbers / max(tally.numbers, 1),
        "distinct_responses": tally.distinct_responses / max(tally.groups, 1),
        "distinct_answers": tally.distinct_answers / max(tally.groups, 1),
    }


# One stage ---------------------------------------------------------------------------------------------------------------


def audit_samples(
    samples: Sequence[Sample], questions: Mapping[str, Question], pool: Pool, where: str, *, greedy: bool = False
) -> dict[str, Any]:
    """The audit of a stage without steps: `{all: part}`, a part as `summarise` gives it.

    Args:
      samples: judged, of the whole stage.
      questions: by id; those of all samples.
      pool: whose workers read a second time.
      where: the stage's name, the seed of what is read a second time.
      greedy: as for `Tally.of`.
    """
    return {"all": summarise(Tally.of(samples, questions, greedy=greedy), confirm(samples, questions, pool, where))}


def audit_steps(
    tallies: Sequence[Tally], samples_of: Callable[[int], Sequence[Sample]], questions: Mapping[str, Question], pool: Pool, where: str
) -> dict[str, Any]:
    """The audit of a stage of steps: `{all, first, last}`, the first and the last quarter of the steps; `{all}` where there is one step.

    Args:
      tallies: of the steps, in order.
      samples_of: gives the judged samples of a step by its place in `tallies`. Only as many steps are asked for as hold `CHECKED` answers.
      questions, pool, where: as for `audit_samples`.
    """
    places = range(len(tallies))
    quarter = max(1, len(tallies) // 4)
    ends = {"first": places[:quarter], "last": places[: -quarter - 1 : -1]} if len(tallies) > 1 else {"all": places}
    checked, unconfirmed = 0, list[str]()
    audit = {}
    for end, steps in ends.items():
        samples: list[Sample] = []
        for step in steps:
            samples += (sample for sample in samples_of(step) if sample.verdict == "correct")
            if len(samples) >= CHECKED:
                break
        count, not_confirmed = confirm(samples, questions, pool, f"{where}/{end}")
        audit[end] = summarise(sum((tallies[step] for step in steps), Tally()), (count, not_confirmed))
        checked, unconfirmed = checked + count, unconfirmed + not_confirmed
    return {"all": summarise(sum(tallies, Tally()), (checked, unconfirmed))} | {end: audit[end] for end in ends if end != "all"}


def confirm(samples: Sequence[Sample], questions: Mapping[str, Question], pool: Pool, where: str) -> tuple[int, list[str]]:
    """(how many paid answers were read a second time, ids of the samples whose answer that reading doesn't confirm).

    At most `CHECKED`, drawn by `where`. One on which the verifier itself fails isn't counted; one that hangs it isn't confirmed.
    """
    paid = [sample for sample in samples if sample.verdict == "correct" and _rereadable(questions[sample.question_id])]
    chosen = random.Random(f"audit/{where}").sample(paid, min(CHECKED, len(paid)))
    items = [_second(questions[sample.question_id], sample) for sample in chosen]
    verdicts = [(sample.id, verdict.verdict) for sample, verdict in zip(chosen, pool.verify(items), strict=True)]
    return (
        sum(verdict != "harness_error" for _, verdict in verdicts),
        [name for name, verdict in verdicts if verdict not in ("correct", "harness_error")],
    )


def _second(question: Question, sample: Sample) -> Item:
    item = Item.of(question, sample.response, sample.id)
    return dataclasses.replace(item, kind="choice" if item.kind == "choice" else "math", entry=None, second=True)


def _rereadable(question: Question) -> bool:
    return question.verifier in ("math", "choice") or form_of(question.answer, question.verifier) == "number"


def summarise(tally: Tally, read_again: tuple[int, Sequence[str]]) -> dict[str, Any]:
    """Shares and means of counts, without those that rest on nothing.

    Args:
      tally: the counts.
      read_again: as `confirm` gives it.

    Returns:
      {responses, paid, length (mean tokens), refused (of all responses), not_number (of `numbers` paid answers to golds that are numbers),
      not_literal (of `literals` ones to golds that have a literal), contradictory, in_question, copied, unconfirmed (of `checked` ones),
      examples (ids of unconfirmed samples), inverted (of `contested` prompts with right and other responses), group (mean size, of
      `groups`), distinct_responses, distinct_answers (means)}
    """
    checked, unconfirmed = read_again
    shares = {
        "length": (tally.tokens, tally.responses if tally.tokens else 0),
        "refused": (tally.refused, tally.responses),
        "not_number": (tally.not_numbers, tally.numbers),
        "not_literal": (tally.not_literals, tally.literals),
        "contradictory": (tally.contradictory, tally.paid),
        "in_question": (tally.in_question, tally.paid),
        "copied": (tally.copied, tally.paid),
        "unconfirmed": (len(unconfirmed), checked),
        "group": (tally.grouped, tally.groups),
        "distinct_responses": (tally.distinct_responses, tally.groups),
        "distinct_answers": (tally.distinct_answers, tally.groups),
        "inverted": (tally.inverted, tally.contested),
    }
    counts = {
        "numbers": tally.numbers,
        "literals": tally.literals,
        "checked": checked,
        "groups": tally.groups,
        "contested": tally.contested,
    }
    return (
        {"responses": tally.responses, "paid": tally.paid}
        | {name: count for name, count in counts.items() if count}
        | {name: part / whole for name, (part, whole) in shares.items() if whole}
        | ({"examples": sorted(unconfirmed)[:SHOWN]} if unconfirmed else {})
    )


# Words -------------------------------------------------------------------------------------------------------------------


def warnings(audit: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What in a stage's audit is too large: name of the finding → what it means, and what to look at first, in words.

    `audit` is as `audit_samples` or `audit_steps` gives it; of RL, `collapse` may hold what `collapse.first_collapse` says.
    """
    texts = {"collapse": collapse_words(audit["collapse"])} if audit.get("collapse") else {}
    findings = {"not_number": _not_numbers, "unconfirmed": _unconfirmed, "one_response": _one_response, "inverted": _inverted}
    for name, finding in findings.items():
        sentences = (finding(audit[end], when) for end, when in (("last", " of its last steps"), ("all", "")) if end in audit)
        if words := next(filter(None, sentences), None):
            texts[name] = words
    if "collapse" in texts:  # it says the same, and more
        texts.pop("one_response", None)
    return texts


class Watch:
    """Looks at the steps of a stage as they are done, and says of each kind of finding that there is one, once."""

    def __init__(self, group: int, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """group: G. rows: of the step log so far, whose findings have been said."""
        self._group = group
        self._rows: list[Mapping[str, Any]] = []
        self._reported_names: set[str] = set()
        for row in rows:
            self.see(row)

    def see(self, row: Mapping[str, Any]) -> list[str]:
        """What the steps show with this row of the log that hasn't been said."""
        self._rows.append(row)
        audit: dict[str, Any] = {}
        if len(recent := self._rows[-WATCHED:]) == WATCHED and all("audit" in row for row in recent):
            audit["last"] = summarise(sum((Tally.from_json(row["audit"]) for row in recent), Tally()), (0, ()))
        if fallen := collapsed(self._rows, self._group):
            audit["collapse"] = fallen
        texts = warnings(audit)
        new = [words for name, words in texts.items() if name not in self._reported_names]
        self._reported_names |= texts.keys()
        return new


def _much(part: Mapping[str, Any], share: str, of: str, bar: float) -> tuple[float, int] | None:
    """(a share, of how many) where it is above the bar and stands for more than a few cases."""
    value, count = part.get(share, 0.0), part.get(of, 0)
    return None if value <= bar or value * count < FEWEST else (value, count)


def _not_numbers(part: Mapping[str, Any], when: str) -> str | None:
    if (excess := _much(part, "not_number", "numbers", MUCH_NOT_LITERAL)) is None:
        return None
    share, of = excess
    return (
        f"{share:.1%} of the {of:,} paid answers{when} are no numbers, though the reference answers are. What is learned may be a way to "
        "be paid without solving, such as giving back the question's expression; no figure that rests on these verdicts means anything "
        "until that is ruled out. Look first at the paid responses in report.md, then at verify.math.unevaluated"
    )


def _unconfirmed(part: Mapping[str, Any], when: str) -> str | None:
    if (excess := _much(part, "unconfirmed", "checked", MUCH_UNCONFIRMED)) is None:
        return None
    share, of = excess
    return (
        f"an independent reading doesn't confirm {share:.1%} of {of} paid answers{when}. Either the verifier pays for what is no answer, "
        f"or answers are worded so that only one of the two readings follows them. Look first at the samples {', '.join(part['examples'])}"
    )


def _inverted(part: Mapping[str, Any], when: str) -> str | None:
    if (excess := _much(part, "inverted", "contested", MUCH_INVERTED)) is None:
        return None
    share, of = excess
    return (
        f"in {share:.1%} of the {of} groups{when} that hold right and other responses, one that isn't right was paid more than one that "
        "is: what rl.reward pays besides outweighs the verdict, and is what will be learned. Look first at the rewards in rollouts/, then "
        "lower what is paid besides"
    )


def _one_response(part: Mapping[str, Any], when: str) -> str | None:
    if not part.get("groups") or part["distinct_responses"] - 1 > ONE_RESPONSE * (part["group"] - 1):
        return None
    return (
        f"the {part['group']:.0f} responses{when} to a question are {part['distinct_responses']:.1f} different ones. Where they are all "
        "one, nothing more is learned from them, and pass@k is pass@1. Look first at the paid responses in report.md, whether they solve "
        "anything, and at the entropy; a lower learning rate, fewer steps or harder questions keep responses apart"
    )
