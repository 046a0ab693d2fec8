"""What `jaxpolya init` writes: a small run on questions of one's own, with a reward of one's own, which works as it is.

The files are templates beside this module. Sample questions are sums of two digits, which the smallest models get right now and then, so
that every stage has right and wrong responses to work on; they are there to be replaced. A file of one's own questions is read once, to
know its columns and how many questions it has, and shared out to training, RL and evaluation.
"""

import importlib.resources
import json
import random
import re
import shlex
import string
from pathlib import Path
from typing import Any

import yaml

from jaxpolya.config import JsonlSource
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError, MachineError, nearest_path
from jaxpolya.files import write_whole
from jaxpolya.records import dump, iter_json

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where nobody names one: small enough for a CPU, and follows instructions now and then."""

SIZES = {"train": 16, "rl": 12, "eval": 10}
"""Sample questions of each use."""

LEAST = 16
"""Questions of one's own that are enough for a step of RL and something on both sides of it."""

LENGTHS, SAMPLE_LENGTHS = {"new_tokens": 256, "row_tokens": 1024}, {"new_tokens": 64, "row_tokens": 256}
"""Longest responses, and packed rows that hold them: of questions of one's own, and of sums."""

QUESTION, ANSWER = ("question", "problem", "prompt", "query", "input"), ("answer", "solution", "target", "output", "gold", "label")
"""Columns that hold questions and answers in most sets."""


def start(directory: Path, model: str | None = None, questions: Path | None = None) -> list[Path]:
    """Writes a configuration, a reward and sample questions, and returns their paths, the configuration's first.

    Args:
      directory: is made; nothing in it is replaced.
      model: a checkpoint, a path from the working directory or a hub name.
      questions: JSON lines of one's own, in place of the sample questions.

    Raises:
      ConfigError: a file is there already, or the model or the questions are not.
      InputError: the questions can't be read, or are too few.
      MachineError: the directory can't be made or written.
    """
    model = _located(model) if model else MODEL
    uses = _shares(questions) if questions else {use: _flow({"kind": "jsonl", "path": f"{use}.jsonl"}) for use in SIZES}
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.absolute().name).strip("-.") or "run"
    told = {"here": shlex.quote(str(directory / "run.yaml")), "name": name, "model": json.dumps(model, ensure_ascii=False)}
    lengths = LENGTHS if questions else SAMPLE_LENGTHS
    templates = importlib.resources.files("jaxpolya.starter")
    files = {
        "run.yaml": string.Template((templates / "run.yaml").read_text(encoding="utf-8")).substitute(**told, **uses, **lengths),
        "reward.py": (templates / "reward.py").read_text(encoding="utf-8"),
    }
    if not questions:
        files |= {f"{use}.jsonl": text for use, text in _samples().items()}
    if there := [name for name in files if (directory / name).exists()]:
        raise ConfigError(f"{directory} holds {', '.join(there)} already, and nothing is replaced; name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(directory / name, text)
    except OSError as error:
        raise MachineError(f"{directory} can't be made or written ({error.strerror or error}); name another directory") from None
    return [directory / name for name in files]


def _located(model: str) -> str:
    """The model as a configuration elsewhere names it. Raises `ConfigError` for a path that isn't there."""
    path = Path(model).expanduser()
    if path.exists():
        return str(path.absolute())
    if "://" in model or (model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith(".gguf")):
        return model
    raise ConfigError(f"--model {model}: is not there{nearest_path(path)}; name a checkpoint's directory, a .gguf file or a hub name")


def _samples() -> dict[str, str]:
    """Use → JSON lines of sums, none of which is asked twice."""
    sums = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
    drawn = iter(random.Random(0).sample(sums, sum(SIZES.values())))
    rows = {use: [next(drawn) for _ in range(size)] for use, size in SIZES.items()}
    return {use: "".join(dump({"question": f"What is {a} + {b}?", "answer": str(a + b)}) for a, b in pairs) for use, pairs in rows.items()}


def _shares(path: Path) -> dict[str, str]:
    """Use → the source of its share of a file: a quarter, at most 200, to evaluate on; of the others two thirds to train on, one for RL."""
    if not path.is_file():
        near = " but a directory" if path.is_dir() else nearest_path(path)
        raise ConfigError(f"--questions {path}: is not a file{near}; name JSON lines of questions and answers")
    columns = _columns(path)
    count = len(load_questions([JsonlSource(kind="jsonl", path=path, columns=columns)]).questions)  # type: ignore[arg-type]
    if count < LEAST:
        raise InputError(f"{path}: has {count} usable questions, too few to train and evaluate on; at least {LEAST} are needed")
    evaluated = min(count // 4, 200)
    learned = (count - evaluated) * 2 // 3
    limits = {"train": (0, learned), "rl": (learned, count - evaluated - learned), "eval": (count - evaluated, evaluated)}
    shared = {"kind": "jsonl", "path": str(path.absolute()), **({"columns": columns} if columns else {}), "shuffle": 0}
    return {use: _flow({**shared, "skip": skip, "limit": limit}) for use, (skip, limit) in limits.items()}


def _flow(source: dict[str, Any]) -> str:
    """A question source as YAML on one line."""
    return yaml.safe_dump(source, default_flow_style=True, sort_keys=False, width=2**20, allow_unicode=True).strip()


def _columns(path: Path) -> dict[str, str]:
    """Our name → the file's, where they differ. Raises `InputError` where it isn't clear what is the question and what the answer."""
    row = next((cells for _, cells in iter_json(path, nan_is_null=True)), None)
    if row is None:
        raise InputError(f"{path} is empty; it is to hold one JSON object a line, with a question and an answer")
    columns = {}
    for ours, names in (("question", QUESTION), ("answer", ANSWER)):
        name = next((name for name in names if name in row), None)
        if name is None and not (ours == "answer" and "tests" in row):
            raise InputError(
                f"{path}:1: none of the columns {', '.join(row)} is known for the {ours} ({', '.join(names)}); start without --questions, "
                f"and name this file in the configuration, with `columns: {{{ours}: …}}`"
            )
        if name not in (None, ours):
            columns[ours] = str(name)
    return columns
