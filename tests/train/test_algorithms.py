"""Algorithms by name, a configuration's own settings, and the door for those that users bring."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_steps import rl_config

from jaxpolya.config import ALGORITHMS
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline
from jaxpolya.runs.train import rl_fields
from jaxpolya.train.advantages import Gae, Rewards, estimate
from jaxpolya.train.algorithms import PRESETS, Algorithm, make_algorithm, most_refills, policy_loss, value_head
from jaxpolya.train.losses import PolicyLoss, Tokens
from jaxpolya.train.policy_terms import Gspo, PpoClip

OWN = """
import numpy as np
from jaxpolya.train.algorithms import Algorithm
from jaxpolya.train.policy_terms import PpoClip

def halves(rewards):
    return rewards.rewards_PG - 0.5

def loss(tokens):
    return -tokens.advantages_BT * tokens.ratio_BT, {}

mine = Algorithm(halves, loss)
clipped = Algorithm(halves, PpoClip(0.1, 0.1))
number = 3
"""


@pytest.fixture
def own(tmp_path):
    def write(text: str = OWN, name: str = "own.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def brought(reference: str, **changes) -> tuple[Algorithm, str | None]:
    return make_algorithm(rl_config(algorithm=reference, **changes))


def test_every_configured_algorithm_is_built():
    assert list(PRESETS) == list(ALGORITHMS)
    assert all(brought(name, steps=6) == (preset, None) for name, preset in PRESETS.items())


def test_the_documentation_has_a_row_for_each():
    text = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
    assert [line.split("`")[1] for line in text.split("\n## ")[0].splitlines() if line.startswith("| `")] == list(PRESETS)


def test_what_is_set_goes_before_the_algorithms_own():
    algorithm, _ = brought("dapo", clip_high=0.4, clip_dual=3.0, aggregation="seq_mean_token_mean")
    assert algorithm.token_loss == PpoClip(0.2, 0.4, 3.0) and algorithm.aggregation == "seq_mean_token_mean"
    assert brought("gspo", clip_low=1e-3)[0].token_loss == Gspo(1e-3, 4e-4)
    with pytest.raises(ConfigError, match=r"rl\.clip_low: the algorithm rloo has no such bound"):
        brought("rloo", clip_low=0.1)
    with pytest.raises(ConfigError, match=r"rl\.clip_dual: the algorithm cispo has no such bound"):
        brought("cispo", clip_dual=3.0)


def test_the_value_heads_settings_reach_what_they_set():
    algorithm, _ = brought("ppo", steps=6, value={"gamma": 0.9, "lam": 0.5, "clip": 0.3})
    assert algorithm.advantages == Gae(0.9, 0.5) and policy_loss(rl_config(value={"clip": 0.3}), algorithm).value.clip == 0.3
    assert value_head(rl_config(), algorithm).warmup == 5 and value_head(rl_config(), brought("grpo")[0]) is None
    with pytest.raises(ConfigError, match=r"rl\.value: grpo has no value head"):
        brought("grpo", value={})
    with pytest.raises(ConfigError, match=r"rl\.value\.warmup \(5\) leaves none of the 4 steps"):
        brought("ppo")


def test_refills_belong_to_algorithms_that_drop_groups():
    assert most_refills(rl_config(), brought("grpo")[0]) == 0 and most_refills(rl_config(), brought("dapo")[0]) == 9
    assert most_refills(rl_config(refills=2), brought("dapo", refills=2)[0]) == 2
    with pytest.raises(ConfigError, match=r"rl\.refills: grpo learns from groups as they come"):
        brought("grpo", refills=2)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns(name):
    """A policy of two tokens out of four, paid for the first one's being the last of the four, goes there from one in four."""
    algorithm, rng = PRESETS[name], np.random.default_rng(0)
    loss = PolicyLoss(algorithm.token_loss, algorithm.aggregation, max_length=2)

    @jax.jit
    def gradient(logits_TV, drawn_BT, logp_old_BT, advantages_BT):
        def mean(logits_TV):
            logp_BT = jax.nn.log_softmax(logits_TV)[jnp.arange(2), drawn_BT]
            tokens = Tokens.of(logp_BT, logp_old_BT, advantages_BT, jnp.ones(drawn_BT.shape, bool))
            return loss(tokens, jnp.zeros(drawn_BT.shape))[0]["loss"].value

        return jax.grad(mean)(logits_TV)

    logits_TV = np.zeros((2, 4), np.float32)
    for _ in range(60):
        logp_TV = np.asarray(jax.nn.log_softmax(logits_TV))
        chances_TV = np.exp(logp_TV.astype(np.float64))
        drawn_BT = np.stack([rng.choice(4, 32, p=chances / chances.sum()) for chances in chances_TV], axis=1)
        rewards_PG = (drawn_BT[:, 0] == 3).astype(float).reshape(4, 8)
        rewards = Rewards(rewards_PG, np.full((4, 8), 2), values_PGT=np.full((4, 8, 2), 0.25))
        advantages = estimate(algorithm.advantages, rewards).reshape(32, -1)
        step = gradient(logits_TV, drawn_BT, logp_TV[np.arange(2), drawn_BT], np.broadcast_to(advantages, (32, 2)))
        logits_TV = logits_TV - 0.5 * np.asarray(step)
    assert jax.nn.softmax(logits_TV)[0, 3] > 0.6


