"""The policy terms against the papers' formulas, written out in float64, one token at a time: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.train.algorithms import PRESETS
from jaxpolya.train.losses import Tokens, aggregate
from jaxpolya.train.policy_terms import Cispo, Gspo, PpoClip, Reinforce

RATIOS = np.array([0.3, 0.85, 1.0, 1.15, 1.5, 6.0])


def one_row(advantages):
    """Tokens of these ratios, [1, T]: log-probs new and old, A, mask."""
    old = -np.linspace(1.0, 2.0, len(RATIOS))[None]
    return old + np.log(RATIOS), old, np.broadcast_to(np.asarray(advantages, float), old.shape), np.ones(old.shape, bool)


def value_and_gradient(term, new, old, advantages, mask, ids=None):
    """(loss of each token, ∂ Σ loss / ∂ log p of each token, what is logged), float64."""
    with jax.enable_x64(True):

        def total(new):
            loss, reported = term(Tokens.of(new, *map(jnp.asarray, (old, advantages, mask)), ids))
            return loss.sum(), (loss, reported)

        (_, (loss, reported)), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(new))
        assert loss.dtype == jnp.float64
        return np.asarray(loss[0]), np.asarray(gradient[0]), {name: np.asarray(values[0]) for name, values in reported.items()}


@pytest.mark.parametrize("advantage", [2.0, -2.0, 0.0])
def test_ppo_clip(advantage):
    loss, gradient, reported = value_and_gradient(PpoClip(0.2, 0.28), *one_row(advantage))
    for t, r in enumerate(RATIOS):
        clipped = min(max(r, 0.8), 1.28)
        surrogate = min(r * advantage, clipped * advantage)
        binds = surrogate != r * advantage
        assert loss[t] == pytest.approx(-surrogate)
        assert gradient[t] == pytest.approx(0.0 if binds else -r * advantage)  # ∂r / ∂ log p = r
        assert reported["clip"][t] == binds


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_dual_clip(advantage):
    loss, gradient, reported = value_and_gradient(PpoClip(0.2, 0.28, dual=3.0), *one_row(advantage))
    for t, r in enumerate(RATIOS):
        inner = min(r * advantage, min(max(r, 0.8), 1.28) * advantage)
        surrogate = max(inner, 3.0 * advantage) if advantage < 0 else inner  # arXiv 1912.09729, eq. 5
        assert loss[t] == pytest.approx(-surrogate)
        assert gradient[t] == pytest.approx(-r * advantage if surrogate == r * advantage else 0.0)
        assert reported["clip"][t] == (surrogate != r * advantage)
    assert (loss[-1] == 6.0) == (advantage < 0), "the bound c·A was never met"


@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (0.2, 0.28)])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo(advantage, low, high):
    new, *rest = one_row(advantage)
    loss, gradient, reported = value_and_gradient(Cispo(low, high), new, *rest)
    for t, r in enumerate(RATIOS):
        weight = min(max(r, 1 - low), 1 + high)  # arXiv 2506.13585, eq. 5
        assert loss[t] == pytest.approx(-weight * advantage * new[0, t])
        assert gradient[t] == pytest.approx(-weight * advantage)  # every token keeps one
        assert reported["clip"][t] == (weight != r)


def test_reinforce():
    new, *rest = one_row([1.0, -1.0, 0.5, 2.0, 0.0, 1.0])
    loss, gradient, reported = value_and_gradient(Reinforce(), new, *rest)
    np.testing.assert_allclose(loss, -rest[1][0] * new[0])
    np.testing.assert_allclose(gradient, -rest[1][0])
    assert not reported


@pytest.mark.parametrize("form", ["sequence", "token"])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.5])
def test_gspo(form, advantage, shift):
    """Two sequences in a row; with A the same for all tokens of a sequence, both forms are one."""
    rng = np.random.default_rng(0)
    new, old = (-rng.exponential(1.0, (1, 7)) for _ in range(2))
    new[0, :4] += shift
    ids = jnp.array([[1, 1, 1, 1, 2, 2, 0]])
    advantages = np.array([[advantage] * 4 + [1.0] * 2 + [9.0]])
    mask = np.array([[False, True, True, True, True, True, False]])
    loss, gradient, reported = value_and_gradient(Gspo(0.1, 0.2, form), new, old, advantages, mask, ids)
    for here, A in ((slice(1, 4), advantage), (slice(4, 6), 1.0)):
        s = np.exp((new[0, here] - old[0, here]).mean())  # arXiv 2507.18071, eq. 7
        surrogate = min(s * A, min(max(s, 0.9), 1.2) * A)  # eq. 5
        np.testing.assert_allclose(loss[here], -surrogate)
        # ∂ Σ_t loss_t / ∂ log p_t' = −s·A, since s has the gradient s / |y| in each of |y| tokens.
        np.testing.assert_allclose(gradient[here], -s * A if surrogate == s * A else 0.0, atol=1e-12)
        assert (reported["clip"][here] == (surrogate != s * A)).all()
    assert not gradient[[0, 6]].any()


def test_gspo_token_gives_each_token_its_own_advantage():
    new, old, _, mask = one_row(0.0)
    advantages = np.array([[1.0, -1.0, 0.5, 2.0, -0.5, 1.0]])
    s = np.exp((new - old).mean())
    _, gradient, _ = value_and_gradient(Gspo(10.0, 10.0, "token"), new, old, advantages, mask)
    np.testing.assert_allclose(gradient, -s * advantages[0])
    _, together, _ = value_and_gradient(Gspo(10.0, 10.0), new, old, advantages, mask)
    np.testing.assert_allclose(together, -s * advantages.mean())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_on_the_policy_that_drew_the_tokens_every_algorithm_has_the_gradient_of_reinforce(name):
    """−A of each token, by the constant that its mean gives; what tells algorithms apart comes once the policy has moved."""
    lengths = np.array([2, 5])
    ids = np.repeat([1, 2, 0], [*lengths, 1])[None]
    mask, logp = ids > 0, -np.linspace(0.5, 2.0, ids.size)[None]
    advantages = np.where(ids == 1, 2.0, -0.5)
    algorithm = PRESETS[name]
    by_mean = {
        "token_mean": 1 / lengths.sum(), "seq_mean_token_sum": 1 / 2, "seq_mean_token_mean": 1 / (2 * lengths[np.maximum(ids, 1) - 1]),
        "constant": 1 / (2 * 8),
    }  # fmt: skip
    with jax.enable_x64(True):

        def mean(new):
            loss, _ = algorithm.token_loss(Tokens.of(new, *map(jnp.asarray, (logp, advantages, mask, ids))))
            return aggregate(loss, jnp.asarray(mask), algorithm.aggregation, segment_ids_BT=jnp.asarray(ids), max_length=8).value

        gradient = np.asarray(jax.grad(mean)(jnp.asarray(logp)))
    np.testing.assert_allclose(gradient, np.where(mask, -advantages * by_mean[algorithm.aggregation], 0.0), rtol=1e-12)
