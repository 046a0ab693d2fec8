"""The value head: what trains it, what it leaves alone, and that packing, micro-batches and the mesh don't show."""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guesser import comparable
from test_steps import CONFIG, params, random_examples, rl_config

from jaxpolya.config import MeshConfig, ValueConfig
from jaxpolya.config.file import parse_config
from jaxpolya.data.packing import pack
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline
from jaxpolya.train.advantages import Gae, Rewards
from jaxpolya.train.algorithms import make_algorithm, policy_loss, value_head
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.objectives import policy_objective
from jaxpolya.train.state import Step, abstract_state, init_state, make_optimizer
from jaxpolya.train.value import HEAD, fresh_head, per_token, policy_of, targets, value_optimizer, with_head

TRAINED = with_head(CONFIG)
FORWARD = Forward(TRAINED, jnp.dtype("float32"))


def ppo(**value):
    config = rl_config(algorithm="ppo", steps=8, optimizer={"learning_rate": 1e-2, "warmup": 0}, value={"learning_rate": 0.1} | value)
    algorithm, _ = make_algorithm(config)
    return config, policy_loss(config, algorithm), value_head(config, algorithm)


def optimizer_of(warming=False, **value):
    config, _, settings = ppo(**value)
    return value_optimizer(config.optimizer, settings, TRAINED, config.steps, config.updates, warming=warming)


def objective(**value):
    return policy_objective(FORWARD, ppo(**value)[1])


def start():
    rng = np.random.default_rng(5)
    head = {"value": rng.normal(0, 0.2, CONFIG.width).astype(np.float32), "value_bias": np.float32(0.1)}
    return {**params(), **jax.tree.map(jnp.asarray, head)}


def examples(count=24):
    made = random_examples(count, extras=("value_old", "returns"))
    moved = [
        {name: x + 4 * example.weights if name in ("value_old", "returns") else x for name, x in example.extras.items()} for example in made
    ]
    return [dataclasses.replace(example, extras=extras) for example, extras in zip(made, moved, strict=True)]  # around 0, as values are


def stepped(mesh, batch, micro_rows, optimizer=None, **value):
    optimizer = optimizer or optimizer_of(**value)
    state = init_state(start(), TRAINED, mesh, optimizer)
    return Step(objective(**value), TRAINED, mesh, optimizer)(state, batch, micro_rows)


def test_eight_devices_measure_what_one_does(mesh1, mesh8):
    batch, still = pack(examples(), row_tokens=32, rows_multiple=8), make_optimizer(ppo()[0].optimizer, TRAINED, 4)
    one, eight = (stepped(mesh, batch, 8, still)[1] for mesh in (mesh1, mesh8))
    assert one == pytest.approx(eight, rel=1e-5, abs=1e-6) and one["value_loss"] > 0 and 0 < one["value_clip"] < 1


def test_an_update_is_the_same_from_any_packing_and_micro_batches(mesh1):
    wide, narrow = (pack(examples(), row_tokens=row_tokens, rows_multiple=8) for row_tokens in (32, 16))
    (state, facts), (other, expected) = stepped(mesh1, wide, 8), stepped(mesh1, narrow, 4)
    assert facts == pytest.approx(expected, rel=1e-5, abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state["params"], other["params"])


def test_the_warm_up_moves_the_head_alone(mesh1):
    usual, warming = (optimizer_of(warm, warmup=2) for warm in (False, True))
    batch = pack(examples(), row_tokens=32, rows_multiple=8)
    before = jax.tree.map(np.asarray, init_state(start(), TRAINED, mesh1, usual))
    state = init_state(start(), TRAINED, mesh1, warming)
    state, _ = Step(objective(), TRAINED, mesh1, warming)(state, batch, 8)
    jax.tree.map(np.testing.assert_array_equal, policy_of(state["params"]), policy_of(before["params"]))
    jax.tree.map(np.testing.assert_array_equal, state["opt"].inner_states["policy"], before["opt"].inner_states["policy"])
    assert all((np.asarray(state["params"][name]) != before["params"][name]).all() for name in HEAD)
    state, _ = Step(objective(), TRAINED, mesh1, usual)(state, batch, 8)
    assert (np.asarray(state["params"]["embed"]) != before["params"]["embed"]).any(), "the states are alike: one goes on from the other"


