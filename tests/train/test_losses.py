"""Means, divergences and the whole loss: closed forms, gradients, padding, packing, and an oracle made by other implementations."""

import json
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.config import Aggregation, KlConfig, ValueConfig
from jaxpolya.train.algorithms import PRESETS
from jaxpolya.train.losses import Mean, PolicyLoss, Tokens, Values, aggregate, kl_estimates
from jaxpolya.train.policy_terms import Cispo, Gspo, PpoClip, Reinforce

ORACLE = Path(__file__).parents[2].parent / "shared/oracles/policy_losses.json"
MODES = typing.get_args(Aggregation)
CLIP = PpoClip(0.2, 0.28)
TERMS = [CLIP, PpoClip(0.2, 0.28, dual=3.0), Gspo(0.1, 0.1), Gspo(0.1, 0.1, "token"), Cispo(), Reinforce()]

COMBINATIONS = sorted({(preset.token_loss, preset.aggregation) for preset in PRESETS.values()} | {(CLIP, mode) for mode in MODES}, key=str)
"""What the presets are made of, and each aggregation once."""


def batch(rows=3, length=7, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, rows)
    mask = np.arange(length) < lengths[:, None]
    old = -rng.exponential(1.0, (rows, length))
    new = old + rng.normal(0, 0.4, (rows, length))
    advantages = np.repeat(rng.normal(0, 1, (rows, 1)), length, axis=1)
    return [np.asarray(x, np.float32) for x in (new, old, advantages)] + [mask]


def measured(loss: PolicyLoss, *arrays, entropy=None, values=None, **named):
    arrays = [None if array is None else jnp.asarray(array) for array in arrays]
    tokens = Tokens.of(*arrays, **named)
    return loss(tokens, jnp.zeros_like(tokens.logp_new_BT) if entropy is None else entropy, values)


def loss_value(loss: PolicyLoss, *arrays, **named):
    return measured(loss, *arrays, **named)[0]["loss"].value


@pytest.mark.parametrize("term", [CLIP, PpoClip(0.2, 0.28, dual=3.0), Gspo(0.1, 0.1), Reinforce()], ids=str)
def test_gradients_match_finite_differences(term):
    """Of the terms without a stopped gradient, which is none of a value's; tests/train/test_policy_terms.py has those."""
    with jax.enable_x64(True):
        new, old, advantages, mask = (jnp.asarray(x, jnp.float64) if x.dtype != bool else jnp.asarray(x) for x in batch())
        for mode in MODES if term == CLIP else ["seq_mean_token_mean"]:
            loss = PolicyLoss(term, mode, max_length=7)
            value = lambda new, loss=loss: loss_value(loss, new, old, advantages, mask)  # noqa: E731
            gradient = jax.grad(value)(new)
            direction = jnp.asarray(np.random.default_rng(1).normal(size=new.shape))
            slope = (value(new + 1e-6 * direction) - value(new - 1e-6 * direction)) / 2e-6
            assert jnp.vdot(gradient, direction) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("term", TERMS, ids=str)
