"""Training of a tiny model on made-up rollouts, for tests that compare trainings: on other meshes, hosts and records."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxpolya.config import ALGORITHMS, MeshConfig, RlConfig
from jaxpolya.data.packing import pack
from jaxpolya.data.sharing import pack_groups
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.forward import Forward
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.parallel.sharding import param_shardings
from jaxpolya.progress import Display
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.replay import Model, RecordedRounds
from jaxpolya.train.algorithms import make_algorithm, most_refills, policy_loss
from jaxpolya.train.losses import Mean, Tokens, Values
from jaxpolya.train.rl import RlResult, make_examples, run_rl
from jaxpolya.train.state import Step, init_state
from jaxpolya.train.value import with_head

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


def on_mesh(mesh, decoder=CONFIG) -> Params:
    """Random parameters, spread over a mesh of any number of hosts; no program is compiled for them."""
    specs, rng = abstract_params(decoder), np.random.default_rng(0)
    drawn = jax.tree.map(lambda spec: rng.normal(0, 0.1, spec.shape).astype(np.float32), specs)
    return jax.tree.map(
        lambda array, at: jax.make_array_from_callback(array.shape, at, lambda index: array[index]),
        drawn, param_shardings(mesh, specs, "train"),
    )  # fmt: skip


def named(file: str, algorithm: str, **changes) -> RlConfig:
    """A configuration with an algorithm, which moves the policy from the first step on."""
    return rl_config(file, algorithm=algorithm, **({"value": {"warmup": 0}} if algorithm == "ppo" else {}), **changes)


def losses(file: str, directory: str, algorithm: str, rank: str = "") -> dict[str, list[list[float]]]:
    """Algorithm → loss and length of the gradient in each step of a whole stage, on all devices of all hosts; with adapters of a rank."""
    steps = train(named(file, algorithm, **({"lora": {"rank": int(rank)}} if rank else {})), Path(directory)).steps
    return {algorithm: [[step["loss"], step["grad_norm"]] for step in steps]}


def losses_side_by_side(file: str, directory: str) -> dict[str, list[float]]:
    """Algorithm → its loss on a recorded round before each of some updates by the gradients of all, on all devices of all hosts."""
    return side_by_side(file, directory)[0]


def side_by_side(file: str, directory: str, *, share: bool = False, updates: int = 3) -> tuple[dict[str, list[float]], Params]:
    """(the losses, the parameters after the updates); with shared prompts.

    All algorithms are in one program: to compile one each would take minutes.
    """
    mesh, decoder = make_mesh(MeshConfig()), with_head(CONFIG)
    values = [np.linspace(0, 1, len(row["token_ids"])) for row in rows(steps=1)]
    losses, examples = {}, []
    for name in ALGORITHMS:
        config = named(file, name)
        algorithm, _ = make_algorithm(config)
        losses[name] = policy_loss(config, algorithm)
        with Display(quiet=True).task("rl", 0) as task:
            round_ = recorded(config, Path(directory), task).draw(0, {}, 0)
        known = {"value_old": values} if algorithm.needs.value else {}
        made, _, _ = make_examples(round_.samples, round_.prompts, config, algorithm, known)
        extras = [{key if key != "advantage" else name: array for key, array in example.extras.items()} for example in made]
        before = [example.extras for example in examples] or [{}] * len(made)
        examples = [dataclasses.replace(e, extras={**b, **x}) for e, b, x in zip(made, before, extras, strict=True)]
    forward = Forward(decoder, jnp.dtype("float32"))

    def objective(params, batch):
        given = {name: array[:, 1:] for name, array in batch.items()}
        logp, entropy, value = forward.logprobs_and_values(params, batch, 0.1)
        mask, of_head = given["weights"] > 0, Values(value, given["value_old"], given["returns"])
        means = {}
        for name, loss in losses.items():
            tokens = Tokens.of(logp, given["logp_old"], given[name], mask, given["segment_ids"])
            means[name] = loss(tokens, entropy, of_head if loss.value else None)[0]["loss"]
        total = sum(mean.value for mean in means.values())
        return means | {"loss": Mean(total, jnp.float32(1)), "tokens": Mean(mask.sum(dtype=jnp.float32), jnp.float32(1))}, {}

    optimizer = optax.sgd(0.1)
    update, state = Step(objective, decoder, mesh, optimizer), init_state(on_mesh(mesh, decoder), decoder, mesh, optimizer)
    shape: dict[str, int] = {"row_tokens": 32, "rows_multiple": 8}
    batch, measured = pack_groups(examples, GROUP, **shape) if share else pack(examples, **shape), []
    for _ in range(updates):
        state, facts = update(state, batch, len(batch["tokens"]))
        measured.append(facts)
    return {name: [facts[name] for facts in measured] for name in ALGORITHMS}, state["params"]


def recorded(config: RlConfig, directory: Path, task, known=()) -> RecordedRounds:
    """The rounds of a configuration's `replay`."""
    refills = most_refills(config, make_algorithm(config)[0])
    return RecordedRounds(config, open_recording(config, "rl"), MODEL, known, arm="rl", directory=directory, task=task, refills=refills)


def train(config: RlConfig, directory: Path, mesh=None, known=()) -> RlResult:
    """A whole RL stage, with nobody to ask."""
    mesh = mesh or make_mesh(MeshConfig())
    with Display(quiet=True).task("rl", 0) as task:
        rounds = recorded(config, directory, task, known)
        return run_rl(
            config, CONFIG, lambda: on_mesh(mesh), mesh, rounds,
            dtype=jnp.dtype("float32"), directory=directory, task=task, note=print, keep=lambda step, params: None,
        )  # fmt: skip
