"""Fixtures of whole runs: a tiny model that answers sums of two digits with some digit, so that every stage has right and wrong
responses to work on, and a configuration that takes it through all stages in seconds."""

import json
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import yaml

from jaxpolya.config import SftConfig
from jaxpolya.data.packing import token_example
from jaxpolya.hf.checkpoint import CheckpointMeta, export_checkpoint
from jaxpolya.hf.families import config_to_hf
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.polya.catalogue import load_catalogue, slots
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.progress import Display
from jaxpolya.records import Question, dump
from jaxpolya.train.sft import run_sft

HEURISTICS = {"analogy": "Think of a similar sum.", "symmetry": "Swap the numbers.", "pattern": "Look for a pattern."}
"""Laid over the built-in ones, whose instructions would make most of the tests' prompts."""
WORDINGS = ["The answer is \\boxed{%d}.", "Add them, so the answer is \\boxed{%d}."]


def questions(count: int, seed: int) -> list[Question]:
    """Different sums of two digits whose answer is a digit."""
    pairs = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
    chosen = random.Random(seed).sample(pairs, count)
    return [Question(id=f"sum-{a}-{b}", question=f"What is {a} + {b}?", answer=str(a + b)) for a, b in chosen]


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory):
    """A user's catalogue with short instructions."""
    path = tmp_path_factory.mktemp("catalogue") / "heuristics.yaml"
    path.write_text(yaml.safe_dump({"heuristics": [{"key": key, "title": key, "instruction": text} for key, text in HEURISTICS.items()]}))
    return path


@pytest.fixture(scope="session")
def guesser(tmp_path_factory, mesh1, make_tokenizer, catalogue):
    """A checkpoint that was taught to end with some digit, right or wrong, in two wordings."""
    directory = tmp_path_factory.mktemp("guesser")
    offered = [None, *slots(load_catalogue(catalogue).pick(list(HEURISTICS)), None, 0, 0)]
    asked = [(question, slot) for question in questions(50, 0) for slot in offered]

    def say(question: Question, rng: random.Random) -> str:
        digit = int(question.answer) if rng.random() < 0.3 else rng.randrange(10)
        return rng.choice(WORDINGS) % digit

    return teach(directory, mesh1, make_tokenizer, asked, WORDINGS, say)


def teach(directory: Path, mesh, make_tokenizer, asked, responses: list[str], say, seed: int = 0) -> Path:
    """A tiny checkpoint that was taught to answer (question, slot) pairs as `say(question, rng)` does; `said` are texts of its kind."""
    # A vocabulary of whole words keeps prompts at some twenty tokens.
    plain = PromptBuilder(make_tokenizer([""], 290))
    tokenizer = make_tokenizer([plain.text(question, slot) + text for question, slot in asked for text in responses], 512)
    config = DecoderConfig(
        family="llama",
        vocab_size=512,
        width=48,
        ff_width=96,
        layers=2,
        heads=4,
        kv_heads=2,
        head_width=12,
        max_positions=128,
        norm_eps=1e-5,
    )
    builder, rng = PromptBuilder(tokenizer), random.Random(seed)
    examples = []
    for question, slot in asked:
        response = [*tokenizer.encode(say(question, rng), add_special_tokens=False), tokenizer.eos_token_id]
        examples.append(token_example(builder.encode(builder.text(question, slot)), response))
    sft = SftConfig.model_validate(
        {"optimizer": {"learning_rate": 1e-2}, "batching": {"row_tokens": 128, "micro_rows": 4}, "batch_rows": 4, "epochs": 6, "heldout": 0}
    )
    with Display(quiet=True).task("teach", 0) as task:
        result = run_sft(
            sft, config, lambda: init_params(config, jax.random.key(seed)), mesh, examples, [],
            dtype=jnp.float32, directory=directory, task=task,
        )  # fmt: skip
    eos = tokenizer.eos_token_id
    hf_config = config_to_hf(config) | {"eos_token_id": eos}
    meta = CheckpointMeta("taught", config, hf_config, {"eos_token_id": [eos]}, tokenizer, (eos,))
    export_checkpoint(directory / "model", result.params, meta, dtype="float32")
    return directory / "model"


@pytest.fixture
def one_device():
    """The tests have eight devices; runs with `fsdp: 1` take the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxpolya.runs.session.make_mesh", lambda config: make_mesh(config, jax.devices()[:1] if config.fsdp == 1 else None))
        yield


@pytest.fixture
def tiny_run(guesser, catalogue, one_device, tmp_path):
    """A function that gives a complete configuration as a plain tree, and writes its question files."""
    for use, count, seed in (("train", 16, 1), ("rl", 12, 2), ("eval", 10, 3)):
        (tmp_path / f"{use}.jsonl").write_text("".join(dump(question) for question in questions(count, seed)))

    def source(use: str) -> list[dict]:
        return [{"kind": "jsonl", "path": str(tmp_path / f"{use}.jsonl")}]

    def tree(**changes) -> dict:
        batching = {"row_tokens": 128, "micro_rows": 2}
        sampling = {"max_new_tokens": 16}
        return {
            "name": "tiny",
            "output": str(tmp_path / "runs"),
            "model": {"source": str(guesser), "compute_dtype": "float32"},
            "mesh": {"fsdp": 1},
            "arms": ["base", "rl", "star+rl", "polya+rl"],
            "generate": {
                "questions": source("train"), "sampling": sampling, "samples": 2, "plain_samples": 6,
                "heuristics": list(HEURISTICS), "exemplars": 0, "catalogue": str(catalogue),
            },
            "select": {"n": 2},
            "sft": {
                "optimizer": {"learning_rate": 1e-3}, "batching": batching, "batch_rows": 2,
                "epochs": 2, "heldout": 0.2, "checkpoint_every": 1,
            },
            "rl": {
                "questions": source("rl"), "sampling": sampling, "optimizer": {"learning_rate": 1e-3}, "batching": batching,
                "steps": 3, "prompts": 2, "group": 4, "updates": 2, "checkpoint_every": 1,
            },
            "eval": {"questions": {"sums": source("eval")}, "sampling": sampling, "samples": 4, "bootstrap": 100},
            "decode": {"rows": 16, "burst": 8},
            "verify": {"workers": 1},
        } | changes  # fmt: skip

    tree.directory = tmp_path  # type: ignore[attr-defined]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree()))
    return tree


def comparable(directory) -> dict[str, object]:
    """Everything in the stages that must not depend on when and how often a run was started."""
    contents: dict[str, object] = {}
    for path in sorted((directory / "stages").rglob("*.jsonl")):
        if path.name == "attempts.jsonl":
            continue
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row.pop("seconds", None)  # of the verifier
            row.pop("speed", None)  # of a step
        contents[str(path.relative_to(directory))] = rows
    return contents
