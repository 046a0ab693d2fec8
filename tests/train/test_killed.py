"""A training whose process is killed in the middle of something ends with the bits of one that nobody killed.

The moment is the one in which most could be lost: while Orbax writes a checkpoint, in a thread of its own, before the checkpoint has its
name. Kills at random moments of whole runs are in tests/pipeline/test_kill.py.
"""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml
from guesser import comparable

from jaxpolya.config import MeshConfig
from jaxpolya.config.file import parse_config
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.parallel.mesh import make_mesh
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline

PROGRAM = """
import os, signal, sys
from jaxpolya.config.file import load_config
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline
from jaxpolya.train.checkpoints import Checkpoints

seal = Checkpoints._seal
Checkpoints._seal = lambda self: os.kill(os.getpid(), signal.SIGKILL) if self._saving == 2 else seal(self)
pipeline.run(load_config(sys.argv[1]), Display(quiet=True), only="rl")
"""


pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_a_training_killed_in_its_save_ends_with_the_same_bits(tiny_run):
    tree = tiny_run(arms=["rl"], export=False, verify={"workers": 1, "deadline": 120})
    tree["rl"] |= {"optimizer": {"learning_rate": 1e-4}}
    pipeline.run(parse_config(tree | {"name": "whole"}), Display(quiet=True), only="rl")
    path = tiny_run.directory / "killed.yaml"
    path.write_text(yaml.safe_dump(tree | {"name": "killed"}))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, "-c", PROGRAM, str(path)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pipeline.run(parse_config(tree | {"name": "killed"}), Display(quiet=True), only="rl")
    whole, again = (tiny_run.directory / "runs" / name for name in ("whole", "killed"))
    (stage,) = again.glob("stages/rl-rl-*")
    assert len((stage / "attempts.jsonl").read_text().splitlines()) == 2
    assert comparable(again) == comparable(whole)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    models = [load_checkpoint(next(run.glob("stages/rl-rl-*/model")), mesh=mesh).params for run in (whole, again)]
    jax.tree.map(np.testing.assert_array_equal, *models)
