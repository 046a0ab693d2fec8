"""Real runs in processes of their own, really killed, again and again, until they are through."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from guesser import comparable

from jaxpolya.hf.checkpoint import load_checkpoint

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

WATCH = 0.05  # seconds between two looks at what a run has written


class Run:
    """A run's directory and the processes that work on it."""

    def __init__(self, tree: dict, directory: Path):
        directory.mkdir()
        self.config, self.directory = directory / "run.yaml", directory / "runs" / tree["name"]
        self.config.write_text(yaml.safe_dump(tree | {"output": str(directory / "runs")}))
        self.mark = uuid.uuid4().hex

    def start(self) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAXPOLYA_SOAK": self.mark}
        command = [sys.executable, "-m", "jaxpolya", "run", str(self.config), "--quiet"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def written(self) -> int:
        """Bytes of all records, which grow while the run works."""
        return sum(path.stat().st_size for path in self.directory.rglob("*.jsonl") if path.exists())

    def manifests(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.directory.glob("stages/*/manifest.json")}

    def attempts(self) -> dict[Path, int]:
        return {path.parent: len(path.read_bytes().splitlines()) for path in self.directory.glob("stages/*/attempts.jsonl")}

    def drawn(self) -> dict[tuple[str, str], list[int]]:
        """(file, sample id) → token ids, of all whole lines of samples and rollouts."""
        tokens = {}
        for path in [*self.directory.glob("stages/*/samples.jsonl"), *self.directory.glob("stages/*/rollouts/*.jsonl")]:
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    row = json.loads(line)
                    tokens[str(path), row["id"]] = row["token_ids"]
        return tokens

    def processes(self) -> list[str]:
        """Command lines of the living processes that were started for this run."""
        commands = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"JAXPOLYA_SOAK={self.mark}".encode() in (path / "environ").read_bytes():
                    commands.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # gone meanwhile, or somebody else's
                continue
        return [command for command in commands if command]


@pytest.fixture
def whole(tiny_run, tmp_path):
    """An undisturbed run."""
    run = Run(tiny_run(), tmp_path / "whole")
    process = run.start()
    _, output = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return run


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tiny_run, whole, tmp_path, number):
    run, rng = Run(tiny_run(), tmp_path / "killed"), random.Random(int(number))
    kills, drawn, manifests, attempts = 0, {}, {}, {}
    while True:
        process, before = run.start(), run.written()
        # From its first sign of life it has a moment, often less than a stage takes; a slow machine is given longer in the end.
        while process.poll() is None and run.written() == before:
            time.sleep(WATCH)
        time.sleep(rng.uniform(0, 2 if kills < 20 else 10))
        if process.poll() is None:
            process.send_signal(number)
            kills += 1
        _, output = process.communicate(timeout=600)
        now = run.drawn()
        lost = [key for key, tokens in drawn.items() if now.get(key) != tokens]
        assert not lost, f"kill {kills} lost or changed {lost[:3]}"
        again = [path for path, content in manifests.items() if run.manifests().get(path) != content]
        assert not again, f"finished and done again: {again}"
        repeated = [stage for stage, count in attempts.items() if stage / "manifest.json" in manifests and run.attempts()[stage] != count]
        assert not repeated, f"finished and begun again: {repeated}"
        drawn, manifests, attempts = now, run.manifests(), run.attempts()
        if process.returncode == 0:
            break
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
        assert "Traceback" not in output
        assert kills < 60, "no progress"
    assert kills >= 5 and max(attempts.values()) >= 2, "the run was too fast to be killed"
    assert comparable(run.directory) == comparable(whole.directory)
    for path in (whole.directory / "export").iterdir():
        written = (run.directory / "export" / path.name).read_bytes()
        if path.name == "README.md":  # the card names the directory of its run
            written = written.replace(b"/killed", b"/whole")
        assert written == path.read_bytes(), path.name
    until = time.monotonic() + 120
    while run.processes() and time.monotonic() < until:
        time.sleep(WATCH)
    assert not run.processes(), "orphans"


MOMENTS = ("any", "save", "refill", "any", "any")
"""Of one test's kills: at any moment, while Orbax writes a checkpoint in its thread, while a round's further questions are answered."""

