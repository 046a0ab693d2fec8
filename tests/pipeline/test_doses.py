"""An arm on the way through its RL: its model after some of the steps is kept and evaluated, and nothing is trained or drawn twice."""

import json

import pytest
from guesser import comparable

from jaxpolya.config.file import parse_config
from jaxpolya.errors import RunError
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline


class Notes(Display):
    """Keeps what is noted."""

    def __init__(self):
        super().__init__(quiet=True)
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def run(tree, display=None, **kwargs):
    results = pipeline.run(parse_config(tree), display or Notes(), **kwargs)
    return results and results.to_json()


def test_doses_are_evaluated_and_added_later_without_a_draw(tiny_run, monkeypatch):
    tree = tiny_run(arms=["rl"], export=False)
    tree["eval"] |= {"samples": 2, "composition": "acts"}
    before = run(tree)
    directory = tiny_run.directory / "runs" / "tiny"
    (stage,) = (directory / "stages").glob("rl-rl-*")
    known = comparable(directory)
    tree["rl"]["evaluate_at"] = [1, 2, 3]
    with pytest.raises(RunError, match=r"--only eval: rl-rl: the models of the steps 1, 2 were not kept.*leave --only away"):
        run(tree, only="eval")
    assert (stage / "manifest.json").exists()

    monkeypatch.setattr("jaxpolya.decode.engine.Engine.run", lambda *_: pytest.fail("drew again"))
    display = Notes()
    run(tree, display, only="rl")
    monkeypatch.undo()
    assert any("trained again from its recorded rollouts" in words for words in display.notes)
    assert comparable(directory) == known
    assert sorted(path.name for path in (stage / "models").iterdir()) == ["000001", "000002"]

    results = run(tree)
    assert {name: rows for name, rows in comparable(directory).items() if name in known} == known
    assert list(results["arms"]) == ["rl"]
    doses = results["arms"]["rl"]["doses"]
    assert list(doses) == ["1", "2"] and set(doses["1"]["sums"]) >= {"pass", "majority", "diversity"}
    assert len(list((directory / "stages").glob("labels-rl-at-?-sums-*"))) == 2, "each dose's solutions are labelled too"
    assert results["arms"]["rl"]["eval"] == before["arms"]["rl"]["eval"]
    (evaluated,) = (directory / "stages").glob("eval-rl-at-1-sums-*")
    rows = [json.loads(line) for line in (evaluated / "samples.jsonl").read_text().splitlines()]
    assert {row["arm"] for row in rows} == {"rl@1"}
    assert json.loads((evaluated / "manifest.json").read_text())["identity"]["model"] == f"{stage.name}@1"


@pytest.mark.parametrize("steps", [[2, 1], [1, 1], [4]])
def test_steps_that_mean_nothing_are_refused(tiny_run, steps):
    tree = tiny_run()
    tree["rl"]["evaluate_at"] = steps
    with pytest.raises(Exception, match="rising order, the last at most `steps`"):
        parse_config(tree)
