"""Agreement of verdicts with labels: ours, Math-Verify's, lm-eval's filters, on rows whose right verdict is known.

    pip install lm_eval==0.4.13        # in an environment of its own that has jaxpolya too; without it its columns stay empty
    python benchmarks/agreement.py [--rows DIR] [--errors NAME]

Every grader is used as its makers use it, on the same responses: `verify(parse(gold), parse(response))` of Math-Verify with the
extraction it has by default (letters for multiple choice); lm-eval's gsm8k task with its two filters and its exact match, and the
`process_results` of its hendrycks_math task. A row without a response of its own (a gold and a prediction) is asked as the prediction in
a box, or between dollar signs for hendrycks_math, which looks for those. Rows that need a setting of their own are left out.

The table counts false positives / false negatives for each set of rows and grader. `--errors ours` lists the rows that a grader gets wrong.
"""

import argparse
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify
from rich.console import Console
from rich.table import Table

from jaxpolya.api.verifying import verify_response
from jaxpolya.errors import InputError
from jaxpolya.verify.mathematics.latex import undelimited
from jaxpolya.verify.speech import spoken

Grader = Callable[["Row"], bool]


@dataclass(frozen=True)
class Row:
    id: str
    gold: str
    response: str
    right: bool
    boxed: bool = False  # the response is a prediction in a box
    style: str = "statement"
    question: str = ""
    choices: list[str] | None = None

    @property
    def prediction(self) -> str:
        return self.response.removeprefix(r"\boxed{").removesuffix("}") if self.boxed else self.response


def lines(path: Path) -> Iterator[dict]:
    with path.open() as file:
        yield from map(json.loads, file)


def asked(row: dict, gold: str, prediction: str, whole: bool = False) -> Row:
    """A row of a gold and a prediction. whole: the prediction is a response already."""
    response = prediction if whole else rf"\boxed{{{undelimited(prediction)}}}"
    return Row(row["id"], undelimited(gold), response, row.get("verdict", True), boxed=not whole, style="number" if whole else "statement")


def formula(text: str, latex_only: bool) -> str:
    """A text without prose, or the formula that Math-Verify finds in a whole solution."""
    if not is_prose(text):
        return text
    values = parse(text, [LatexExtractionConfig()] if latex_only else [LatexExtractionConfig(), ExprExtractionConfig()])
    return str(values[-1]) if values else ""