def test_a_users_own(own):
    path = own()
    algorithm, digest = brought(f"{path}:mine")
    assert isinstance(algorithm, Algorithm) and len(digest) == 64
    assert brought(f"{path}:mine") == (algorithm, digest), "the same file gives the same functions, which share compiled programs"
    assert brought(f"{path}:clipped", clip_low=0.3)[0].token_loss == PpoClip(0.3, 0.1)
    with pytest.raises(ConfigError, match=r"clip_low: the algorithm .* has no such bound"):
        brought(f"{path}:mine", clip_low=0.3)


def test_a_module_is_named_by_its_name(own, tmp_path, monkeypatch):
    own(name="brought_by_a_test.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert brought("brought_by_a_test:mine")[0].aggregation == "token_mean"


def test_a_stage_is_known_by_the_files_content(own, tmp_path):
    here = own()
    before = rl_fields(rl_config(algorithm=f"{here}:mine"))
    (tmp_path / "elsewhere").mkdir()
    assert rl_fields(rl_config(algorithm=f"{own(name='elsewhere/other.py')}:mine")) == before
    assert rl_fields(rl_config(algorithm=f"{here}:clipped")) != before
    own(OWN + "# edited\n")
    assert rl_fields(rl_config(algorithm=f"{here}:mine")) != before


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        (None, "mine", r"missing\.py is not a file"),
        (OWN, "yours", r"has no yours; it has .*mine"),
        (OWN, "mien", r"has no mien; did you mean mine\?"),
        (OWN, "number", "is of type int, and an Algorithm was expected: .*token_loss"),
        (OWN, "Algorithm", "is the class Algorithm, and an Algorithm"),
        ("import nonsense_that_is_nowhere", "mine", "can't be imported: ModuleNotFoundError"),
        ("def (", "mine", "can't be imported: SyntaxError"),
        (OWN + "mine = Algorithm(halves, loss, 'mean')", "mine", "aggregation 'mean' is not one of token_mean"),
        (OWN + "mine = Algorithm(halves, loss, needs='all')", "mine", "needs is of type str"),
        (OWN + "mine = Algorithm(lambda: 1, loss)", "mine", "its advantages, tried on two groups: TypeError"),
        (OWN + "mine = Algorithm(lambda r: r.rewards_PG[0], loss)", "mine", r"its advantages, .*floats of shape \(2, 2\)"),
        (OWN + "mine = Algorithm(halves, lambda tokens: 1.0)", "mine", "its token loss, tried on arrays"),
        (OWN + "mine = Algorithm(halves, lambda t: t.ratio_BT)", "mine", r"gave something else where \(loss_BT, {name: values_BT}\)"),
        (OWN + "mine = Algorithm(halves, lambda t: (t.ratio_BT.sum(), {}))", "mine", r"the loss has shape \(\)"),
        (OWN + "mine = Algorithm(halves, lambda t: (t.ratio_BT, {'a': t.ratio_BT[0]}))", "mine", r"a has shape \(3,\)"),
        (OWN + "mine = Algorithm(halves, lambda t: (t.logp_nwe_BT, {}))", "mine", "AttributeError.*logp_nwe_BT"),
    ],
)
def test_what_cant_be_an_algorithm_is_a_sentence(own, tmp_path, text, attribute, message):
    path = own(text) if text else str(tmp_path / "missing.py")
    with pytest.raises(ConfigError, match=rf"^rl\.algorithm: .*{message}"):
        brought(f"{path}:{attribute}")


def test_the_one_that_the_page_writes_out_is_an_algorithm(own):
    page = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
    text = page.partition("whole:\n\n```python\n")[2].partition("```")[0]
    assert "np.nanmedian" in text and brought(f"{own(text)}:median")[0].token_loss == PpoClip()


def test_a_module_that_isnt_there_is_a_sentence():
    with pytest.raises(ConfigError, match=r"the module nowhere\.at_all can't be imported: .*named with its \.py"):
        brought("nowhere.at_all:mine")


@pytest.mark.parametrize(
    ("name", "message"), [("gropo", "did you mean grpo"), ("trpo", "is none of grpo"), ("own.py", "is a file; .*own.py:NAME")]
)
def test_an_unknown_name_is_answered(name, message):
    with pytest.raises(ValueError, match=message):
        rl_config(algorithm=name)


def test_the_example_learns(guesser, tiny_run):
    """A user's own algorithm through a whole RL stage; only the file is named."""
    example = Path(__file__).parents[2] / "examples" / "signed_reward.py"
    tree = tiny_run(arms=["rl"], export=False)
    tree["rl"]["algorithm"] = f"{example}:signed"
    pipeline.run(parse_config(tree), Display(quiet=True))
    (stage,) = (tiny_run.directory / "runs" / "tiny" / "stages").glob("rl-rl-*")
    steps = [json.loads(line) for line in (stage / "steps.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for path in stage.glob("rollouts/*.jsonl") for line in path.read_text().splitlines()]
    assert {(sample["reward"], sample["advantage"]) for sample in samples} == {(0, -1), (1, 1)}
    assert all(step["grad_norm"] > 0 and step["moved"] >= 0 and "clip" not in step for step in steps)
    identity = json.loads((stage / "manifest.json").read_text())["identity"]["rl"]["algorithm"]
    assert identity[0] == "signed" and len(identity[1]) == 64
