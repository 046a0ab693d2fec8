"""Where numbers go besides the log: every step once, whatever is killed, and nothing that a sink does ends a training."""

import csv
import json
import struct
import threading
from pathlib import Path

import pytest

from jaxpolya.config import SINKS, RunConfig
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, MachineError
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline
from jaxpolya.train import sinks, trackers
from jaxpolya.train.metrics import StepLog
from jaxpolya.train.sinks import LoggedStage, SinkProgress, Sinks, make_sinks, numbers

EXAMPLE = Path(__file__).parents[2] / "examples" / "csv_sink.py"


class Recorder:
    """Remembers what it is told, across the sinks that it opens; may fail at some calls, by their number."""

    def __init__(self, *failing: int):
        self.told, self.calls, self.closed, self.failing = [], 0, 0, failing

    def __call__(self, stage: LoggedStage) -> "Recorder":
        return self

    def write(self, step, facts):
        self.calls += 1
        if self.calls in self.failing:
            raise OSError("no route to host")
        self.told.append((step, facts))

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(sinks, "FIRST_PAUSE", 0.001)


def stage(directory) -> LoggedStage:
    return LoggedStage("run", "rl-polya", directory, SinkProgress(directory).id, {"name": "run"})


def rows(*steps: int) -> list[dict]:
    return [{"step": step, "loss": 1.0 / (step + 1)} for step in steps]


def train(directory, sink, keep: int, until: int, into=None) -> None:
    """A stage that is at step `keep` and is stopped, somehow, behind step `until`."""
    notes = [] if into is None else into
    feed = Sinks(stage(directory), {"own": sink}, notes.append)
    log = StepLog(directory / "steps.jsonl", keep=keep, primary=True, sinks=feed)
    for row in rows(*range(keep, until)):
        log.append(row)
    log.close()
    feed.close()


def test_a_sink_is_told_every_step_once_across_starts(tmp_path):
    sink = Recorder()
    train(tmp_path, sink, 0, 5)
    train(tmp_path, sink, 2, 7)  # the last checkpoint was behind step 1: 2, 3 and 4 are done again
    assert [step for step, _ in sink.told] == list(range(7)) and sink.closed == 2
    assert sink.told[3] == (3, {"loss": 0.25})
    assert stage(tmp_path).id == stage(tmp_path).id


def test_a_sink_that_is_added_late_is_told_all_steps(tmp_path):
    train(tmp_path, Recorder(), 0, 3)
    late = Recorder()
    feed = Sinks(stage(tmp_path), {"late": late}, print)
    log = StepLog(tmp_path / "steps.jsonl", keep=3, primary=True, sinks=feed)
    log.append(*rows(3))
    feed.close()
    assert [step for step, _ in late.told] == [0, 1, 2, 3]


def test_a_sink_that_knows_what_it_holds_goes_before_the_note(tmp_path):
    train(tmp_path, Recorder(), 0, 3)
    sink = Recorder()
    sink.written = 1
    train(tmp_path, sink, 3, 4)
    assert [step for step, _ in sink.told] == [1, 2, 3]


def test_a_sink_that_fails_is_tried_again_and_named_once(tmp_path):
    sink, notes = Recorder(2, 3, 6), []
    done = threading.Event()
    feed = Sinks(stage(tmp_path), {"own": sink}, notes.append)
    plain = sink.write

    def write(step, facts):
        plain(step, facts)
        if step == 4:
            done.set()

    sink.write = write
    feed.write(*rows(0, 1, 2, 3, 4))
    assert done.wait(60)
    feed.close()
    assert [step for step, _ in sink.told] == [0, 1, 2, 3, 4]
    assert len(notes) == 1 and "log: own fails at rl-polya: OSError: no route to host. The run goes on" in notes[0]


def test_what_a_sink_never_took_is_said_and_told_at_the_next_start(tmp_path):
    def broken(stage):
        raise RuntimeError("no such project")

    notes = []
    train(tmp_path, broken, 0, 3, notes)
    assert "RuntimeError: no such project" in notes[0] and "hasn't taken the last 3 of 3 steps of rl-polya" in notes[-1]
    mended = Recorder()
    train(tmp_path, mended, 2, 4)
    assert [step for step, _ in mended.told] == [0, 1, 2, 3]


def test_a_sink_that_hangs_holds_up_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "GRACE", 0.05)
    released, notes, sink = threading.Event(), [], Recorder()
    sink.write = lambda step, facts: released.wait()
    train(tmp_path, sink, 0, 3, notes)
    released.set()
    assert len(notes) == 1 and "hasn't taken the last 3 of 3 steps" in notes[0]
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 3


