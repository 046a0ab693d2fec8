"""From verified responses to fine-tuning data, one set of rows for each kind of arm.

polya     correct responses of each (question, slot), near-duplicates across slots dropped, n a question: which ones, `keep` says
star      one correct response a question, drawn without any heuristic (STaR, arXiv 2203.14465)
wrong     as polya, from responses with a wrong answer
external  traces from a file

A question with fewer than n keeps those that it has. Everything here is a function of records and a seed, on the host.
"""

import collections
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from jaxpolya.errors import RunError
from jaxpolya.records import Sample, SftRow, Verdict

ADHERENCE = "adherence.jsonl"
"""Lies beside the rows that were selected: `{sample_id, adherence}` of every response that was scored."""


def by_question(samples: Iterable[Sample], verdict: str) -> dict[str, list[Sample]]:
    """The samples with a verdict, per question, in their order; truncated ones are left out, for they would teach not to end."""
    grouped: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in samples:
        if sample.verdict == verdict and sample.finish == "stop":
            grouped[sample.question_id].append(sample)
    return dict(grouped)


def star_rows(grouped: Mapping[str, Sequence[Sample]], row: Callable[[Sample, float | None], SftRow]) -> list[SftRow]:
    """The first correct plain response of each question; samples are drawn alike, so the first is as good as a random one."""
    return [row(samples[0], None) for samples in grouped.values()]


def cap_questions(candidates: Mapping[str, Iterable[str]], limit: int | None, seed: int) -> frozenset[str] | None:
    """The questions to keep: at most `limit`, drawn by `seed` from those that every arm has candidates for; None keeps all.

    One draw for all arms, so that a fixed budget of questions is the same questions.
    """
    if limit is None:
        return None
    common = sorted(set.intersection(*(set(ids) for ids in candidates.values())))
    return frozenset(random.Random(f"cap/{seed}").sample(common, min(limit, len(common))))


def match_arms(
    arms: Mapping[str, Sequence[SftRow]], unit: Literal["instances", "tokens"], length: Callable[[SftRow], int], seed: int
) -> dict[str, list[SftRow]]:
    """All arms cut to the smallest one's number of instances or of response tokens, by dropping rows drawn by `seed`."""

    def size(row: SftRow) -> int:
        return 1 if unit == "instances" else length(row)

    budget = min(sum(size(row) for row in rows) for rows in arms.values())
    matched = {}
    for arm, rows in arms.items():
        order = random.Random(f"match/{seed}/{arm}").sample(range(len(rows)), len(rows))
        kept, used = set(), 0
        for i in order:
            if used + size(rows[i]) <= budget:
                kept.add(i)
                used += size(rows[i])
        matched[arm] = [row for i, row in enumerate(rows) if i in kept]
        if not matched[arm]:
            smallest = min(arms, key=lambda name: sum(map(size, arms[name])))
            raise RunError(
                f"select.match {unit}: the {smallest} arm has only {budget} {unit}, and no row of the {arm} arm is that short; "
                "match instances, or generate more samples"
            )
    return matched


def require_rows(rows: Mapping[str, Sequence[SftRow]], samples: Mapping[str, Sequence[Sample]]) -> None:
    """Raises `RunError` where an arm has nothing to learn from, and says what the verdicts were."""
    for arm, of_arm in rows.items():
        if not of_arm:
            verdicts = collections.Counter(
                f"{sample.verdict}{' but truncated' if sample.finish == 'length' else ''}" for sample in samples.get(arm, ())
            )
            counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()) or "no responses"
            wanted = "wrong" if arm == "wrong" else "correct"
            limited = any(sample.verdict in Verdict.LIMITED for sample in samples.get(arm, ()))
            hint = " Under a larger verify.deadline or verify.memory_mb, what was cut short is judged again." if limited else ""
            raise RunError(
                f"the {arm} arm has nothing to learn from: it takes {wanted} responses that were not cut off (with "
                f"select.max_questions, to questions that every arm has some of), and there are {counts}. Take easier questions, a "
                "stronger model, more samples or a longer sampling.max_new_tokens; the samples are in the generate stage's "
                f"directory.{hint}"
            )
