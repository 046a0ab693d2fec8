"""The clipped surrogate: closed forms, gradients, padding, packing, and an oracle made by other implementations."""

import json
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.config import Aggregation, RlConfig
from jaxpolya.train.losses import ALGORITHMS, Mean, aggregate, kl_estimates, policy_loss

ORACLE = Path(__file__).parents[2].parent / "shared/oracles/policy_losses.json"
MODES = typing.get_args(Aggregation)
CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def batch(rows=3, length=7, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, rows)
    mask = np.arange(length) < lengths[:, None]
    old = -rng.exponential(1.0, (rows, length))
    new = old + rng.normal(0, 0.4, (rows, length))
    advantages = np.repeat(rng.normal(0, 1, (rows, 1)), length, axis=1)
    return [np.asarray(x, np.float32) for x in (new, old, advantages)] + [mask]


def loss_value(*arrays, **settings):
    return policy_loss(*map(jnp.asarray, arrays), **settings)[0]["loss"].value


def test_every_configured_algorithm_has_its_row():
    assert set(ALGORITHMS) == set(typing.get_args(RlConfig.model_fields["algorithm"].annotation))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.5, 2.0, -2.56, 1),  # held at 1 + ε_high
        (0.5, 2.0, -1.0, 0),  # the minimum takes the worse value
        (0.5, -2.0, 1.6, 1),  # held at 1 − ε_low
        (1.5, -2.0, 3.0, 0),
        (1.5, 0.0, 0.0, 0),
        (0.5, 0.0, 0.0, 0),
    ],
)
def test_surrogate_of_one_token(ratio, advantage, loss, clipped):
    old, mask = jnp.array([[-2.0, -1.0]]), jnp.array([[True, False]])

    def surrogate(new):
        means, peaks = policy_loss(new, old, jnp.full((1, 2), advantage), mask, **CLIP)
        return means["loss"].sum, (means, peaks)

    new = old + jnp.array([[np.log(ratio), 3.0]])
    (value, (means, peaks)), gradient = jax.value_and_grad(surrogate, has_aux=True)(new)
    assert value == pytest.approx(loss, abs=1e-5)
    assert means["clip"].value == clipped
    assert means["ratio"].value == pytest.approx(ratio, rel=1e-5) and peaks["ratio_max"] == pytest.approx(ratio, rel=1e-5)
    # d loss / d logp = −A·r, and nothing where the clip holds.
    np.testing.assert_allclose(gradient, [[0.0 if clipped else -advantage * ratio, 0.0]], atol=1e-5)


def test_gradient_matches_finite_differences():
    with jax.enable_x64(True):
        new, old, advantages, mask = (jnp.asarray(x, jnp.float64) if x.dtype != bool else jnp.asarray(x) for x in batch())
        for mode in MODES:
            value = lambda new, mode=mode: loss_value(new, old, advantages, mask, aggregation=mode, max_length=7, **CLIP)  # noqa: E731
            gradient = jax.grad(value)(new)
            direction = jnp.asarray(np.random.default_rng(1).normal(size=new.shape))
            slope = (value(new + 1e-6 * direction) - value(new - 1e-6 * direction)) / 2e-6
            assert jnp.vdot(gradient, direction) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("garbage", [-1e9, 1e9, np.nan, np.inf, -np.inf])
