"""`jaxpolya init`: what it writes runs as it is, on sample questions or on a file of one's own."""

import json

import pytest

from jaxpolya.config.file import load_config
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import iter_json
from jaxpolya.starter import SIZES, start

SMALL = ["mesh.fsdp=1", "verify.workers=1", "arms=[base, rl]", "rl.steps=2", "eval.bootstrap=50", "eval.samples=2", "export=false"]


def questions(sources) -> list[str]:
    return [question.question for question in load_questions(sources).questions]


def test_what_it_writes_runs(guesser, one_device, tmp_path, monkeypatch):
    import jaxpolya

    monkeypatch.chdir(tmp_path)
    configuration, *_ = start(tmp_path / "my run", str(guesser))
    results = jaxpolya.run(configuration, overrides=SMALL, quiet=True)
    assert results is not None and set(results.arms) == {"base", "rl"} and (tmp_path / "runs/my-run/report.md").exists()
    rollouts = [row for path in tmp_path.glob("runs/my-run/stages/rl-*/rollouts/*.jsonl") for _, row in iter_json(path)]
    assert {row["reward"] for row in rollouts} > {1.1} and {row["reward"] for row in rollouts} <= {0.0, 0.1, 1.0, 1.1}


def test_sample_questions_are_asked_once(tmp_path):
    config = load_config(start(tmp_path / "own")[0])
    asked = [questions(config.generate.questions), questions(config.rl.questions), questions(config.eval.questions["own"])]
    assert [len(of_file) for of_file in asked] == list(SIZES.values()) and len(
        {question for of_file in asked for question in of_file}
    ) == sum(SIZES.values())
    assert config.rl.reward == f"{tmp_path}/own/reward.py:reward"


def test_a_file_of_ones_own_is_shared_out(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{i} + 1?", "solution": i + 1}) + "\n" for i in range(40)))
    config = load_config(start(tmp_path / "own", questions=file)[0])
    asked = [questions(config.generate.questions), questions(config.rl.questions), questions(config.eval.questions["own"])]
    assert [len(of_file) for of_file in asked] == [20, 10, 10] and len({question for of_file in asked for question in of_file}) == 40
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["reward.py", "run.yaml"]


def test_nothing_is_replaced(tmp_path):
    start(tmp_path / "own")
    before = {path: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    with pytest.raises(ConfigError, match=r"holds run\.yaml, reward\.py, .* already, and nothing is replaced"):
        start(tmp_path / "own")
    assert before == {path: path.read_bytes() for path in (tmp_path / "own").iterdir()}


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", InputError, "is empty"),
        ('{"a": 1, "b": 2}\n', InputError, "none of the columns a, b is known for the question"),
        ('{"question": "1 + 1?", "b": 2}\n', InputError, "none of the columns question, b is known for the answer"),
        ('{"question": "1 + 1?", "answer": 2}\n', InputError, "has 1 usable questions, too few"),
        (None, ConfigError, "is not a file"),
    ],
)
def test_questions_that_do_not_do(tmp_path, text, error, says):
    file = tmp_path / "own.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=says):
        start(tmp_path / "own", questions=file)
    assert not (tmp_path / "own").exists()


def test_a_model_that_is_not_there(tmp_path):
    for name in ("weights/none.gguf", "./none", "none"):
        with pytest.raises(ConfigError, match=f"--model {name}: is not there"):
            start(tmp_path / "own", name)