@pytest.mark.parametrize("garbage", [-1e9, 1e9, np.nan, np.inf, -np.inf])
def test_padding_reaches_neither_values_nor_gradients(garbage, term):
    new, old, advantages, mask = batch()
    soiled = [np.where(mask, x, y).astype(np.float32) for x, y in ((new, garbage), (old, -garbage), (advantages, garbage))]
    whole = PolicyLoss(term, "seq_mean_token_mean", entropy_bonus=0.1)

    def run(new, old, advantages, entropy):
        def loss(new):
            means, peaks = measured(whole, new, old, advantages, mask, entropy=jnp.asarray(entropy))
            return means["loss"].sum, (means, peaks)

        return jax.value_and_grad(loss, has_aux=True)(jnp.asarray(new))

    clean, soiled = run(new, old, advantages, -new), run(*soiled, -soiled[0])
    for expected, actual in zip(jax.tree.leaves(clean), jax.tree.leaves(soiled), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert not np.asarray(soiled[1])[~mask].any()


@pytest.mark.parametrize("term", TERMS, ids=str)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_float32_stays_finite(advantage, term):
    one = jnp.ones((1, 1))
    value, gradient = jax.value_and_grad(lambda new: loss_value(PolicyLoss(term), new, -200 * one, advantage * one, one > 0))(-0.1 * one)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_half_precision_is_summed_in_float32():
    values = jnp.full((1, 4096), 1.001, jnp.bfloat16)
    total = aggregate(values, values > 0, "token_mean")
    assert total.sum.dtype == total.count.dtype == jnp.float32
    assert total.count == 4096 and total.value == pytest.approx(float(values[0, 0]))


def test_aggregations_by_hand():
    values = jnp.array([[1.0, 2.0, 3.0], [5.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    mask = jnp.array([[True, True, True], [True, False, False], [False, False, False]])
    pairs = {mode: aggregate(values, mask, mode, max_length=10) for mode in MODES}
    assert {mode: (float(pair.sum), float(pair.count)) for mode, pair in pairs.items()} == {
        "token_mean": (11, 4),
        "seq_mean_token_mean": (2 + 5, 2),
        "seq_mean_token_sum": (6 + 5, 2),
        "constant": (11, 30),
    }


def test_constant_needs_its_divisor():
    with pytest.raises(ValueError, match="max_length"):
        aggregate(jnp.ones((1, 1)), jnp.ones((1, 1), bool), "constant")


def test_nothing_counted_is_zero():
    new, old, advantages, mask = batch()
    for mode in MODES:
        assert loss_value(PolicyLoss(CLIP, mode, max_length=7), new, old, advantages, np.zeros_like(mask)) == 0


def packed_and_padded():
    """Six sequences, one of them masked whole, each with a prompt token: padded [6, 5], and the same in three rows of 16."""
    arrays = batch(rows=6, length=5)
    mask = arrays[3].copy()
    mask[:, 0] = mask[2] = False
    lengths = arrays[3].sum(axis=1)
    packed = [np.full((3, 16), -7, np.float32) for _ in range(3)] + [np.zeros((3, 16), bool), np.zeros((3, 16), np.int32)]
    for row, members in enumerate([(0, 1, 2), (3, 4), (5,)]):
        start = 0
        for number, i in enumerate(members, 1):
            here = slice(start, start := start + lengths[i])
            for target, source in zip(packed, [*arrays[:3], mask, np.full((6, 5), number)], strict=True):
                target[row, here] = source[i, : lengths[i]]
    return packed, [*arrays[:3], mask]


@pytest.mark.parametrize(("term", "mode"), COMBINATIONS, ids=str)
def test_packed_rows_give_the_padded_numbers(term, mode):
    packed, padded = packed_and_padded()
    loss = PolicyLoss(term, mode, max_length=5, entropy_bonus=0.1)
    expected, _ = measured(loss, *padded, entropy=-padded[0])
    means, _ = measured(loss, *packed, entropy=-packed[0])
    for name, pair in expected.items():
        assert means[name].sum == pytest.approx(float(pair.sum), rel=1e-6, abs=1e-6), name
        assert means[name].count == pair.count, name
    gradients = [jax.grad(lambda new, rest=rest: measured(loss, new, *rest)[0]["loss"].sum)(new) for new, *rest in (packed, padded)]
    np.testing.assert_allclose(*(np.sort(gradient[np.nonzero(gradient)]) for gradient in gradients), atol=1e-6)


@pytest.mark.parametrize(("term", "mode"), COMBINATIONS, ids=str)
def test_micro_batches_add_up(term, mode):
    arrays = batch(rows=4)
    loss = PolicyLoss(term, mode, max_length=7)
    whole, _ = measured(loss, *arrays)
    halves = [measured(loss, *(x[rows] for x in arrays))[0] for rows in (slice(0, 1), slice(1, 4))]
    total = jax.tree.map(jnp.add, *halves)
    for name, pair in whole.items():
        assert isinstance(total[name], Mean)
        assert total[name].value == pytest.approx(float(pair.value), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize(("q", "k2_error"), [([0.5, 0.2, 0.3], 0.25), ([0.69, 0.21, 0.1], 0.02)])
def test_kl_estimates_average_to_the_divergence(q, k2_error):
    p, q = np.array([0.7, 0.2, 0.1]), np.array(q)
    divergence = float((p * np.log(p / q)).sum())
    with jax.enable_x64(True):
        k1, k2, k3 = (np.asarray(k[0]) for k in kl_estimates(jnp.log(p)[None], jnp.log(q)[None], jnp.ones((1, 3), bool)).values())
    # Exact expectations under p. k2's bias is of third order: it shrinks as q nears p.
    assert k1 @ p == pytest.approx(divergence, rel=1e-12)
    assert k3 @ p == pytest.approx(divergence, rel=1e-12) and (k3 >= 0).all()
    assert k2 @ p == pytest.approx((p * np.log(p / q) ** 2).sum() / 2, rel=1e-12)
    assert k2 @ p == pytest.approx(divergence, rel=k2_error)


def test_kl_estimates_have_the_gradients_that_are_said_of_them():
    """Expected gradients of a loss at tokens drawn from p, by the logits of p, against those of the two divergences."""
    logits, q = jnp.array([0.4, -0.3, 0.9]), jnp.array([0.5, 0.2, 0.3])
    with jax.enable_x64(True):
        p = np.asarray(jax.nn.softmax(logits))

        def expected(estimator):
            def loss(logits):
                estimates = kl_estimates(jax.nn.log_softmax(logits)[None], jnp.log(q)[None], jnp.ones((1, 3), bool))
                return (estimates[estimator][0] * p).sum()  # the tokens are drawn: p's own weight has no gradient

            return jax.grad(loss)(logits)

        def rewarded(estimator):
            logp = jax.nn.log_softmax(logits)
            penalty = kl_estimates(logp[None], jnp.log(q)[None], jnp.ones((1, 3), bool))[estimator][0]
            return jax.grad(lambda logits: (p * jax.lax.stop_gradient(penalty) * jax.nn.log_softmax(logits)).sum())(logits)

        def divergence(direction):
            def kl(logits):
                logp = jax.nn.log_softmax(logits)
                return (jnp.exp(logp) * (logp - jnp.log(q))).sum() if direction == "p, q" else (q * (jnp.log(q) - logp)).sum()

            return jax.grad(kl)(logits)

        np.testing.assert_allclose(expected("k1"), 0, atol=1e-7)
        np.testing.assert_allclose(expected("k2"), divergence("p, q"), atol=1e-7)
        np.testing.assert_allclose(expected("k3"), divergence("q, p"), atol=1e-7)
        np.testing.assert_allclose(rewarded("k1"), divergence("p, q"), atol=1e-7)
        np.testing.assert_allclose(rewarded("k3"), divergence("p, q") - divergence("q, p"), atol=1e-7)


def test_an_entropy_bonus_takes_its_share_off_every_token():
    new, old, advantages, mask = batch()
    entropy = jnp.asarray(np.random.default_rng(2).uniform(0, 3, new.shape), jnp.float32)
    without, bonus = (loss_value(PolicyLoss(CLIP, entropy_bonus=b), new, old, advantages, mask, entropy=entropy) for b in (0.0, 0.3))
    assert bonus == pytest.approx(float(without) - 0.3 * float(entropy[mask].mean()), rel=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_divergence_from_the_reference_is_added_to_every_token(estimator):
    new, old, advantages, mask = batch()
    ref = old + np.random.default_rng(3).normal(0, 0.2, old.shape).astype(np.float32)
    plain, means = (
        measured(PolicyLoss(CLIP, kl=kl), new, old, advantages, mask, logp_ref_BT=jnp.asarray(ref))[0]
        for kl in (None, KlConfig(weight=0.5, estimator=estimator))
    )
    d = (new - ref)[mask].astype(np.float64)
    kl = {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}[estimator]
    assert means["loss"].value == pytest.approx(float(plain["loss"].value) + 0.5 * kl.mean(), rel=1e-5)
    assert means["reference_kl"].value == plain["reference_kl"].value == pytest.approx((np.exp(-d) - 1 + d).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="reference's log-probs"):
        measured(PolicyLoss(CLIP, kl=KlConfig(weight=0.5)), new, old, advantages, mask)


@pytest.mark.parametrize("correction", [{"tis": 1.2}, {"icepop": (0.8, 1.25)}])
def test_corrections_weigh_each_token_without_a_gradient(correction):
    new, old, advantages, mask = batch()
    sampler = jnp.asarray(old + np.random.default_rng(3).normal(0, 0.3, old.shape).astype(np.float32))
    w = np.exp(np.asarray(old - sampler, np.float64))
    outside = w > 1.2 if "tis" in correction else (w < 0.8) | (w > 1.25)
    weights = np.where(outside, 1.2 if "tis" in correction else 0.0, w)

    def gradient(loss, **named):
        return jax.grad(lambda new: measured(loss, new, old, advantages, mask, **named)[0]["loss"].sum)(jnp.asarray(new))

    actual = gradient(PolicyLoss(CLIP, **correction), logp_sampler_BT=sampler)
    np.testing.assert_allclose(actual, gradient(PolicyLoss(CLIP)) * np.where(mask, weights, 0), rtol=1e-5, atol=1e-7)
    means, _ = measured(PolicyLoss(CLIP, **correction), new, old, advantages, mask, logp_sampler_BT=sampler)
    assert means["corrected"].value == pytest.approx(outside[mask].mean()) and 0 < outside[mask].mean() < 1
    d = np.asarray(new - sampler, np.float64)[mask]
    assert means["sampler_kl"].value == pytest.approx((np.exp(d) - 1 - d).mean(), rel=1e-4)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_value_loss_is_the_larger_of_two_errors(clip):
    """Against the formula written out in float64, its gradient too; what lies outside the mask reaches neither."""
    (new, old, _, mask), rng = batch(), np.random.default_rng(4)
    old_values = rng.normal(0, 1, new.shape)
    values, returns = old_values + rng.normal(0, 0.4, new.shape), old_values + rng.normal(0, 0.4, new.shape)
    held = old_values + np.clip(values - old_values, -(clip or np.inf), clip or np.inf)
    errors, bounded = (values - returns) ** 2 / 2, (held - returns) ** 2 / 2
    slope = np.where(errors >= bounded, values - returns, np.where(np.abs(values - old_values) < (clip or np.inf), held - returns, 0))
    arrays = [np.where(mask, x, np.nan).astype(np.float32) for x in (values, old_values, returns)]
    loss, policy = PolicyLoss(CLIP, value=ValueConfig(clip=clip)), measured(PolicyLoss(CLIP), new, old, new, mask)[0]["loss"].value

    def value_loss(new_values):
        means, _ = measured(loss, new, old, new, mask, values=Values(new_values, *map(jnp.asarray, arrays[1:])))
        return means["loss"].value, means

    (value, means), gradient = jax.value_and_grad(value_loss, has_aux=True)(jnp.asarray(arrays[0]))
    assert means["value_loss"].value == pytest.approx(np.maximum(errors, bounded)[mask].mean(), rel=1e-6)
    assert value == pytest.approx(float(policy + means["value_loss"].value), rel=1e-6)
    assert means["value_clip"].value == pytest.approx((bounded > errors)[mask].mean()) and (clip is None) == (
        means["value_clip"].value == 0
    )
    np.testing.assert_allclose(gradient, np.where(mask, slope, 0) / mask.sum(), rtol=1e-5, atol=1e-7)


def oracle_fixture(dtype):
    i, t = np.arange(6)[:, None], np.arange(5)[None]
    old = -1 - 0.1 * i - 0.05 * t
    lengths = np.array([5, 2, 3, 4, 1, 5])[:, None]
    advantages = np.broadcast_to(np.array([1, -1, 0.5, -0.5, 2, -2])[:, None], (6, 5))
    floats = (old + 0.6 * np.sin(1.7 * i + 0.9 * t), old, old - 0.2 * np.cos(i + t), old + 0.3 * np.sin(2 * i - t), advantages)
    return [jnp.asarray(x, dtype) for x in floats] + [jnp.asarray(t < lengths)]


@pytest.mark.skipif(not ORACLE.exists(), reason="the oracle file lies outside the repository")
@pytest.mark.parametrize(("x64", "tolerance"), [(True, 1e-6), (False, 1e-5)])
def test_oracle(x64, tolerance):
    expected = {name: entry["value"] for name, entry in json.loads(ORACLE.read_text())["expected"].items()}
    with jax.enable_x64(x64):
        new, old, ref, rollout, advantages, mask = oracle_fixture(jnp.float64 if x64 else jnp.float32)
        value = lambda loss, **named: loss_value(loss, new, old, advantages, mask, **named)  # noqa: E731
        values = {
            f"ppo_clip_0.2_0.28_{mode}": value(PolicyLoss(CLIP, mode))
            for mode in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum")
        }
        values["ppo_clip_0.2_0.2_token_mean"] = value(PolicyLoss(PpoClip(0.2, 0.2)))
        values["dr_grpo_0.2_0.28_constant_T5_divided_by_rows"] = value(PolicyLoss(CLIP, "constant", max_length=5))
        for form in ("sequence", "token"):
            name = "gspo_0.2_0.28_sequence_mean"
            gspo = value(PolicyLoss(Gspo(0.2, 0.28, form), "seq_mean_token_mean"))
            np.testing.assert_allclose(gspo, expected[name], rtol=0, atol=tolerance, err_msg=f"{name}, {form} form")
            values[name] = gspo
        values["ppo_clip_0.2_0.28_token_mean_times_truncated_importance_weight_cap_1.2"] = value(
            PolicyLoss(CLIP, tis=1.2), logp_sampler_BT=rollout
        )
        for name, kl in kl_estimates(new, ref, mask).items():
            values[f"kl_{name}_token_mean"] = aggregate(kl, mask, "token_mean").value
        gradient = jax.grad(lambda new: loss_value(PolicyLoss(CLIP), new, old, advantages, mask))(new)
        for row in (0, 1):
            values[f"gradient_wrt_logp_new_ppo_clip_0.2_0.28_token_mean_row_{row}"] = gradient[row]
        assert new.dtype == values["ppo_clip_0.2_0.2_token_mean"].dtype == (jnp.float64 if x64 else jnp.float32)
    elsewhere = {name for name in expected if "advantages" in name}  # tests/train/test_advantages.py
    assert values.keys() == expected.keys() - elsewhere
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)