def test_padding_reaches_neither_values_nor_gradients(garbage):
    new, old, advantages, mask = batch()
    soiled = [np.where(mask, x, y).astype(np.float32) for x, y in ((new, garbage), (old, -garbage), (advantages, garbage))]

    def run(new, old, advantages):
        def loss(new):
            means, peaks = policy_loss(new, old, advantages, mask, aggregation="seq_mean_token_mean", **CLIP)
            return means["loss"].sum, (means, peaks)

        return jax.value_and_grad(loss, has_aux=True)(jnp.asarray(new))

    clean, soiled = run(new, old, advantages), run(*soiled)
    for expected, found in zip(jax.tree.leaves(clean), jax.tree.leaves(soiled), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.asarray(soiled[1])[~mask].any()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_float32_stays_finite(advantage):
    one = jnp.ones((1, 1))
    value, gradient = jax.value_and_grad(lambda new: loss_value(new, -200 * one, advantage * one, one > 0, **CLIP))(-0.1 * one)
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
        assert loss_value(new, old, advantages, np.zeros_like(mask), aggregation=mode, max_length=7, **CLIP) == 0


@pytest.mark.parametrize("mode", MODES)
def test_packed_rows_give_the_padded_numbers(mode):
    arrays = batch(rows=6, length=5)
    mask = arrays[3].copy()
    mask[:, 0] = mask[2] = False  # a prompt token each, and one sequence that is all masked
    lengths = arrays[3].sum(axis=1)
    packed = [np.full((3, 16), -7, np.float32) for _ in range(3)] + [np.zeros((3, 16), bool), np.zeros((3, 16), np.int32)]
    for row, members in enumerate([(0, 1, 2), (3, 4), (5,)]):
        start = 0
        for number, i in enumerate(members, 1):
            here = slice(start, start := start + lengths[i])
            for target, source in zip(packed, [*arrays[:3], mask, np.full((6, 5), number)], strict=True):
                target[row, here] = source[i, : lengths[i]]
    padded, _ = policy_loss(*arrays[:3], mask, aggregation=mode, max_length=5, **CLIP)
    found, _ = policy_loss(*map(jnp.asarray, packed[:4]), aggregation=mode, max_length=5, segment_ids_BT=jnp.asarray(packed[4]), **CLIP)
    for name, pair in padded.items():
        assert found[name].sum == pytest.approx(float(pair.sum), rel=1e-5, abs=1e-6), name
        assert found[name].count == pair.count, name


@pytest.mark.parametrize("mode", MODES)
def test_micro_batches_add_up(mode):
    arrays = batch(rows=4)
    settings = {"aggregation": mode, "max_length": 7, **CLIP}
    whole, _ = policy_loss(*arrays, **settings)
    halves = [policy_loss(*(x[rows] for x in arrays), **settings)[0] for rows in (slice(0, 1), slice(1, 4))]
    total = jax.tree.map(jnp.add, *halves)
    for name, pair in whole.items():
        assert isinstance(total[name], Mean)
        assert total[name].value == pytest.approx(float(pair.value), rel=1e-5, abs=1e-6), name


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


def oracle_fixture(dtype):
    i, t = np.arange(6)[:, None], np.arange(5)[None]
    old = -1 - 0.1 * i - 0.05 * t
    lengths = np.array([5, 2, 3, 4, 1, 5])[:, None]
    advantages = np.broadcast_to(np.array([1, -1, 0.5, -0.5, 2, -2])[:, None], (6, 5))
    floats = (old + 0.6 * np.sin(1.7 * i + 0.9 * t), old, old - 0.2 * np.cos(i + t), advantages)
    return [jnp.asarray(x, dtype) for x in floats] + [jnp.asarray(t < lengths)]


@pytest.mark.skipif(not ORACLE.exists(), reason="the oracle file lies outside the repository")
@pytest.mark.parametrize(("x64", "tolerance"), [(True, 1e-6), (False, 1e-5)])
def test_oracle(x64, tolerance):
    expected = {name: entry["value"] for name, entry in json.loads(ORACLE.read_text())["expected"].items()}
    with jax.enable_x64(x64):
        new, old, ref, advantages, mask = oracle_fixture(jnp.float64 if x64 else jnp.float32)
        found = {
            f"ppo_clip_0.2_0.28_{mode}": loss_value(new, old, advantages, mask, aggregation=mode, **CLIP)
            for mode in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum")
        }
        found["ppo_clip_0.2_0.2_token_mean"] = loss_value(new, old, advantages, mask, clip_low=0.2, clip_high=0.2)
        found["dr_grpo_0.2_0.28_constant_T5_divided_by_rows"] = loss_value(
            new, old, advantages, mask, aggregation="constant", max_length=5, **CLIP
        )
        for name, kl in kl_estimates(new, ref, mask).items():
            found[f"kl_{name}_token_mean"] = aggregate(kl, mask, "token_mean").value
        gradient = jax.grad(loss_value)(new, old, advantages, mask, **CLIP)
        for row in (0, 1):
            found[f"gradient_wrt_logp_new_ppo_clip_0.2_0.28_token_mean_row_{row}"] = gradient[row]
        assert new.dtype == found["ppo_clip_0.2_0.2_token_mean"].dtype == (jnp.float64 if x64 else jnp.float32)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)
