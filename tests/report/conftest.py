"""A run's results as the pipeline writes them, made up."""

import copy
import dataclasses

import numpy as np
import pytest

from jaxpolya.evaluation.passk import paired_difference, summarise

SKILL = {"base": (0.35, 1.0), "rl": (0.8, 2.2), "star+rl": (0.9, 1.8), "polya+rl": (1.3, 1.8)}
"""Beta parameters of a question's chance to be solved."""


def around(mean):
    return {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean}


def plain(intervals):
    return {k: dataclasses.asdict(interval) for k, interval in intervals.items()}


def evaluation(arm, questions, samples, seed):
    def counts(arm):
        rng = np.random.default_rng(seed)
        quantiles = np.sort(rng.beta(*SKILL[arm], questions))
        return {f"q{i}": (samples, int(rng.binomial(samples, p))) for i, p in enumerate(quantiles)}

    fields = {
        "questions": questions,
        "samples": samples,
        "pass": plain(summarise(counts(arm), resamples=500, seed=0)),
        "truncated": 0.02 + 0.12 * (arm == "base"),
        "unparseable": 0.04,
        "tokens_mean": 181.3,
        "diversity": {
            **{"questions": questions, "samples": samples, "length": 41, "kernel": "n-gram cosine, n = 1 … 4"},
            **{f"distinct_{n}": around(0.2 * n) for n in (1, 2, 3)},
            **{"self_bleu": around(0.512), "vendi": around(11.25), "label_entropy": around(1.034)},
        },
        "composition": {
            **{"judge": "acts", "questions": 31, "solutions": 204, "rate": around(0.125), "corrected": around(0.2)},
            "quality": {
                **{"solutions": 139, "kappa": around(0.74), "kappa_composed": around(0.4)},
                **{"composed": [13, 30], "others": [101, 109]},
            },
            "by_heuristic": {"pattern": 0.2},
        },
    }
    if arm != "base":
        fields["versus_base"] = plain(paired_difference(counts(arm), counts("base"), resamples=500, seed=0))
    return fields


def rl_steps(count, seed):
    rng = np.random.default_rng(seed)
    return [
        {
            "step": i,
            "reward": float(0.2 + 0.3 * i / count + rng.normal(0, 0.02)),
            "length": float(180 - 40 * i / count + rng.normal(0, 4)),
            "truncated": 0.05,
            "entropy": 0.6,
            "clip": 0.01,
            "kl": 0.001,
            "grad_norm": 0.4,
            "no_signal": 3,
        }
        for i in range(1, count + 1)
    ]


def audited(**changes):
    counts = {"responses": 400, "paid": 100, "numbers": 100, "literals": 100, "checked": 50, "groups": 25}
    shares = {
        "refused": 0.03,
        "not_number": 0.0,
        "not_literal": 0.0,
        "contradictory": 0.01,
        "in_question": 0.2,
        "copied": 0.0,
        "unconfirmed": 0.02,
    }
    return counts | shares | {"length": 181.0, "group": 16.0, "distinct_responses": 12.25, "distinct_answers": 5.0} | changes


def shown(end, step, answer):
    return {
        **{"end": end, "step": step, "question": "What is 17 + 25?", "gold": "42", "answer": answer},
        "response": f"Well | well. <b>So</b>\nthe answer is *{answer}*. " + "More. " * 200,
    }