def test_how_much_of_its_gradient_reaches_the_decoder():
    """None of it leaves the policy's gradient as it is; the head's own is the same either way."""
    batch = jax.tree.map(jnp.asarray, pack(examples(8), row_tokens=32, rows_multiple=1))

    def gradient(share):
        return jax.jit(jax.grad(lambda p: objective(coefficient=share)(p, batch)[0]["loss"].sum))(start())

    none, half = gradient(0.0), gradient(0.5)
    without = policy_objective(FORWARD, dataclasses.replace(ppo()[1], value=None))
    plain = jax.jit(jax.grad(lambda p: without(p, batch)[0]["loss"].sum))(start())
    for name in HEAD:
        np.testing.assert_allclose(none[name], half[name], rtol=1e-5)
    np.testing.assert_allclose(none["embed"], plain["embed"], atol=1e-6)
    assert np.abs(np.asarray(half["embed"] - none["embed"])).max() > 1e-2


def test_a_head_learns_what_is_due(mesh1):
    """Regression alone: the head of a still decoder comes near to returns that its hidden states hold."""
    made = examples(16)
    made = [dataclasses.replace(e, extras={**e.extras, "returns": np.where(e.weights, e.tokens % 2, 0).astype(np.float32)}) for e in made]
    batch, warming = pack(made, row_tokens=32, rows_multiple=8), optimizer_of(True, clip=None)
    step, state = Step(objective(clip=None), TRAINED, mesh1, warming), init_state(params() | fresh_head(CONFIG), TRAINED, mesh1, warming)
    losses = []
    for _ in range(30):
        state, facts = step(state, batch, 8)
        losses.append(facts["value_loss"])
    assert losses[0] == pytest.approx(0.25, abs=0.06) and losses[-1] < losses[0] / 3


def test_the_state_is_restored_as_it_lies(mesh8):
    optimizer = optimizer_of()
    state, abstract = init_state(start(), TRAINED, mesh8, optimizer), abstract_state(TRAINED, mesh8, optimizer)
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    for array, expected in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert array.sharding.is_equivalent_to(expected.sharding, array.ndim)


def test_targets_and_what_the_log_says_of_them():
    lengths, values = np.array([[2, 3]]), per_token([np.array([0.5, 0.5]), np.array([0.0, 0.25, 0.5])], (1, 2))
    rewards = Rewards(np.array([[1.0, 0.0]]), lengths, values_PGT=values)
    returns, facts = targets(rewards, ValueConfig(gamma=1.0, lam=1.0))
    np.testing.assert_allclose(returns[0], [[1, 1, 0], [0, 0, 0]])
    estimates, due = np.array([0.5, 0.5, 0, 0.25, 0.5]), np.array([1, 1, 0, 0, 0.0])
    assert facts == pytest.approx({"value": estimates.mean(), "explained_variance": 1 - (due - estimates).var() / due.var()})
    np.testing.assert_array_equal(returns, Gae(1.0, 1.0).returns(rewards))
    nothing = targets(dataclasses.replace(rewards, rewards_PG=np.full((1, 2), np.nan)), ValueConfig())[1]
    assert nothing == {"value": 0.0, "explained_variance": 0.0}


def test_ppo_from_end_to_end_and_over_a_kill(tiny_run, monkeypatch):
    """A whole stage; one that ends after two of three steps goes on to the same bits; what is left has no head."""
    tree = tiny_run(arms=["rl"], export=False)
    tree["rl"] |= {"algorithm": "ppo", "value": {"warmup": 1}, "kl": {"weight": 0.01, "estimator": "k1", "place": "reward"}}
    tree |= {"verify": {"workers": 1, "deadline": 120}}
    pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    whole, append = tiny_run.directory / "runs" / "tiny", StepLog.append

    def killed(log, row):
        if row["step"] == 2:
            saved = next((tiny_run.directory / "runs" / "killed").glob("stages/rl-rl-*/checkpoints"))
            for _ in range(600):  # it is written beside the training
                if (saved / "2").exists():
                    break
                time.sleep(0.1)
            raise KeyboardInterrupt
        append(log, row)

    tree["name"] = "killed"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepLog, "append", killed)
        pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    resumed = tiny_run.directory / "runs" / "killed"
    assert [path for path in resumed.glob("stages/rl-rl-*/checkpoints/*") if path.name == "2"]
    pipeline.run(parse_config(tree), Display(quiet=True), only="rl")
    assert comparable(resumed) == comparable(whole)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    (one,), (other,) = (list(run.glob("stages/rl-rl-*/model")) for run in (whole, resumed))
    trees = [load_checkpoint(path, mesh=mesh).params for path in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    assert not set(HEAD) & set(trees[0])
    steps = [json.loads(line) for line in (one.parent / "steps.jsonl").read_text().splitlines()]
    assert steps[0]["value"] == 0 and all(step["value"] for step in steps[1:])
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5) and steps[-1]["kl"] > 10 * steps[0]["kl"], "the first step is the head's alone"
    samples = [json.loads(line) for path in one.parent.glob("rollouts/*.jsonl") for line in path.read_text().splitlines()]
    assert all(sample["advantage"] for sample in samples)