def is_prose(text: str) -> bool:
    bare = re.sub(r"\\[a-z]+(\{[^{}]*\})?", " ", text)
    return bool(re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", bare) or re.search(r"[A-Z][a-z]+ [:$\\]|boxed", text))


def sets(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Every set of rows that has labels, by name."""
    gsm8k = [row for row in lines(folder / "gsm8k_model_solutions.jsonl") if "\nA: " in row["response"]]
    for name, mark in (("GSM8K model solutions, `A: 42`", "\nA: "), ("the same, written `#### 42`", "\n#### ")):
        yield name, [Row(row["id"], row["gold"], mark.join(row["response"].rsplit("\nA: ", 1)), row["verdict"]) for row in gsm8k]
    for name in ("constructed_variants", "misc_harness_cases", "hendrycks_is_equiv_tests"):
        yield (
            f"`{name}`",
            [
                asked(row, row["gold"], row["pred"], whole=name.startswith("misc") and is_prose(row["pred"]))
                for row in lines(folder / f"{name}.jsonl")
            ],
        )
    pairs = [(row, "latex_notation" in row["id"]) for row in lines(folder / "math_verify_tests.jsonl") if not row["extra"]]
    yield "`math_verify_tests`", [asked(row, formula(row["gold"], latex), formula(row["pred"], latex)) for row, latex in pairs]
    raw = lines(folder / "normalisation_cases.jsonl")
    yield "`normalisation_cases`", [asked(row, spoken(row["raw"]), row["normalised"]) for row in raw]
    cases = lines(folder / "extraction_cases.jsonl")
    yield (
        "`extraction_cases`",
        [Row(row["id"], row["expected_answer"], row["response"], True) for row in cases if row["expected_answer"] is not None],
    )
    reported = [row for row in lines(folder / "reported_kinds.jsonl") if row["kind"] != "code"]
    for kind in ("math", "choice"):
        yield f"`reported_kinds`, {kind}", [
            Row(
                row["id"], str(row["row"]["answer"]), row["row"]["response"], row["expected"] == "correct",
                style=row["row"].get("extraction", "statement"), question=row["row"].get("question", ""), choices=row["row"].get("choices"),
            )
            for row in reported if row["kind"] == kind
        ]  # fmt: skip


def ours(unevaluated: str) -> Grader:
    def grade(row: Row) -> bool:
        kind = "choice" if row.choices else "math"
        verdict = verify_response(
            row.response, answer=row.gold, question=row.question, kind=kind, extraction=row.style, choices=row.choices,
            unevaluated=unevaluated,
        )  # fmt: skip
        return verdict.verdict == "correct"

    return grade


def math_verify(row: Row) -> bool:
    if row.choices:
        letters = [StringExtractionConfig(strings=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(row.choices)]))]
        return verify(parse(row.gold, letters), parse(row.response, letters))
    return verify(parse(rf"\boxed{{{row.gold}}}", [LatexExtractionConfig()]), parse(row.response))


def lm_eval_graders() -> dict[str, Grader]:
    """lm-eval's graders by name, or none where it isn't installed."""
    try:
        from lm_eval.api.metrics import exact_match_hf_evaluate
        from lm_eval.filters.extraction import RegexFilter
        from lm_eval.tasks.hendrycks_math import utils
    except ImportError:
        return {}
    import lm_eval
    import yaml

    task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml").read_text())
    metric = {key: task["metric_list"][0][key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def filtered(steps: list[dict]) -> Grader:
        settings = {key: value for key, value in steps[0].items() if key != "function"}
        regex = RegexFilter(**settings)
        return lambda row: bool(
            exact_match_hf_evaluate(predictions=[regex.apply([[row.response]], [{}])[0][0]], references=[row.gold], **metric)["exact_match"]
        )

    def hendrycks(row: Row) -> bool:
        response = f"${row.prediction}$" if row.boxed else row.response
        return bool(utils.process_results({"solution": rf"\boxed{{{row.gold}}}"}, [response])["exact_match"])

    return {f"lm-eval {entry['name']}": filtered(entry["filter"]) for entry in task["filter_list"]} | {"lm-eval MATH": hendrycks}


def wrong(grade: Grader, rows: Iterable[Row]) -> list[tuple[Row, bool]]:
    """The rows that a grader judges otherwise than their label, with its verdict. One that raises has not accepted."""
    misjudged = []
    for row in rows:
        verdict = False
        with contextlib.suppress(InputError, AssertionError, TypeError, ValueError, IndexError):
            verdict = bool(grade(row))
        if verdict is not row.right:
            misjudged.append((row, verdict))
    return misjudged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "oracles" / "verifier")
    parser.add_argument("--errors", metavar="NAME", help="list the rows that this grader gets wrong")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # Math-Verify's own words on what it can't parse
    graders: dict[str, Grader] = {"ours": ours("refuse"), "ours, `accept`": ours("accept"), "Math-Verify": math_verify, **lm_eval_graders()}
    table = Table("rows", "right", "wrong", *graders)
    for name, rows in sets(arguments.rows):
        cells = []
        for grader, grade in graders.items():
            if rows[0].choices and grader.startswith("lm-eval"):
                cells.append("")
                continue
            errors = wrong(grade, rows)
            cells.append(f"{sum(verdict for _, verdict in errors)} / {sum(not verdict for _, verdict in errors)}")
            if grader == arguments.errors:
                for row, verdict in errors:
                    print(f"{name}\t{row.id}\t{'accepted' if verdict else 'refused'}\t{row.gold!r}\t{row.response[-120:]!r}")
        right = sum(row.right for row in rows)
        table.add_row(name, str(right), str(len(rows) - right), *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