SOON = 0.002  # seconds between two looks for a moment that is over in some ten


class Trainings(Run):
    """A run of which fine-tuning and RL are still to be done."""

    def __init__(self, tree: dict, directory: Path, before: Run):
        super().__init__(tree, directory)
        shutil.copytree(before.directory, self.directory)
        for stage in self.directory.glob("stages/*"):
            if stage.name.startswith(("sft-", "rl-", "eval-", "labels-")):
                shutil.rmtree(stage)

    def steps(self) -> int:
        """Lines of the step logs."""
        return sum(path.read_bytes().count(b"\n") for path in self.directory.glob("stages/*/steps.jsonl"))

    def saving(self) -> set[Path]:
        """Checkpoints that have no name yet."""
        return set(self.directory.glob("stages/*/checkpoints/*orbax-checkpoint-tmp*"))

    def refilling(self) -> set[Path]:
        """Files of a round's further questions, of rounds that aren't trained on yet."""
        return {
            path
            for path in self.directory.glob("stages/rl-*/rollouts/*-*.jsonl")
            if int(path.name.partition("-")[0]) >= (path.parents[1] / "steps.jsonl").read_bytes().count(b"\n")
        }

    def kill(self, moment: str, rng: random.Random) -> str | None:
        """Starts, and kills at such a moment, or at any where it doesn't come; what was going on, or None where the run was through."""
        process, done, before = self.start(), self.steps(), self.saving() | self.refilling()
        more, later = rng.randrange(3), rng.uniform(0, 0.1)
        looked_for = {"any": set, "save": self.saving, "refill": self.refilling}[moment]
        while process.poll() is None and not looked_for() - before:
            if self.steps() >= done + more + (0 if moment == "any" else 4) and self.steps() > 0:
                time.sleep(later)
                break
            time.sleep(SOON)
        process.kill()
        _, words = process.communicate(timeout=600)
        assert process.returncode in (0, -signal.SIGKILL), words
        if process.returncode == 0:
            return None
        going_on = [name for name, look in (("save", self.saving), ("refill", self.refilling)) if look() - before]
        return "+".join(going_on) or "else"


REFILLED = {"algorithm": "dapo", "group": 2, "refills": 8, "overlong_buffer": 0, "optimizer": {"learning_rate": 1e-4}}


@pytest.mark.parametrize("portion", range(4))
def test_trainings_killed_at_twenty_moments_end_with_the_same_bits(tiny_run, tmp_path, portion, mesh1):
    tree = tiny_run(arms=["star+rl"], export=False)
    tree["sft"]["epochs"] = 4
    tree["rl"] |= {"steps": 10, **REFILLED}
    whole = Run(tree, tmp_path / "whole")
    _, words = (process := whole.start()).communicate(timeout=600)
    assert process.returncode == 0, words
    run, rng = Trainings(tree, tmp_path / "killed", whole), random.Random(portion)
    moments = [run.kill(moment, rng) for moment in MOMENTS]
    print(f"portion {portion}: killed in {', '.join(map(str, moments))}; {run.steps()} steps are logged")
    assert None not in moments, "the run was through before it was killed often enough"
    _, words = (process := run.start()).communicate(timeout=600)
    assert process.returncode == 0, words
    assert comparable(run.directory) == comparable(whole.directory)
    # Orbax's files name the moment at which they were written; what they hold is what counts.
    for stage in ("sft-star", "rl-star-rl"):
        one, other = (load_checkpoint(next(of.directory.glob(f"stages/{stage}-*/model")), mesh=mesh1).params for of in (run, whole))
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert max(run.attempts().values()) >= 2


def test_workers_leave_with_their_killed_parent(tiny_run, tmp_path):
    run = Run(tiny_run(verify={"workers": 2}), tmp_path / "orphans")
    process = run.start()
    while sum("jaxpolya.verify.worker" in command for command in run.processes()) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(WATCH)
    process.kill()
    process.communicate(timeout=600)
    until = time.monotonic() + 120
    while run.processes() and time.monotonic() < until:
        time.sleep(WATCH)
    assert not run.processes()
