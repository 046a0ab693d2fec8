"""Training of a tiny model on made-up rollouts, for tests that compare trainings: on other meshes, hosts and records."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxpolya.config import MeshConfig, RlConfig
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.progress import Display
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.replay import Model, RecordedRounds
from jaxpolya.train.algorithms import make_algorithm, most_refills
from jaxpolya.train.rl import RlResult, run_rl

CONFIG = DecoderConfig("llama", 97, 32, 48, 2, 4, 2, 8, 128, tied_embeddings=True)
STEPS, PROMPTS, GROUP = 2, 4, 4
MODEL = Model(97, lambda text: [int(word) for word in text.split()], lambda ids: " ".join(map(str, ids)))
"""Texts are numbers: the tokens."""


def rows(logprobs: bool = True, steps: int = STEPS) -> list[dict]:
    """Records of all rounds; each group has right and wrong responses."""
    rng = np.random.default_rng(0)
    made = []
    for step in range(steps):
        for prompt in range(PROMPTS):
            prompt_ids = [1 + step, 10 + prompt, *rng.integers(1, 97, 2).tolist()]
            for index in range(GROUP):
                tokens = rng.integers(1, 97, rng.integers(2, 9)).tolist()
                row = {"step": step, "prompt_ids": prompt_ids, "token_ids": tokens, "reward": float(index % 2)}
                known = {"logprobs": rng.normal(-4.5, 0.2, len(tokens)).tolist()}
                made.append(row | known if logprobs else row)
    return made


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in records))
    return str(path)


def rl_config(replay: str, **changes) -> RlConfig:
    tree = {
        "questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": {"max_new_tokens": 8},
        "optimizer": {"learning_rate": 1e-3}, "batching": {"row_tokens": 32, "micro_rows": 8}, "steps": STEPS, "prompts": PROMPTS,
        "group": GROUP, "updates": 2, "replay": replay,
    } | changes  # fmt: skip
    return RlConfig.model_validate(tree)


def train(config: RlConfig, directory: Path, mesh=None, known=()) -> RlResult:
    """A whole RL stage, with nobody to ask."""
    mesh = mesh or make_mesh(MeshConfig())
    with Display(quiet=True).task("rl", 0) as task:
        settings = {"arm": "rl", "directory": directory, "task": task, "refills": most_refills(config, make_algorithm(config)[0])}
        rollouts = RecordedRounds(config, open_recording(config, "rl"), MODEL, known, **settings)
        return run_rl(
            config, CONFIG, lambda: init_params(CONFIG, jax.random.key(0)),
            mesh, rollouts, dtype=jnp.dtype("float32"), directory=directory, task=task, note=print, keep=lambda step, params: None,
        )  # fmt: skip
