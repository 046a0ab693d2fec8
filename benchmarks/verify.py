"""Throughput of the verifier beside Math-Verify's own, on distinct MATH solutions, in one run; and of programs.

    python benchmarks/verify.py [math] [code] [--questions DIR] [--rows N] [--workers N]

Half of the rows answer rightly (the solution's own text, or the answer in a box), half with the answer of another question, so that
both verdicts are timed. Every (gold, response) pair occurs once: nothing comes from a cache. Math-Verify runs as it is meant to be
used on such rows, `verify(parse(gold), parse(response))` in one process; ours runs in one process too (`judge`), and in the pool.

Programs are the reference solutions of HumanEval and MBPP, and bodies that raise or return nothing, each in its own process, in the pool.
The machine's own part in that, interpreters that start and do nothing, is timed beside them.
"""

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

from math_verify import parse, verify

from jaxpolya.config import JsonlSource
from jaxpolya.data.questions import load_questions
from jaxpolya.verify.judge import Item, judge
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox.sandbox import machine_weakness


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


def programs(folder: Path) -> list[Item]:
    sources = [JsonlSource(kind="jsonl", path=folder / f"{name}.jsonl", verifier="code") for name in ("humaneval", "mbpp")]
    items = []
    for question in load_questions(sources).questions:
        responses = [question.answer]
        if "prompt" in question.tests:
            responses += ["    raise NotImplementedError", "    return None"]
        items += [Item(id=question.id, kind="code", response=response, tests=question.tests) for response in responses]
    return items


def code(folder: Path, workers: int | None) -> None:
    items = programs(folder)

    def start_one(_: int) -> bool:
        return subprocess.call([os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"], env={}, close_fds=False) == 0

    with Pool(workers) as pool, ThreadPool(len(pool._hands)) as threads:
        pool.verify([Item(id="warm", kind="code", response=f"def f(): return {n}", tests=["assert f() == -1"]) for n in range(64)])
        timed(f"bare interpreters, {len(pool._hands)} at once", lambda: threads.map(start_one, range(500)))
        timed(f"programs, pool of {len(pool._hands)}", lambda: [verdict.verdict == "correct" for verdict in pool.verify(items)])
    print(f"  protection: {machine_weakness() or 'namespaces'}")


def math(folder: Path, rows: int, workers: int | None) -> None:
    items = load(folder, rows)

    def math_verify() -> list[bool]:
        return [verify(parse(f"\\boxed{{{item.answer}}}"), parse(item.response)) for item in items]

    def ours() -> list[bool]:
        return [judge(item).verdict == "correct" for item in items]

    verify(parse("$1+x$"), parse("$x+1$"))
    judge(Item(id="warm", kind="math", response=r"\boxed{\int_0^1 x dx}", answer=r"\int_0^1 y dy"))
    theirs, their_verdicts = timed("Math-Verify, one process", math_verify)
    single, verdicts = timed("jaxpolya, one process", ours)
    with Pool(workers) as pool:
        pool.verify([Item(id="warm", kind="math", response=rf"\boxed{{{n}}}", answer="-1") for n in range(64)])
        pooled, _ = timed(f"jaxpolya, pool of {len(pool._hands)}", lambda: [verdict.verdict == "correct" for verdict in pool.verify(items)])
    print(f"one process {single / theirs:.1f} x, pool {pooled / theirs:.1f} x Math-Verify")
    for item, mine, other in zip(items, verdicts, their_verdicts, strict=True):
        if mine != other:
            print(f"  differs: gold {item.answer!r}, response …{item.response[-60:]!r}: {mine} here, {other} there")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["math", "code"], metavar="PART", help="math, code; both by default")
    parser.add_argument("--questions", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data" / "questions")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    if not (arguments.questions / "math500.jsonl").is_file():
        sys.exit(f"no MATH questions in {arguments.questions}; name their folder with --questions")
    logging.disable(logging.WARNING)
    if "math" in arguments.parts:
        math(arguments.questions, arguments.rows, arguments.workers)
    if "code" in arguments.parts:
        code(arguments.questions, arguments.workers)


if __name__ == "__main__":
    main()
