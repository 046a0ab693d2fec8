"""Runs that train adapters: fine-tuning, and PPO after it with its value head; broken off and gone on with, and what is left of them."""

import json

import jax
import numpy as np
import pytest
from guesser import comparable
from test_pipeline import REFERRED, Killed, kill_after, run, steps

from jaxpolya.config.file import parse_config
from jaxpolya.hf.checkpoint import fingerprint, load_checkpoint
from jaxpolya.hf.source import base_of_adapter, locate
from jaxpolya.models.config import TARGETS
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.value import HEAD

SFT, RL = {"rank": 3, "alpha": 6}, {"rank": 2, "alpha": 8, "targets": ["q_proj", "down_proj"], "rslora": True}


@pytest.fixture
def tree(tiny_run):
    made = tiny_run(arms=["star", "star+rl"], export=False)
    made["sft"] |= {"lora": SFT, "optimizer": {"learning_rate": 1e-2}}
    made["rl"] |= {"lora": RL, "evaluate_at": [2], **REFERRED, "algorithm": "ppo", "value": {"warmup": 1}}
    return made


def test_adapters_go_through_a_run(tiny_run, tree):
    run(tree)
    stages = tiny_run.directory / "runs" / "tiny" / "stages"
    # Sampler and trainer agree before any update, merged or not.
    assert all(abs(step["sampler_kl"]) < 1e-6 for step in steps(stages, "rl-star-rl"))
    (sft,), (rl,) = (list(stages.glob(f"{name}-*")) for name in ("sft-star", "rl-star-rl"))
    assert {locate(str(path), weights=True).kind for path in (sft / "model", rl / "model", rl / "models" / "000002")} == {"adapter"}


@pytest.mark.soak
def test_adapters_are_trained_saved_and_resumed(tiny_run, tree, monkeypatch, mesh1):
    whole, saved, save = tiny_run.directory / "whole", list[set[str]](), Checkpoints.save

    def watched(self, step, state):
        saved.append({path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state["params"])})
        save(self, step, state)

    monkeypatch.setattr(Checkpoints, "save", watched)
    results = run(tree | {"output": str(whole)})
    monkeypatch.undo()
    sft_names, rl_names = ({f"{name}_lora_{factor}" for name in names for factor in "ab"} for names in (TARGETS, ("q", "down")))
    rl_names |= set(HEAD)
    assert sft_names in saved and rl_names in saved, "checkpoints hold what is trained"
    assert set().union(*saved) == sft_names | set(HEAD), "checkpoints hold nothing else"
    for stage, units in (("sft-star", 2), ("rl-star", 11)):
        kill_after(monkeypatch, stage, units)
        with pytest.raises(Killed):
            run(tree)
        monkeypatch.undo()
    run(tree)
    killed = tiny_run.directory / "runs"
    assert comparable(killed / "tiny") == comparable(whole / "tiny")

    log = steps(whole / "tiny" / "stages", "rl-star-rl")
    # Sampler and trainer agree before any update, merged or not; the reference is the model without the adapters.
    assert all(abs(step["sampler_kl"]) < 1e-6 for step in log) and log[0]["reference_kl"] < 1e-3 < log[-1]["ratio"]

    # What a stage leaves are adapters of the run's own model, those before it included, and stands by itself.
    (sft,), (rl,) = (list((killed / "tiny" / "stages").glob(f"{name}-*")) for name in ("sft-star", "rl-star-rl"))
    assert {locate(str(path), weights=True).kind for path in (sft / "model", rl / "model", rl / "models" / "000002")} == {"adapter"}
    settings = json.loads((rl / "model" / "adapter_config.json").read_text())
    assert settings["rank_pattern"] == settings["alpha_pattern"] == dict.fromkeys(("k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"), 3)
    assert (settings["r"], settings["lora_alpha"]) == (5, 5)
    assert base_of_adapter(rl / "model")[0] == tree["model"]["source"]
    base, *trained = (load_checkpoint(str(path), mesh=mesh1).params for path in (tree["model"]["source"], sft / "model", rl / "model"))
    differences = [jax.tree.map(lambda a, b: float(np.abs(a - b).max()), base, params) for params in trained]
    for difference in differences:
        assert difference["embed"] == 0
        assert {name for name, value in difference["blocks"].items() if value > 0} == set(TARGETS)
    between = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *trained)["blocks"]
    assert {name for name, value in between.items() if value > 1e-6} == {"q", "down"}
    # Such a directory is a model to begin at.
    later = run(tree | {"name": "later", "arms": ["base"], "model": tree["model"] | {"source": str(sft / "model")}})
    assert later["arms"]["base"]["eval"]["sums"]["pass"] == results["arms"]["star"]["eval"]["sums"]["pass"]
    assert fingerprint(str(sft / "model")).endswith("+" + fingerprint(tree["model"]["source"]))


def test_what_cant_be_trained_is_said(tree):
    for lora, message in (
        ({"targets": ["q_proj", "q_proj"]}, "name each target once"),
        ({"targets": ["embed_tokens"]}, "targets"),
        ({"rank": 0}, "rank"),
    ):
        with pytest.raises(Exception, match=message):
            parse_config(tree | {"sft": tree["sft"] | {"lora": lora}})
