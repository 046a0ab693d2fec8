"""Closed forms beside simulation and beside each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.theory import closed_forms as exact
from jaxpolya.theory.simulate import Training, train


def softmax(theta):
    return np.asarray(jax.nn.softmax(jnp.asarray(theta)))


@pytest.mark.parametrize("seed", [0, 1])
def test_one_step_on_a_sampled_action(seed):
    theta = np.random.default_rng(seed).normal(size=5)
    p, rate, advantage = softmax(theta), 1e-3, 0.7
    for action in range(5):
        moved = softmax(theta + rate * advantage * (np.eye(5)[action] - p))
        assert moved[action] - p[action] == pytest.approx(exact.step_on_sample(p, action, advantage, rate), rel=5e-3, abs=1e-7)


def test_the_uniform_step_peaks_at_two_approaches():
    n = np.arange(1, 20)
    steps = exact.step_on_uniform(n)
    assert n[steps.argmax()] == 2 and steps[1] == 0.25
    np.testing.assert_allclose(steps, [exact.step_on_sample(np.full(size, 1 / size), 0, 1.0, 1.0) for size in n])


@pytest.mark.parametrize(("s", "group"), [(0.03, 4), (0.4, 8), (0.9, 16)])
def test_what_a_group_sees(s, group):
    rewards = (np.random.default_rng(0).random((200_000, group)) < s).astype(float)
    centred, deviation = rewards - rewards.mean(axis=1, keepdims=True), rewards.std(axis=1, keepdims=True)
    signal = (np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0) * rewards).mean()
    assert signal == pytest.approx(exact.group_signal(s, group), rel=0.03)
    assert (deviation > 0).mean() == pytest.approx(exact.mixed(s, group), rel=0.03)
    assert rewards.any(axis=1).mean() == pytest.approx(exact.seen(s, group), rel=0.03)


def test_large_groups_see_the_deviation():
    assert exact.group_signal(0.3, 4000) == pytest.approx(np.sqrt(0.3 * 0.7), rel=1e-3)


def test_the_expected_step_of_grpo_is_what_sampling_gives():
    theta, right = np.array([0.5, -1.0, 0.0, 1.0]), np.array([True, False, True, False])
    p = softmax(theta)
    training = Training(questions=4000, group=6, rate=1e-3, steps=2)
    runs = [train(jnp.asarray(theta), jnp.asarray(right, jnp.float32)[None], jax.random.key(seed), training).p_TA[1] for seed in range(4)]
    change = exact.grpo_gradient(p, right, 6)
    np.testing.assert_allclose((np.mean(runs, axis=0) - p) / 1e-3, p * (change - p @ change), atol=3e-3)


@pytest.mark.parametrize(("p0", "rate"), [(0.02, 0.05), (0.2, 0.3)])
def test_the_time_to_discovery_is_the_flow_s(p0, rate):
    plain = exact.discovery_time(p0, rate, normalised=False)
    times = jnp.linspace(0, rate * plain, 4000)
    p = jax.nn.softmax(exact.flow(jnp.log(jnp.array([p0, 1 - p0])), jnp.array([1.0, 0.0]), times)[-1])
    assert p[0] == pytest.approx(0.5, abs=2e-3)
    p, steps = p0, 20_000
    for _ in range(steps):
        p += exact.discovery_time(p0, rate, normalised=True) / steps * 2 * rate * (p * (1 - p)) ** 1.5
    assert p == pytest.approx(0.5, abs=2e-3)
    assert exact.discovery_time(p0, rate, normalised=True) < plain


def test_the_kl_term_ends_at_its_optimum():
    p0, r, kl = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.6, 0.5]), 0.5
    theta = exact.flow(jnp.log(p0), jnp.asarray(r), jnp.linspace(0, 200, 2000), kl=kl)[-1]
    np.testing.assert_allclose(softmax(theta), exact.kl_optimum(p0, r, kl), atol=1e-4)


def test_an_entropy_bonus_keeps_the_worse_approaches():
    r = jnp.array([0.6, 0.5, 0.4])
    free, held = (softmax(exact.flow(jnp.zeros(3), r, jnp.linspace(0, 400, 2000), entropy=bonus)[-1]) for bonus in (0.0, 0.2))
    assert free.max() > 0.95
    np.testing.assert_allclose(held, np.exp(r / 0.2) / np.exp(r / 0.2).sum(), atol=1e-3)


def test_a_clipped_ratio_bounds_growth_only_where_nothing_is_pushed_down():
    p0 = 0.01
    rounds = int(exact.clipped_growth_time(p0, 0.2))

    def grown(**how) -> float:
        training = Training(questions=64, group=64, rate=0.1, steps=rounds, epochs=60, **how)
        return float(train(jnp.log(jnp.array([p0, 1 - p0])), jnp.array([[1.0, 0.0]]), jax.random.key(0), training).p_TA[-1, 0])

    # Rewards alone push nothing down, and each round's last pass goes little beyond the clip.
    assert p0 < grown(advantages="plain") < 0.5
    assert grown(advantages="plain") < grown(advantages="plain", clip_high=0.28)
    # With a baseline the common wrong approach may lose a fifth of its mass a round, all of which the rare one gets.
    assert grown(advantages="centred") > 0.7


def test_training_for_pass_at_1_lowers_pass_at_64():
    # The first approach solves most questions half the time, the second other questions rarely.
    pays = np.array([[0.5, 0.0]] * 8 + [[0.0, 0.3]] * 2)
    trained = train(jnp.array([0.0, 0.0]), jnp.asarray(pays, jnp.float32), jax.random.key(1), Training(steps=400)).p_TA
    before, after = (exact.pass_at_k(pays @ np.asarray(p), np.array([1, 64])) for p in (trained[0], trained[-1]))
    assert after[0] > before[0] and after[1] < before[1]
