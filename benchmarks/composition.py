"""How well judges of heuristics agree with the labelled solutions; writes one table.

    python benchmarks/composition.py                                     # acts and markers, both halves, seconds
    python benchmarks/composition.py --model weights/SmolLM2-135M-Instruct.Q4_1.gguf --solutions 8 --half held_out
    python benchmarks/composition.py --judge examples/short_and_long.py:SaidAloud
    python benchmarks/composition.py --sheet > sheet.md   # problems and solutions without labels, for one more labelling

Precision, recall and kappa are over all pairs of solution and heuristic (micro), as means over heuristics (macro), and on whether a
solution uses several heuristics (composed). Intervals are 95 %, from a bootstrap over solutions.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np

from jaxpolya.evaluation.judge_quality import LabelledSolution, compare, kappa, kappa_interval, labelled_half, labelled_set, used
from jaxpolya.evaluation.judges import NAMED, SEVERAL, HeuristicJudge, own_judge
from jaxpolya.evaluation.passk import Interval
from jaxpolya.polya.catalogue import load_catalogue

HEURISTICS = load_catalogue().heuristics
KEYS = [heuristic.key for heuristic in HEURISTICS]


def model_judge(source: str) -> HeuristicJudge:
    """A model that is asked; imported here, for the other judges need no jax."""
    import jax.numpy as jnp

    import jaxpolya
    from jaxpolya.models.forward import Forward
    from jaxpolya.polya.prompts import PromptBuilder
    from jaxpolya.score.heuristic_judge import ModelJudge

    model = jaxpolya.load(source)
    builder = PromptBuilder(model.checkpoint.tokenizer)
    return ModelJudge(model.checkpoint.params, Forward(model.checkpoint.config, jnp.float32), model.mesh, builder, HEURISTICS, model=source)


def cell(interval: Interval | None) -> str:
    """An interval for a cell."""
    return "undefined" if interval is None else f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def share(count: int, of: int) -> str:
    """A share for a cell."""
    return f"{count / of:.2f}" if of else "–"


def table(name: str, labels: Sequence[Sequence[str]], shown: Sequence[LabelledSolution]) -> str:
    """The table of one judge."""
    people_SH, judge_SH = used([one.labels for one in shown], KEYS), used(labels, KEYS)
    hits_H, named_H, true_H = (people_SH & judge_SH).sum(0), judge_SH.sum(0), people_SH.sum(0)
    kappas = [kappa(people_SH[:, i], judge_SH[:, i]) for i in range(len(KEYS))]
    known = [value for value in kappas if not math.isnan(value)]
    quality = compare(labels, shown, KEYS)
    hits, named, true = int(hits_H.sum()), int(named_H.sum()), int(true_H.sum())
    micro = f"{share(hits, named)} | {share(hits, true)} | {cell(quality.kappa)}"
    lines = [
        f"\n## {name}: {len(shown)} solutions\n",
        "| heuristic | labelled | named by the judge | precision | recall | kappa |",
        "|---|---|---|---|---|---|",
    ]
    for i, key in enumerate(KEYS):
        interval = cell(kappa_interval(people_SH[:, [i]], judge_SH[:, [i]]))
        lines.append(
            f"| {key} | {true_H[i]} | {named_H[i]} | {share(hits_H[i], named_H[i])} | {share(hits_H[i], true_H[i])} | {interval} |"
        )
    precisions = [hits_H[i] / named_H[i] for i in range(len(KEYS)) if named_H[i]]
    recalls = [hits_H[i] / true_H[i] for i in range(len(KEYS)) if true_H[i]]
    lines.append(f"| **micro** | {true} | {named} | {micro} |")
    macro = f"{np.mean(precisions) if precisions else math.nan:.2f} | {np.mean(recalls):.2f} | {np.mean(known):.2f}"
    lines.append(f"| **macro** | | | {macro} |")
    people_S, judge_S = people_SH.sum(1) >= SEVERAL, judge_SH.sum(1) >= SEVERAL
    hits = int((people_S & judge_S).sum())
    several = f"{share(hits, int(judge_S.sum()))} | {share(hits, int(people_S.sum()))} | {cell(quality.kappa_composed)}"
    lines.append(f"| **composed** | {people_S.sum()} | {judge_S.sum()} | {several} |")
    (_, _), (left, others) = quality.composed, quality.others
    lines.append(f"\nComposed: sensitivity {share(hits, int(people_S.sum()))}, specificity {share(left, others)}.")
    return "\n".join(lines)


def by_writer(labels: Sequence[Sequence[str]], shown: Sequence[LabelledSolution]) -> str:
    """The table of one judge by who wrote the solutions: rules may fit one hand and not another."""
    lines = [
        "\n| writer | solutions | precision | recall | kappa | sensitivity, composed | specificity, composed | kappa, composed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for writer in dict.fromkeys(one.writer for one in shown):
        here = [i for i, one in enumerate(shown) if one.writer == writer]
        theirs, of_them = [labels[i] for i in here], [shown[i] for i in here]
        truth_SH, judge_SH = used([one.labels for one in of_them], KEYS), used(theirs, KEYS)
        hits, quality = int((truth_SH & judge_SH).sum()), compare(theirs, of_them, KEYS)
        found = f"{share(hits, int(judge_SH.sum()))} | {share(hits, int(truth_SH.sum()))} | {cell(quality.kappa)}"
        composed = f"{share(*quality.composed)} | {share(*quality.others)} | {cell(quality.kappa_composed)}"
        lines.append(f"| {writer} | {len(here)} | {found} | {composed} |")
    return "\n".join(lines)


def main() -> None:
    """Writes the tables to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["development", "held_out"], action="append", help="both, by default")
    parser.add_argument("--model", help="checkpoint of a model that is asked")
    parser.add_argument("--judge", help="a judge of one's own, module:attribute or path/to/file.py:attribute")
    parser.add_argument("--solutions", type=int, help="of each half, drawn at random")
    parser.add_argument("--sheet", action="store_true", help="write the solutions without their labels, in shuffled order")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    if args.sheet:
        for place in rng.permutation(len(labelled_set())):
            one = labelled_set()[place]
            print(f"### {one.id}\n\n{one.problem}\n\n{one.solution}\n")
        return
    judges: list[tuple[str, HeuristicJudge]] = []
    if args.model:
        judges.append((f"model ({args.model})", model_judge(args.model)))
    if args.judge:
        judges.append((args.judge, own_judge(args.judge, HEURISTICS)))
    for half in args.half or ("development", "held_out"):
        shown = labelled_half(half)
        if args.solutions and args.solutions < len(shown):
            shown = [shown[i] for i in sorted(rng.choice(len(shown), args.solutions, replace=False))]
        print(table(f"second labelling against the first, {half}", [one.second for one in shown], [_first(one) for one in shown]))
        for name, judge in judges or [(name, make(HEURISTICS)) for name, make in NAMED.items()]:
            labels = judge.label([one.shown for one in shown])
            print(table(f"{name}, {half}", labels, shown), flush=True)
            print(by_writer(labels, shown), flush=True)


def _first(one: LabelledSolution) -> LabelledSolution:
    """The same with the first labelling as what holds."""
    return LabelledSolution(one.id, one.half, one.writer, one.problem, one.solution, one.first, one.second, one.first)


if __name__ == "__main__":
    main()
