"""Paths in a configuration start at its own directory, or at the working directory; errors say where was looked."""

import json
from pathlib import Path

import pytest
import yaml

from jaxpolya.config import RunConfig
from jaxpolya.config.file import load_config, parse_config
from jaxpolya.config.paths import place, resolve
from jaxpolya.errors import InputError
from jaxpolya.runs.checks import saying_where
from jaxpolya.runs.identity import source_identity

SAMPLING = {"max_new_tokens": 8}
TRAINED = {"optimizer": {"learning_rate": 1e-3}, "batching": {"row_tokens": 64}}


def tree(**eval_source) -> dict:
    return {
        "name": "x",
        "model": {"source": "own/model"},
        "arms": ["rl"],
        "rl": {"questions": [{"kind": "jsonl", "path": "q.jsonl"}], "sampling": SAMPLING, "steps": 1, "prompts": 1, **TRAINED}
        | {"algorithm": "algorithm.py:mine"},
        "eval": {"questions": {"sums": [{"kind": "jsonl", "path": "q.jsonl"}, {"kind": "hub", "name": "set"} | eval_source]}}
        | {"sampling": SAMPLING},
    }  # fmt: skip


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A directory with a configuration and some of what it names; the working directory is another one, beside it."""
    (tmp_path / "work").mkdir()
    directory = tmp_path / "own"
    for name in ("q.jsonl", "algorithm.py", "model/config.json", "set/train.jsonl"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps({"question": "1 + 1?", "answer": "2"}))
    (directory / "run.yaml").write_text(yaml.safe_dump(tree() | {"output": "runs", "model": {"source": "model"}}))
    monkeypatch.chdir(tmp_path / "work")
    return directory


def test_what_lies_beside_the_file_is_found_from_anywhere(beside):
    (beside / "runs").mkdir()
    config = load_config(Path("../own/run.yaml"))
    assert config.model.source == "../own/model" and config.rl.algorithm == "../own/algorithm.py:mine"
    assert [str(source.path) for source in config.rl.questions] == ["../own/q.jsonl"]
    assert config.eval.questions["sums"][1].name == "../own/set"
    assert config.output == Path("runs"), "where runs lie must not hang on what is there"
    resolved = config.model_dump(mode="json")
    assert parse_config(resolved, file=Path("elsewhere/run.yaml")).model_dump(mode="json") == resolved, "what is found stays found"


def test_the_file_s_directory_comes_before_the_working_directory_and_an_override_turns_that_round(beside):
    Path("q.jsonl").write_text("{}")
    assert load_config("../own/run.yaml").rl.questions[0].path == Path("../own/q.jsonl")
    (beside / "q.jsonl").unlink()
    assert load_config("../own/run.yaml").rl.questions[0].path == Path("q.jsonl")
    (beside / "q.jsonl").write_text("{}")
    sources = "rl.questions=[{kind: jsonl, path: q.jsonl}, {kind: jsonl, path: set/train.jsonl}]"
    given = load_config("../own/run.yaml", [sources]).rl.questions
    assert [source.path for source in given] == [Path("q.jsonl"), Path("../own/set/train.jsonl")]


def test_names_that_are_no_paths_stay(beside):
    names = ["openai/gsm8k", "grpo", "gs://bucket/model", "~/model", str(beside / "q.jsonl"), "module:attribute", "none.py:f", ""]
    assert [resolve(name, (beside, Path())) for name in names] == names
    assert place({"model": 3, "rl": [], "eval": {"questions": [1]}}, RunConfig, (beside,)) == {
        "model": 3, "rl": [], "eval": {"questions": [1]}
    }  # fmt: skip


def test_a_stage_is_known_by_the_same_whatever_the_directory(beside, monkeypatch):
    there = [source_identity(source) for source in load_config("../own/run.yaml").eval.questions["sums"]]
    absolute = [source_identity(source) for source in load_config(beside / "run.yaml").eval.questions["sums"]]
    monkeypatch.chdir(beside)
    here = load_config(beside / "run.yaml")
    assert [str(source) for source in (here.rl.questions[0].path, here.rl.algorithm)] == ["q.jsonl", "algorithm.py:mine"]
    assert there == absolute == [source_identity(source) for source in here.eval.questions["sums"]]


def test_errors_say_where_was_looked(beside):
    config = load_config("../own/run.yaml", ["rl.algorithm=no.py:f", "rl.questions.0.path=no.jsonl", "log=[own.py:sink]"])
    for path in ("no.py", "no.jsonl", "own.py"):
        with pytest.raises(InputError, match="gone") as caught, saying_where(config):
            raise InputError(f"{path} has gone")
        assert str(caught.value) == f"{path} has gone\n  looked for as a path: {beside / path}, then {Path.cwd() / path}"
    with pytest.raises(InputError, match=r"^\S+q\.jsonl is empty$"), saying_where(config):
        raise InputError(f"{config.eval.questions['sums'][0].path} is empty")


def test_the_doors_of_a_list_are_found_too(beside):
    tree = yaml.safe_load((beside / "run.yaml").read_text()) | {"log": ["tensorboard", "algorithm.py:sink"]}
    assert parse_config(tree, file=beside / "run.yaml").log == ["tensorboard", f"{beside}/algorithm.py:sink"]
