"""Rounds, examples and updates: what is asked, what is learnt from it, and that accumulation doesn't show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.config import MeshConfig, Optimizer, RlConfig
from jaxpolya.data.packing import pack, token_example
from jaxpolya.errors import RunError
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.records import Question, Sample
from jaxpolya.rollout.respond import Prompt
from jaxpolya.rollout.rounds import fill_round, piece_prompts
from jaxpolya.score.logprobs import score_examples
from jaxpolya.train.algorithms import make_algorithm, policy_loss
from jaxpolya.train.losses import PolicyLoss
from jaxpolya.train.objectives import policy_objective, sft_objective
from jaxpolya.train.policy_terms import PpoClip
from jaxpolya.train.rl import make_examples
from jaxpolya.train.state import Measured, Step, init_state, make_optimizer

CONFIG = DecoderConfig("llama", 97, 32, 48, 2, 4, 2, 8, 128, tied_embeddings=True)


def rl_config(**changes) -> RlConfig:
    tree = {
        "questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": {"max_new_tokens": 8}, "optimizer": {"learning_rate": 1e-2},
        "batching": {"row_tokens": 32, "micro_rows": 2}, "steps": 4, "prompts": 5, "group": 4,
    } | changes  # fmt: skip
    return RlConfig.model_validate(tree)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(Question(id=f"q{i}", question="?", answer="1"), f"q{i}", tuple(range(10, 12 + i % 3))) for i in range(count)]


def test_no_round_asks_a_question_twice_and_passes_are_shuffled():
    asked = [[prompt.id for prompt in piece_prompts(prompts(12), rl_config(), step)] for step in range(6)]
    assert all(len(set(ids)) == 5 for ids in asked)
    assert not set(asked[0]) & set(asked[1])  # one pass
    assert asked[0] != asked[2] != asked[4]  # the next ones
    assert asked == [[prompt.id for prompt in piece_prompts(prompts(12), rl_config(), step)] for step in range(6)]


def test_no_two_seeds_share_the_order_of_a_pass():
    passes = [
        tuple(prompt.id for piece in range(2) for prompt in piece_prompts(prompts(12), rl_config(seed=seed), 2 * epoch + piece))
        for seed in range(4)
        for epoch in range(4)
    ]
    assert len(set(passes)) == len(passes)


def rollouts(verdicts: list[str], asked: list[Prompt], truncated=()) -> list[Sample]:
    group = len(verdicts) // len(asked)
    return [
        Sample(
            id=str(i), question_id=asked[i // group].id, arm="rl", stage="rl", index=i % group, prompt="p", response="r",
            token_ids=[1, 2, 3], logprobs=[-1.0, -2.0, -3.0], finish="length" if i in truncated else "stop", seed=0, verdict=verdict,
        )
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip


def made(samples, asked, config, logps=None):
    return make_examples(samples, asked, config, make_algorithm(config)[0], logps or {})


VERDICTS = ["correct", "wrong", "harness_error", "unparseable", "wrong", "wrong", "timeout", "crash"]


def test_examples_carry_their_own_prompt_and_advantage():
    asked = prompts(2)
    examples, facts, rated = made(rollouts(VERDICTS, asked), asked, rl_config(prompts=2))
    for i, example in enumerate(examples):
        assert tuple(example.tokens[:-3]) == asked[i // 4].ids
    assert [r.reward for r in rated] == [1, 0, None, 0, 0, 0, 0, 0]
    assert [example.weights.sum() for example in examples] == [3, 3, 0, 3, 3, 3, 3, 3]
    np.testing.assert_allclose(examples[0].extras["advantage"][-3:], rated[0].advantage)
    np.testing.assert_allclose(examples[0].extras["logp_old"][-3:], [-1, -2, -3])
    assert rated[0].advantage > 0 > rated[1].advantage and rated[4].advantage == 0
    assert facts["reward"] == pytest.approx(1 / 7) and facts["no_signal"] == 0.5 and facts["masked"] == 1 / 8


def test_what_stays_out_of_the_loss():
    asked = prompts(2)
    counted = lambda **changes: [  # noqa: E731
        bool(example.weights.sum()) for example in made(rollouts(VERDICTS, asked, truncated={1}), asked, rl_config(prompts=2, **changes))[0]
    ]
    assert counted(algorithm="dapo") == [True, True, False, True, False, False, False, False]
    assert counted(mask_truncated=True) == [True, False, False, True, True, True, True, True]


def test_a_long_response_is_penalised_in_its_advantage_and_not_in_its_record():
    asked = prompts(1)
    samples = rollouts(["correct", "correct", "wrong", "wrong"], asked)
    long = dataclasses.replace(samples[1], token_ids=[1] * 8, logprobs=[-1.0] * 8)
    config = rl_config(prompts=1, algorithm="dr_grpo", overlong_buffer=4)  # of 8 tokens: from 4 on
    _, facts, rated = made([samples[0], long, *samples[2:]], asked, config)
    assert [sample.reward for sample in rated] == [1, 1, 0, 0]
    np.testing.assert_allclose([sample.advantage for sample in rated], np.array([1, 0, 0, 0]) - 0.25)
    assert facts["reward"] == 0.5 and facts["overlong_penalty"] == -0.25
    assert "overlong_penalty" not in made(samples, asked, rl_config(prompts=1))[1]
    assert made([samples[0], long, *samples[2:]], asked, rl_config(prompts=1, algorithm="dapo"))[1]["overlong_penalty"] == -0.25


def test_what_the_trainer_found_goes_before_the_samplers_record():
    asked = prompts(1)
    samples = rollouts(["correct", "wrong", "wrong", "wrong"], asked)
    logps = {"logp_old": [np.array([-1.5, -2.0, -3.0])] * 4, "logp_ref": [np.array([-1.0, -2.0, -3.0])] * 4}
    kl = {"weight": 0.1, "estimator": "k1", "place": "reward"}
    examples, _, rated = made(samples, asked, rl_config(prompts=1, algorithm="reinforce", kl=kl, old_logprobs="trainer"), logps)
    for name, expected in (("logp_old", [-1.5, -2, -3]), ("logp_sampler", [-1, -2, -3]), ("logp_ref", [-1, -2, -3])):
        np.testing.assert_allclose(examples[0].extras[name][-3:], expected)
    np.testing.assert_allclose([sample.advantage for sample in rated], [1.05, 0.05, 0.05, 0.05])  # −0.1 · (−0.5) more than the reward


def outcomes(*groups: str):
    """Drawn groups of two, a letter a response: r is right, w wrong, e an error of ours."""
    verdicts = {"r": "correct", "w": "wrong", "e": "harness_error"}
    asked = prompts(len(groups))
    return asked, rollouts([verdicts[letter] for group in groups for letter in group], asked)


def test_a_round_is_refilled_until_it_has_its_mixed_groups():
    config = rl_config(prompts=2, group=2)
    pieces = [outcomes("rr", "rw"), outcomes("we", "ww"), outcomes("wr", "rw"), outcomes("rw", "rw")]
    filled = fill_round(lambda attempt: pieces[attempt], config, 3, "here")
    assert filled.pieces == pieces[:3] and filled.groups == [1, 4]
    assert [sample.verdict for sample in filled.samples] == ["correct", "wrong", "wrong", "correct"]
    assert fill_round(lambda attempt: pieces[attempt], config, 1, "here").groups == [0, 1], "one mixed group, and the first"
    assert fill_round(lambda attempt: pieces[attempt], config, 0, "here").pieces == pieces[:1]


def test_questions_that_give_no_mixed_group_stop_the_run():
    config = rl_config(prompts=2, group=2)
    with pytest.raises(RunError, match=r"^here: of 6 questions none got responses whose rewards differ \(mean reward 0\.50\)"):
        fill_round(lambda attempt: outcomes("rr", "ww"), config, 2, "here")
    assert len(fill_round(lambda attempt: outcomes("rr", "ww"), config, 0, "here").pieces) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tis": 2.0}, "set old_logprobs to trainer"),
        ({"tis": 2.0, "icepop": (0.5, 5.0), "old_logprobs": "trainer"}, "set one of them"),
        ({"icepop": (1.5, 5.0), "old_logprobs": "trainer"}, "must have 1 between"),
        ({"overlong_buffer": 9}, r"overlong_buffer \(9\) exceeds"),
    ],
)
def test_what_cant_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rl_config(**changes)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def params():
    return init_params(CONFIG, jax.random.key(0))


def random_examples(count: int, seed: int = 0, extras: tuple[str, ...] = ()):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        n, m = rng.integers(2, 8, 2)
        given = {"logp_old": rng.normal(-4, 0.3, m), "advantage": np.full(m, rng.normal())}
        made.append(token_example(rng.integers(1, 97, n).tolist(), rng.integers(1, 97, m).tolist(), **given))
        if extras:
            more = {name: np.where(made[-1].weights, rng.normal(-4, 0.3, n + m), 0).astype(np.float32) for name in extras}
            made[-1] = dataclasses.replace(made[-1], extras={**made[-1].extras, **more})
    return made


def test_eight_devices_measure_what_one_does(mesh, mesh8):
    """Every term at once, on the same tokens; a learning rate of next to nothing, since Adam would turn rounding into other weights."""
    changes = {"kl": {"weight": 0.1}, "entropy_bonus": 0.01, "old_logprobs": "trainer", "tis": 1.2}
    config = rl_config(algorithm="gspo", clip_low=0.1, clip_high=0.1, **changes)
    loss = policy_objective(Forward(CONFIG, jnp.dtype("float32")), policy_loss(config, make_algorithm(config)[0]))
    optimizer = make_optimizer(Optimizer(learning_rate=1e-12, warmup=0), CONFIG, 4)
    examples = random_examples(24, extras=("logp_sampler", "logp_ref"))
    batch = pack(examples, row_tokens=32, rows_multiple=8)
    one, eight = (Step(loss, CONFIG, on, optimizer)(init_state(params(), CONFIG, on, optimizer), batch, 8)[1] for on in (mesh, mesh8))
    assert one == pytest.approx(eight, rel=1e-5, abs=1e-6) and one["clip"] > 0 and one["corrected"] > 0


@pytest.mark.parametrize("objective", ["sft", "grpo", "gspo"])
def test_an_update_is_the_same_from_any_micro_batches(objective, mesh):
    forward = Forward(CONFIG, jnp.dtype("float32"), remat=True)
    if objective == "sft":
        loss = sft_objective(forward)
    else:
        config = rl_config(algorithm=objective, entropy_bonus=0.01)
        loss = policy_objective(forward, policy_loss(config, make_algorithm(config)[0]))
    optimizer = make_optimizer(Optimizer(learning_rate=1e-2, warmup=0), CONFIG, 4)
    batch = pack(random_examples(24), row_tokens=32, rows_multiple=8)
    updates = {}
    for micro_rows in (2, len(batch["tokens"])):
        state = init_state(params(), CONFIG, mesh, optimizer)
        updates[micro_rows] = Step(loss, CONFIG, mesh, optimizer)(state, batch, micro_rows)
    (one, metrics), (other, expected) = updates.values()
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert metrics["tokens"] == batch["weights"].sum() and metrics["grad_norm"] > 0
    # Adam divides by a gradient's own size: of one that is next to nothing, rounding shows in the update, whose size is the rate.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one["params"], other["params"])


def test_several_updates_are_measured_as_one(mesh):
    """What a round reports is over all tokens of all its updates, however unevenly they were dealt out, and a maximum is one."""
    loss = policy_objective(Forward(CONFIG, jnp.dtype("float32")), PolicyLoss(PpoClip()))
    optimizer = make_optimizer(Optimizer(learning_rate=1e-12, warmup=0), CONFIG, 4)
    examples = random_examples(24)
    update, state = Step(loss, CONFIG, mesh, optimizer), init_state(params(), CONFIG, mesh, optimizer)
    parts = []
    for some in (examples[:3], examples[3:], examples):
        state, pending = update.dispatch(state, pack(some, row_tokens=32, rows_multiple=2), 2)
        parts.append(pending.measured())
    together, whole = Measured.of(parts[:2]).facts, parts[2].facts
    norm = (parts[0].facts["grad_norm"] + parts[1].facts["grad_norm"]) / 2
    assert together.pop("grad_norm") == pytest.approx(norm, rel=1e-6) and whole.pop("grad_norm") != norm
    assert together == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert whole["ratio"] != pytest.approx((parts[0].facts["ratio"] + parts[1].facts["ratio"]) / 2, rel=1e-3)


def test_updates_lower_the_loss(mesh):
    optimizer = make_optimizer(Optimizer(learning_rate=1e-2, warmup=0), CONFIG, 20)
    state = init_state(params(), CONFIG, mesh, optimizer)
    step = Step(sft_objective(Forward(CONFIG, jnp.dtype("float32"))), CONFIG, mesh, optimizer)
    batch = pack(random_examples(4), row_tokens=32, rows_multiple=2)
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch, 2)
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0] / 2


def test_scores_do_not_depend_on_the_packing(mesh, monkeypatch):
    examples = [dataclasses.replace(example, extras={}) for example in random_examples(7, seed=3)]
    forward = Forward(CONFIG, jnp.dtype("float32"))
    together = list(score_examples(params(), forward, mesh, examples, row_tokens=64, micro_rows=2))
    monkeypatch.setattr("jaxpolya.score.logprobs.PACKED_AT_ONCE", 3)
    apart = list(score_examples(params(), forward, mesh, examples, row_tokens=16, micro_rows=2))
    for one, other, example in zip(together, apart, examples, strict=True):
        assert len(one) == len(example) and one[0] == 0
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_scores_of_a_group_are_those_of_its_members_but_for_the_prompt(mesh, monkeypatch):
    prompts, rng = [[3, 5, 8, 9], [7, 2]], np.random.default_rng(4)
    examples = [token_example(prompt, rng.integers(1, 40, length)) for prompt in prompts for length in (2, 5, 3)]
    forward = Forward(CONFIG, jnp.dtype("float32"))
    plain = list(score_examples(params(), forward, mesh, examples, row_tokens=16, micro_rows=2))
    monkeypatch.setattr("jaxpolya.score.logprobs.PACKED_AT_ONCE", 4)  # no whole number of groups
    shared = list(score_examples(params(), forward, mesh, examples, row_tokens=16, micro_rows=2, group=3))
    for example, one, other in zip(examples, plain, shared, strict=True):
        np.testing.assert_allclose(one * (example.weights > 0), other, atol=1e-5)
        assert not other[: example.prompt].any() and other[example.prompt :].all()
