"""Two processes of two devices each run a whole pipeline as one pod, and find what one process with four devices finds."""

import json
import os
import socket
import subprocess
import sys

import pytest

HOST = """
import sys
import jax
process, port, config = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if port != "0":
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jaxpolya.config_file import load_config
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
    greedy = {name: {row["id"]: row["token_ids"] for row in rows(found, "eval-base-*/samples.jsonl")} for name, found in stages.items()}
    assert greedy["pod"] == greedy["one"]
    losses = {name: [row["loss"] for row in rows(found, "sft-star-*/steps.jsonl")] for name, found in stages.items()}
    assert losses["pod"] == pytest.approx(losses["one"], abs=1e-5)
    drawn = {name: {row["id"] for row in rows(found, "generate-plain-*/samples.jsonl")} for name, found in stages.items()}
    assert drawn["pod"] == drawn["one"]
