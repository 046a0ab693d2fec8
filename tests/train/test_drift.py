"""What a log says of drift: divergences by their formula, the learning rate that an update really has, and the clock."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_steps import CONFIG

from jaxpolya.config import Optimizer
from jaxpolya.records import Sample
from jaxpolya.train.drift import Speed, divergence, drift_facts
from jaxpolya.train.state import make_optimizer, rate_after


def sample(index: int, logprobs: list[float], text: str) -> Sample:
    return Sample(
        id=str(index), question_id="q", arm="rl", stage="rl", index=index, prompt="p", response=text,
        token_ids=[1] * len(logprobs), logprobs=logprobs, finish="stop", seed=0,
    )  # fmt: skip


def test_a_divergence_is_k3_over_all_tokens():
    rng = np.random.default_rng(0)
    p = [rng.normal(-2, 1, n) for n in (3, 5)]
    q = [row + rng.normal(0, 0.5, len(row)) for row in p]
    log_ratio = np.concatenate(q) - np.concatenate(p)
    assert divergence(p, q) == pytest.approx((np.exp(log_ratio) - 1 - log_ratio).mean(), rel=1e-12)
    assert divergence(p, p) == 0
    # Over draws from p it is the divergence itself.
    chances, other = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.2, 0.3])
    drawn = rng.choice(3, 200_000, p=chances)
    assert divergence([np.log(chances[drawn])], [np.log(other[drawn])]) == pytest.approx(
        (chances * np.log(chances / other)).sum(), rel=0.03
    )


def test_a_round_is_measured_against_the_models_that_there_are():
    samples = [sample(0, [-1.0, -2.0], "one two"), sample(1, [-1.0], "three four")]
    assert drift_facts(samples, 2, {}) == {"vendi": pytest.approx(2)}
    facts = drift_facts(
        samples, 2, {"start": [np.array([-1.0, -2.0]), np.array([-1.0])], "base": [np.array([-2.0, -2.0]), np.array([-1.0])]}
    )
    assert facts["kl_start"] == 0 and facts["kl_base"] == pytest.approx(np.exp(-1) / 3, rel=1e-12)


def test_the_rate_that_is_logged_is_the_one_that_an_update_takes():
    """Adam's first moves are as long as the rate, whatever the gradient."""
    config = Optimizer(learning_rate=0.1, warmup=0.5, max_grad_norm=1e9)
    optimizer, params = make_optimizer(config, CONFIG, 4), {"embed": jnp.zeros((2, 2)), "blocks": {}}
    state = optimizer.init(params)
    for done in range(4):
        updates, state = optimizer.update({"embed": jnp.ones((2, 2)), "blocks": {}}, state, params)
        params = optax.apply_updates(params, updates)
        assert float(-updates["embed"][0, 0]) == pytest.approx(rate_after(config, 4, done), rel=1e-4)
    assert rate_after(config, 4, -1) == 0


def test_a_lap_is_counted_from_the_one_before():
    speed = Speed()
    first, second, third = speed.lap(100), speed.lap(50), speed.lap(50, rows_busy=0.84)
    assert third["rows_busy"] == 0.84
    assert first["seconds"] >= 0 and second["tokens_per_second"] <= 50_000 and set(second) == {"seconds", "tokens_per_second"}