def whole_run():
    keys = [
        "analogy",
        "work_backward",
        "decompose",
        "auxiliary_element",
        "justify_each_step",
        "bright_idea",
        "specialise",
        "look_for_a_pattern",
    ]
    kept = {key: 31 - 4 * i for i, key in enumerate(keys)}
    sft = {"rows": 136, "tokens": 24_310, "steps": 17, "loss_first": 0.912, "loss_last": 0.604, "heldout_first": 0.95, "heldout_last": 0.71}
    return {
        "run": {"name": "demo", "model": "SmolLM2-135M-Instruct", "seeds": {"generate": 0, "rl": 1}, "devices": ["cpu:0", "cpu:1"]},
        "arms": {
            arm: {
                "eval": {"chain_sum": evaluation(arm, 120, 16, 1), "held_out": evaluation(arm, 40, 16, 2)},
                "sft": sft if arm in ("star+rl", "polya+rl") else None,
                "rl": {"steps": rl_steps(12, i)} if arm.endswith("rl") else None,
            }
            for i, arm in enumerate(SKILL)
        },
        "selection": {
            "polya": {"rows": 136, "questions": 60, "per_question": {"1": 21, "2": 15, "3": 11, "4": 13}, "by_heuristic": kept},
            "star": {"rows": 48, "questions": 48, "per_question": {"1": 48}, "by_heuristic": {"plain": 48}},
        },
        "contamination": {
            "train": {
                **{"n": 13, "dropped": False, "questions": 7112, "shared": 2, "pairs": 3},
                "sets": {"chain_sum": {"shared": 2, "pairs": 3}},
                "examples": [
                    {"train": "t1", "eval_set": "chain_sum", "eval": "q1", "ngram": "what is 3 *4", "whole": True},
                    {"train": "t2", "eval_set": "chain_sum", "eval": "q7", "ngram": "14 plums |x on the first day", "whole": False},
                ],
            },
            "rl": {"n": 13, "dropped": False, "questions": 40, "shared": 0, "pairs": 0, "sets": {}, "examples": []},
        },
        "audit": {
            "generate-polya": {"all": audited(not_literal=0.02), "warnings": []},
            "rl-polya-rl": {
                **{"all": audited(), "first": audited(length=180.0, distinct_responses=7.5), "last": audited(length=9.0, not_literal=0.97)},
                "warnings": ["97.0% of the 100 paid answers of its last steps are no numbers"],
                "shown": [shown("first", 0, "42"), shown("first", 0, "41"), shown("last", 11, "17 + 25")],
            },
            "eval-base-chain_sum": {"all": audited(length=200.0), "warnings": []},
            "eval-polya-rl-chain_sum": {"all": audited(length=10.0), "warnings": ["the 16 responses are one"]},
        },
        "generation": {key: {"samples": 240, "correct": 2 * kept[key], "truncated": 9} for key in keys}
        | {"plain": {"samples": 480, "correct": 110, "truncated": 20}},
        "stages": [
            {"name": "generate", "seconds": 143.2, "tokens": 31_200, "tokens_per_second": 217.9, "rows_busy": 0.84},
            {"name": "select", "seconds": 4.1, "tokens": None, "tokens_per_second": None},
            {"name": "rl", "seconds": 4000.0, "tokens": 12_000, "tokens_per_second": 3.0},
        ],
    }


WHOLE = whole_run()


@pytest.fixture
def results():
    """Four arms, two question sets, all stages."""
    return copy.deepcopy(WHOLE)


@pytest.fixture
def base_only(results):
    """An evaluation of the base model and nothing else; no question solved."""
    nothing = {k: {"mean": 0.0, "low": 0.0, "high": 0.0} for k in ("1", "2", "4")}
    entry = {"questions": 20, "samples": 4, "pass": nothing, "truncated": 0.0, "unparseable": 1.0, "tokens_mean": 12.0}
    return {
        "run": {"name": "bare", "model": "org/Tiny-1B", "arms": ["base"]},
        "arms": {"base": {"eval": {"set": entry}, "sft": None, "rl": None}},
        "stages": [],
    }


@pytest.fixture
def samples():
    """Three records, in the order of a run."""
    shared = {"stage": "eval", "index": 0, "prompt": "What is 17 + 25?", "token_ids": [1], "logprobs": [-0.1], "seed": 0}
    return [
        {
            **shared,
            "id": "a",
            "question_id": "q0",
            "arm": "polya+rl",
            "response": "Split it: 17 + 3 = 20, and 22 more.\n\\boxed{42}",
            "finish": "stop",
            "verdict": "correct",
            "extracted": "42",
        },
        {
            **shared,
            "id": "b",
            "question_id": "q0",
            "arm": "base",
            "response": "```python\nprint(17 + 25)\n```\nIt is 32.",
            "finish": "stop",
            "verdict": "wrong",
            "extracted": "32",
        },
        {
            **shared,
            "id": "c",
            "question_id": "q1",
            "arm": "polya+rl",
            "response": "again " * 2000,
            "finish": "length",
            "verdict": "unparseable",
        },
    ]
