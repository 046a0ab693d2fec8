"""What a person sees while a run works, and what another terminal can read of it."""

import io

import pytest
from rich.console import Console

from jaxpolya import progress
from jaxpolya.progress import Display, lasting, read_progress


@pytest.fixture
def clock(monkeypatch):
    """The clock of the display, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_step_says_where_it_is_and_how_long_it_takes(tmp_path, clock):
    out = io.StringIO()
    display = Display(Console(file=out, width=200))
    display.run_begins(tmp_path, "abc")
    display.stage_begins("rl-polya-rl-0123", 5, 9, 7200.0)
    with display.task("rl-polya-rl", 80) as task:
        for step in range(1, 3):
            task.phase("asking")
            for _ in range(8):
                clock[0] += 10
                task.advance(1, tokens=50)
            task.phase("updating")
            clock[0] += 5
            task.step(step, 10, {"reward": 0.5, "length": 50.0, "no_signal": 0.25, "entropy": 1.25, "reference_kl": 0.01, "hidden": 7.0})
    first, second = [line for line in out.getvalue().splitlines() if "step" in line]
    assert second[2] == ":" and "[5/9] rl-polya-rl: 16/80  updating  step 2/10" in second
    assert "reward 0.5  length 50  no signal 0.25  entropy 1.25  KL to the start 0.01" in second and "hidden" not in second
    assert "5 tokens/s" in second, "150 s of asking, 15 responses after the first"
    # 160 s for 15 rollouts leave 64 of them, and two hours of other stages.
    assert "about 11 m left, the run at least 2 h 11 m" in second and "step 1/10" in first
    progress = read_progress(tmp_path)
    assert (progress.configuration, progress.directory, progress.number, progress.of) == ("abc", "rl-polya-rl-0123", 5, 9)
    assert progress.words in second


def test_a_terminal_has_a_bar_and_the_words_below_it(clock):
    out = io.StringIO()
    with Display(Console(file=out, width=80, force_terminal=True)).task("generate-plain", 10) as task:
        task.phase("asking")
        for _ in range(10):
            clock[0] += 1
            task.advance(1, tokens=20)
        task.phase("judging")
    assert "generate-plain" in out.getvalue() and "10/10" in out.getvalue() and "judging" in out.getvalue()


def test_quiet_shows_nothing_and_still_writes_down_where_it_is(tmp_path, clock):
    out = io.StringIO()
    display = Display(Console(file=out), quiet=True)
    display.run_begins(tmp_path, "abc")
    display.stage_begins("sft-star-1", 1, 2, None)
    with display.task("sft-star", 4) as task:
        task.advance(1)
        task.step(1, 4, {"loss": 0.5})
    assert not out.getvalue() and read_progress(tmp_path).words == "[1/2] sft-star: 1/4  step 1/4  loss 0.5"
    (tmp_path / progress.FILE).write_text("{torn")
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4 s"), (90, "2 m"), (3599, "1 h 00 m"), (7500, "2 h 05 m")])
def test_time_left_is_in_hours_and_minutes(seconds, text):
    assert lasting(seconds) == text