def test_a_damaged_note_begins_anew(tmp_path):
    train(tmp_path, Recorder(), 0, 2)
    (tmp_path / "sinks.json").write_text('{"id": "x", "ro')
    sink = Recorder()
    train(tmp_path, sink, 1, 2)
    assert [step for step, _ in sink.told] == [0, 1]


def test_sinks_are_told_numbers_alone():
    row = {"step": 3, "loss": 1, "note": "x", "flag": True, "audit": {"paid": 2}, "validation": {"pass@1": 0.5, "by": {"sums": 0.25}}}
    assert numbers(row) == {"loss": 1.0, "validation/pass@1": 0.5, "validation/by/sums": 0.25}


def events(directory) -> list[tuple[int, str, float]]:
    """(step, tag, value) of all event files, in their order; TFRecord: length, its checksum, an Event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    scalars = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return scalars


def test_tensorboard_shows_each_step_once_however_often_a_stage_is_killed(tmp_path):
    pytest.importorskip("tensorboardX")
    train(tmp_path, make_sinks(["tensorboard"])["tensorboard"], 0, 3)
    (old,) = tmp_path.glob("events.out.tfevents.*")
    old.write_bytes(old.read_bytes()[:-7])  # torn by a kill
    train(tmp_path, make_sinks(["tensorboard"])["tensorboard"], 1, 4)
    assert events(tmp_path) == [(step, "loss", pytest.approx(1 / (step + 1))) for step in range(4)]


def test_every_configured_sink_is_built_and_says_what_it_needs(monkeypatch):
    assert tuple(sinks.BUILT_IN) == tuple(trackers.PACKAGES) == SINKS
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, package in trackers.PACKAGES.items():
        assert f'\n{name} = ["{package}>=' in extras
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MachineError, match=rf'log: {name} needs the package {package}.*pip install "jaxpolya\[{name}\]"'):
            make_sinks([name])


MADE_OF_A_STAGE = "class sink:\n    def __init__(self, stage): pass\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sink = 3", "is of type int, and something that can be called was expected"),
        ("def sink(): pass", r"own.py:sink takes \(\), and \(stage\) was expected"),
        (MADE_OF_A_STAGE + "    def write(self, step, facts): pass", r"has no close: a sink has write\(step, facts\)"),
        (
            MADE_OF_A_STAGE + "    def write(self, facts): pass\n    def close(self): pass",
            r"sink.write takes \(self, facts\), and \(self, step, facts\) was expected",
        ),
    ],
)
def test_what_cant_be_a_sink_is_a_sentence(tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=f"^log: .*{message}"):
        make_sinks([f"{tmp_path / 'own.py'}:sink"])


@pytest.mark.parametrize(("names", "message"), [(["tensorbord"], "did you mean tensorboard"), (["wandb", "wandb"], "each sink once")])
def test_an_unknown_sink_is_answered(names, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.model_validate({"name": "x", "log": names})


def test_the_example_is_told_what_a_run_finds_and_changes_nothing(tiny_run):
    """A user's own sink through fine-tuning, RL and evaluation; the stages are those of a run that logs nowhere."""
    tree = tiny_run(arms=["star+rl"], export=False)
    pipeline.run(parse_config(tree | {"log": [f"{EXAMPLE}:CsvSink"]}), Display(quiet=True))
    stages = tiny_run.directory / "runs" / "tiny" / "stages"
    told = {path.parent.name: list(csv.reader(path.open())) for path in stages.glob("*/numbers.csv")}
    assert {name.rsplit("-", 1)[0] for name in told} == {"sft-star", "rl-star-rl", "eval-star-rl-sums"}
    for name, lines in told.items():
        log = stages / name / "steps.jsonl"
        if log.exists():
            steps = [json.loads(line) for line in log.read_text().splitlines()]
            assert lines == [
                ["tiny", name.rsplit("-", 1)[0], str(row["step"]), fact, str(value)]
                for row in steps
                for fact, value in sorted(numbers(row).items())
            ]
        else:
            assert {line[3] for line in lines} == {"pass@1", "pass@2", "pass@4", "length", "truncated", "unparseable"}
    whole = sorted(path.read_bytes() for path in stages.glob("*/manifest.json"))
    pipeline.run(parse_config(tree), Display(quiet=True))
    assert sorted(path.read_bytes() for path in stages.glob("*/manifest.json")) == whole
