"""Throughput of the verifier beside Math-Verify's own, on distinct MATH solutions, in one run.

    python benchmarks/verify.py [--questions DIR] [--rows N] [--workers N]

Half of the rows answer rightly (the solution's own text, or the answer in a box), half with the answer of another question, so that
both verdicts are timed. Every (gold, response) pair occurs once: nothing comes from a cache. Math-Verify runs as it is meant to be
used on such rows, `verify(parse(gold), parse(response))` in one process; ours runs in one process too (`judge`), and in the pool.
"""

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from math_verify import parse, verify

from jaxpolya.verify.judge import Item, judge
from jaxpolya.verify.pool import Pool


def load(folder: Path, rows: int) -> list[Item]:
    pairs: dict[str, str] = {}
    for name in ("math500.jsonl", "math_train.jsonl"):
        for line in (folder / name).read_text().splitlines():
            row = json.loads(line)
            if row["answer"]:
                pairs.setdefault(row["answer"], row.get("solution") or f"We compute step by step and find $\\boxed{{{row['answer']}}}$.")
    golds = list(pairs)
    random.Random(0).shuffle(golds)
    items = []
    for index, gold in enumerate(golds[:rows]):
        response = pairs[gold] if index % 2 == 0 else pairs[golds[(index + 1) % len(golds)]]
        items.append(Item(id=str(index), kind="math", response=response, answer=gold, extraction="boxed"))
    return items


def timed(name: str, work: Callable[[], list[bool]]) -> tuple[float, list[bool]]:
    start = time.perf_counter()
    verdicts = work()
    rate = len(verdicts) / (time.perf_counter() - start)
    print(f"{name:<28} {rate:>9.0f} verdicts/s   {sum(verdicts):>5} of {len(verdicts)} correct")
    return rate, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data" / "questions")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    if not (arguments.questions / "math500.jsonl").is_file():
        sys.exit(f"no MATH questions in {arguments.questions}; name their folder with --questions")
    logging.disable(logging.WARNING)
    items = load(arguments.questions, arguments.rows)

    def math_verify() -> list[bool]:
        return [verify(parse(f"\\boxed{{{item.answer}}}"), parse(item.response)) for item in items]

    def ours() -> list[bool]:
        return [judge(item).verdict == "correct" for item in items]

    verify(parse("$1+x$"), parse("$x+1$"))
    judge(Item(id="warm", kind="math", response=r"\boxed{\int_0^1 x dx}", answer=r"\int_0^1 y dy"))
    theirs, their_verdicts = timed("Math-Verify, one process", math_verify)
    single, verdicts = timed("jaxpolya, one process", ours)
    with Pool(arguments.workers) as pool:
        pool.verify([Item(id="warm", kind="math", response=rf"\boxed{{{n}}}", answer="-1") for n in range(64)])
        pooled, _ = timed(f"jaxpolya, pool of {len(pool._hands)}", lambda: [verdict.verdict == "correct" for verdict in pool.verify(items)])
    print(f"one process {single / theirs:.1f} x, pool {pooled / theirs:.1f} x Math-Verify")
    for item, mine, other in zip(items, verdicts, their_verdicts, strict=True):
        if mine != other:
            print(f"  differs: gold {item.answer!r}, response …{item.response[-60:]!r}: {mine} here, {other} there")


if __name__ == "__main__":
    main()
