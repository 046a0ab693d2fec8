"""Two processes of two devices each run a whole pipeline as one pod, and find what one process with four devices finds."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from jaxpolya.cli.devices import HEARTBEAT

HOST = """
import sys
import jax
process, port, config = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if port != "0":
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jaxpolya.config.file import load_config
from jaxpolya.parallel.hosts import exchange
from jaxpolya.runs import pipeline
from jaxpolya.progress import Display
results = pipeline.run(load_config(config), Display(quiet=True))
assert exchange({"best": results.best})[-1] == {"best": results.best}
"""


def run_hosts(config, count: int, devices: int) -> None:
    """Runs a configuration on `count` processes to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] if count > 1 else 0
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(process), str(port), str(config)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in range(count)
    ]  # fmt: skip
    try:
        for host in started:
            out, _ = host.communicate(timeout=600)
            assert host.returncode == 0, out
    finally:
        for host in started:
            host.kill()


def rows(stages, pattern: str) -> list[dict]:
    (path,) = stages.glob(pattern)
    return [json.loads(line) for line in path.read_text().splitlines()]


JOINED = """
import functools, os, signal, sys, time
import jax
process, dies = int(sys.argv[1]), int(sys.argv[2])
jax.distributed.initialize = functools.partial(jax.distributed.initialize, sys.argv[3], 2, process)
from jaxpolya.cli import devices
devices.HEARTBEAT = 10
devices.start_jax()
from jaxpolya.parallel.hosts import exchange
assert exchange(process) == [0, 1]
if process == dies:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(300)
"""


@pytest.mark.parametrize("dies", [0, 1])
def test_a_host_that_dies_takes_the_pod_with_it(dies):
    """Also where the others wait for nothing that would tell them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAXPOLYA_DISTRIBUTED": "1"}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", JOINED, str(process), str(dies), address], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    try:
        outputs = [host.communicate(timeout=240)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert hosts[dies].returncode == -signal.SIGKILL, outputs[dies]
    assert hosts[1 - dies].returncode not in (0, None), "it ended by itself, and not well"
    assert "another task died" in outputs[1 - dies] or "tasks have crashed" in outputs[1 - dies], outputs[1 - dies]
    assert HEARTBEAT <= 50


@pytest.mark.soak
def test_a_pod_of_two_hosts(tiny_run):
    tree = tiny_run(arms=["base", "star+rl"], mesh={"fsdp": 2, "tensor": 2})
    tree["eval"]["sampling"] = {"max_new_tokens": 16, "temperature": 0}
    tree["eval"]["samples"] = 1
    stages = {}
    for name, count, devices in (("pod", 2, 2), ("one", 1, 4)):
        config = tiny_run.directory / f"{name}.yaml"
        config.write_text(json.dumps(tree | {"name": name}))
        run_hosts(config, count, devices)
        stages[name] = tiny_run.directory / "runs" / name / "stages"
        assert (stages[name].parent / "export" / "config.json").exists()
    greedy = {name: {row["id"]: row["token_ids"] for row in rows(place, "eval-base-*/samples.jsonl")} for name, place in stages.items()}
    assert greedy["pod"] == greedy["one"]
    losses = {name: [row["loss"] for row in rows(place, "sft-star-*/steps.jsonl")] for name, place in stages.items()}
    assert losses["pod"] == pytest.approx(losses["one"], abs=1e-5)
    drawn = {name: {row["id"] for row in rows(place, "generate-plain-*/samples.jsonl")} for name, place in stages.items()}
    assert drawn["pod"] == drawn["one"]
