"""Diversity against other libraries' numbers, against what must hold of every text, and on a question set."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxpolya.evaluation import diversity
from jaxpolya.evaluation.diversity import chosen, common_length, distinct_n, label_entropy, self_bleu, summarise_diversity, vendi
from jaxpolya.ngrams import NgramKernel, words
from jaxpolya.records import Sample
from jaxpolya.results import Diversity

RESPONSES = [
    "Add 3 and 4. The answer is 7.",
    "First add 3 and 4, which makes 7. The answer is 7.",
    "Three and four more: the answer is 7.",
    "Count on from 3: 4, 5, 6, 7. So it is 7.",
]
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), min_size=2, max_size=6)


def test_self_bleu_is_that_of_sacrebleu_and_nltk():
    # sacrebleu 2.6.0: BLEU(smooth_method="floor", smooth_value=0.1, tokenize="none", effective_order=True).sentence_score;
    # NLTK 3.10.4: sentence_bleu with SmoothingFunction().method1. Mean over responses, each against the other three.
    assert self_bleu([words(response) for response in RESPONSES]) == pytest.approx(0.4356010543194029, abs=1e-12)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # sacrebleu as above; NLTK has no effective order for texts of fewer than four words.
        ([["a", "b"], ["a", "b", "c"], ["b", "c", "a", "d", "e"]], 0.39881096201406846),
        ([["a", "b", "c", "d", "e"], ["a", "b", "x", "d", "e", "f"], ["e", "d", "c", "b", "a"]], 0.12411399436511145),
        ([["a"] * 6, ["a"] * 2, ["b"] * 3], 0.23095488728322625),
    ],
)
def test_short_texts_and_brevity(texts, expected):
    assert self_bleu(texts) == pytest.approx(expected, abs=1e-12)


def test_the_ngram_vendi_score_is_that_of_its_authors():
    # vendi_score 0.0.3: score_K of the mean of the normalised n-gram counts' Gram matrices for n = 1 … 4, on the same words.
    assert vendi(NgramKernel().gram(RESPONSES)) == pytest.approx(3.2459663722836645, abs=1e-12)


def test_vendi_counts_groups():
    points = np.array([0.0, 0, 10, 10, 20, 20])
    score = vendi(np.exp(-np.abs(points[:, None] - points)))
    assert 3 - score == pytest.approx(4.1223e-9, rel=1e-3)
    assert vendi(np.eye(7)) == pytest.approx(7) and vendi(np.ones((7, 7))) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), np.ones(3), 2 * np.eye(3)])
def test_vendi_refuses_what_is_no_similarity(wrong):
    with pytest.raises(ValueError, match="ones on the diagonal"):
        vendi(wrong)


@given(TEXTS, st.randoms(use_true_random=False))
def test_bounds_and_order(texts, rng):
    shuffled = rng.sample(texts, len(texts))
    scores = [(vendi(NgramKernel().gram([" ".join(text) for text in some])), self_bleu(some)) for some in (texts, shuffled)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-9)
    assert 1 - 1e-9 <= scores[0][0] <= len(texts) + 1e-9
    assert 0 <= scores[0][1] <= 1 + 1e-12
    assert distinct_n(texts, 3) == distinct_n(shuffled, 3) and all(0 < share <= 1 for share in distinct_n(texts, 3))
    for n, share in enumerate(distinct_n(texts, 3), 1):
        grams = [tuple(text[i : i + n]) for text in texts for i in range(max(1, len(text) - n + 1))]
        assert share == len(set(grams)) / len(grams)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(2, 5))
def test_identical_responses(text, copies):
    assert self_bleu([text] * copies) == pytest.approx(1)
    assert vendi(NgramKernel().gram([" ".join(text)] * copies)) == pytest.approx(1)
    assert distinct_n([text] * copies, 1) == [pytest.approx(len(set(text)) / len(text) / copies)]


def test_nothing_in_common():
    texts = ["one two three four five", "six seven eight nine", "ten"]
    assert vendi(NgramKernel().gram(texts)) == pytest.approx(3) and self_bleu([words(text) for text in texts]) == 0
    # Empty responses are alike too, and unlike all others.
    assert vendi(NgramKernel().gram(["", "", "a b"])) == pytest.approx(math.exp(-(2 / 3) * math.log(2 / 3) - math.log(1 / 3) / 3))


def test_self_bleu_needs_another():
    with pytest.raises(ValueError, match="one alone"):
        self_bleu([["a"]])


def test_label_entropy_is_in_nats():
    assert label_entropy([["a"], ["b"], ["a"], ["b"]]) == pytest.approx(math.log(2))
    assert label_entropy([["a"], ["a"]]) == 0 and str(label_entropy([["a"]])) == "0.0"
    # A response of two labels gives half of its weight to each; one without any is of a kind of its own.
    assert label_entropy([["a", "b"]]) == pytest.approx(math.log(2))
    assert label_entropy([["a"], []]) == pytest.approx(math.log(2))


# A question set ----------------------------------------------------------------------------------------------------------


def sample(question, index, response, **more):
    shared = {"arm": "base", "stage": "eval", "prompt": "?", "token_ids": [1, 2], "logprobs": [-1.0, -1.0], "finish": "stop", "seed": 0}
    return Sample(id=f"{question}#{index}", question_id=question, index=index, response=response, **shared | more)


def same_and_different():
    return [
        *(sample("same", i, "Add them. It is 7.") for i in range(4)),
        *(sample("different", i, response) for i, response in enumerate(RESPONSES)),
        sample("alone", 0, "One response only."),
    ]


def test_a_question_set_is_the_mean_of_its_questions():
    samples = same_and_different()
    summary = summarise_diversity(samples, length=6, labels=None, resamples=50, seed=0)
    assert Diversity.model_validate(summary).vendi == summary["vendi"]
    assert {key: summary[key] for key in ("questions", "samples", "length")} == {"questions": 2, "samples": 4, "length": 6}
    assert summary["kernel"] == NgramKernel.name and "label_entropy" not in summary
    assert summary["vendi"].mean == pytest.approx((1 + 3.2459663722836645) / 2)
    assert summary["self_bleu"].mean == pytest.approx((1 + 0.4356010543194029) / 2)
    cut = [words(response)[:6] for response in RESPONSES]
    assert summary["distinct_2"].mean == pytest.approx((5 / 20 + distinct_n(cut, 2)[1]) / 2)
    assert summary["vendi"].low < summary["vendi"].mean < summary["vendi"].high
    assert summarise_diversity(samples[-1:], length=6, labels=None, resamples=50, seed=0) is None


def test_length_does_not_decide():
    """A model that says the same kind of thing at twice the length is as diverse by distinct-n at the common length."""
    rng = np.random.default_rng(0)
    short = [sample(f"q{q}", i, " ".join(rng.choice(list("abcdefghij"), 30))) for q in range(20) for i in range(4)]
    long = [sample(f"q{q}", i, " ".join(rng.choice(list("abcdefghij"), 60))) for q in range(20) for i in range(4)]
    length = common_length([short, long])
    assert length == 30
    settings = {"labels": None, "resamples": 50, "seed": 0}
    cut = [summarise_diversity(samples, length=length, **settings)["distinct_2"].mean for samples in (short, long)]
    whole = [summarise_diversity(samples, length=60, **settings)["distinct_2"].mean for samples in (short, long)]
    assert abs(cut[0] - cut[1]) < 0.03 < whole[0] - whole[1]


def test_labels_come_from_the_judge_or_from_the_asking():
    samples = same_and_different()[:4]
    judged = {"same#0": ["a"], "same#1": ["b"]}
    settings = {"length": 6, "resamples": 10, "seed": 0}
    assert summarise_diversity(samples, labels=judged, **settings)["label_entropy"].mean == pytest.approx(math.log(2))
    asked = [sample("q", i, "x", heuristic=["a", "b", "c", "d"][i]) for i in range(4)]
    assert summarise_diversity(asked, labels=None, **settings)["label_entropy"].mean == pytest.approx(math.log(4))


def test_another_kernel_stands_in_the_result():
    class Length:
        name = "length"

        def gram(self, responses):
            lengths = np.array([len(response) for response in responses], float)
            return np.exp(-np.abs(lengths[:, None] - lengths))

    samples = [sample("q", i, "x" * (1 + 10 * (i // 2))) for i in range(6)]
    summary = summarise_diversity(samples, length=1, labels=None, resamples=10, seed=0, kernel=Length())
    assert summary["kernel"] == "length" and 3 - summary["vendi"].mean == pytest.approx(4.1223e-9, rel=1e-3)


def test_what_is_looked_at_is_bounded_alike_for_all_and_nested():
    samples = [sample(f"q{q}", i, "x") for q in range(diversity.QUESTIONS + 30) for i in range(diversity.RESPONSES + 2)]
    subset = chosen(samples, seed=1)
    assert len(subset) == diversity.QUESTIONS * diversity.RESPONSES
    assert {s.index for s in subset} == set(range(diversity.RESPONSES)) and not any(s.token_ids or s.logprobs for s in subset)
    assert {s.id for s in chosen(samples[::-1], seed=1)} == {s.id for s in subset}
    assert {s.id for s in chosen(samples, 1, questions=50, responses=4)} < {s.id for s in subset}
    assert {s.question_id for s in chosen(samples, seed=2)} != {s.question_id for s in subset}
