"""The TPU scripts against a `gcloud` of our own, whose hosts are directories here. Google Cloud is never asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxpolya.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "tpu_scripts").glob("*.sh"))
COMMANDS = [path for path in SCRIPTS if path.name != "settings.sh"]
CONFIG = "configs/llama3.2_3b_paper.yaml"

GCLOUD = f"""#!{sys.executable}
import os, pathlib, subprocess, sys
fake = pathlib.Path(os.environ["FAKE"])
arguments = sys.argv[1:]
with (fake / "calls").open("a") as calls:
    print(" ".join(arguments[2:5]), file=calls)
state = (fake / "state").read_text()
if "describe" in arguments:
    if state == "ABSENT":
        sys.exit(1)
    print("ACTIVE" if "queued-resources" in arguments and state == "READY" else state)
elif "create" in arguments:
    (fake / "state").write_text("READY")
elif "delete" in arguments:
    (fake / "state").write_text("ABSENT")
elif "ssh" in arguments:
    if state != "READY":
        sys.exit(255)
    command = next(a for a in arguments if a.startswith("--command=")).removeprefix("--command=")
    if "uv venv" in command:  # setup.sh: hosts are set up already
        sys.exit(0)
    hosts = sorted(fake.glob("host-*"))
    codes = [subprocess.run(["bash", "-c", command], cwd=host).returncode for host in hosts]
    sys.exit(255 if any(codes) else 0)
"""

# A commit has every configuration but one.
GIT = """#!/bin/sh
case "$*" in *mine.yaml*) exit 1 ;; esac
"""

# Each start takes the next line of `plan`: an exit code, or `hang`, or `gone` for a slice that is taken away.
JAXPOLYA = """#!/usr/bin/env bash
printf '%s\\n' "$JAXPOLYA_DISTRIBUTED" "$@" >>arguments
step="$(head -n 1 plan)"
sed -i 1d plan
case "$step" in
  hang) exec sleep 60 ;;
  gone) printf PREEMPTED >"$FAKE/state"; exec sleep 60 ;;
  *) exit "$step" ;;
esac
"""


class Cloud:
    """A slice of two hosts, and a shell that reaches nothing else."""

    def __init__(self, directory, plans, state):
        self.directory = directory
        (directory / "bin").mkdir()
        self._program(directory / "bin" / "gcloud", GCLOUD)
        self._program(directory / "bin" / "git", GIT)
        (directory / "shared").mkdir()
        (directory / "state").write_text(state)
        (directory / "calls").touch()
        for number, plan in enumerate(plans):
            checkout = directory / f"host-{number}" / "jaxpolya"
            (checkout / ".venv" / "bin").mkdir(parents=True)
            (checkout / "tpu_scripts").mkdir()
            shutil.copy(ROOT / "tpu_scripts" / "worker.sh", checkout / "tpu_scripts")
            self._program(checkout / ".venv" / "bin" / "jaxpolya", JAXPOLYA)
            (checkout / "plan").write_text("\n".join(plan) + "\n")

    def run(self, script, *arguments, **settings):
        """A script's result, with the settings in the environment."""
        cloud = {"PROJECT": "p", "ZONE": "z", "SHARED_DIR": str(self.directory / "shared"), "POLL_SECONDS": "0.2"}
        base = {"PATH": f"{self.directory / 'bin'}:/usr/bin:/bin", "HOME": str(self.directory), "FAKE": str(self.directory)}
        environment = {name: value for name, value in (base | cloud | settings).items() if value is not None}
        command = ["bash", str(ROOT / "tpu_scripts" / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False, cwd=self.directory)

    def starts(self, host):
        """How often the host's jaxpolya was started."""
        path = self.directory / f"host-{host}" / "jaxpolya" / "arguments"
        return path.read_text().split("\n").count("run") if path.exists() else 0

    def calls(self):
        """What gcloud was asked, such as `tpu-vm create jaxpolya`."""
        return (self.directory / "calls").read_text().splitlines()

    def worker(self, command):
        """Says something to worker.sh on every host: what they answer."""
        outputs = []
        for host in sorted(self.directory.glob("host-*")):
            done = subprocess.run(["jaxpolya/tpu_scripts/worker.sh", command], cwd=host, capture_output=True, text=True, check=True)
            outputs.append(done.stdout.strip())
        return outputs

    @staticmethod
    def _program(path, text):
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def make_cloud(tmp_path):
    clouds = []

    def make(*plans, state="READY"):
        clouds.append(Cloud(tmp_path, plans or (["0"], ["0"]), state))
        return clouds[0]

    yield make
    for cloud in clouds:
        cloud.worker("stop")


@pytest.fixture
def dry(make_cloud):
    cloud = make_cloud()

    def lines(script, *arguments, **settings):
        result = cloud.run(script, *arguments, DRY_RUN="1", **settings)
        assert result.returncode == 0, result.stderr
        assert cloud.calls() == [], "a dry run asked gcloud"
        return result.stdout.replace(str(ROOT), "CHECKOUT").splitlines()

    return lines


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_syntax(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path):
    subprocess.run(["shellcheck", "-x", path], check=True, cwd=path.parent)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_help_teaches(path, make_cloud):
    result = make_cloud().run(path.name, "--help", PROJECT=None)
    assert result.returncode == 0
    assert f"{path.name}" in result.stdout and "set -euo" not in result.stdout
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("script", ["create.sh", "setup.sh", "launch.sh", "resume.sh", "delete.sh"])
@pytest.mark.parametrize("missing", ["PROJECT", "ZONE"])
def test_a_missing_setting_is_named(script, missing, make_cloud):
    cloud = make_cloud()
    result = cloud.run(script, CONFIG, **{missing: None})
    assert result.returncode == 2
    assert f"{missing} is not set" in result.stderr
    assert cloud.calls() == []


def test_create(dry):
    assert dry("create.sh") == [
        "gcloud compute tpus tpu-vm create jaxpolya --project=p --zone=z --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite"
    ]


def test_create_spot_from_the_queue(dry):
    assert dry("create.sh", TYPE="v6e-8", SPOT="1", QUEUED="1", NAME="n") == [
        "gcloud compute tpus queued-resources create n --project=p --zone=z --node-id=n --accelerator-type=v6e-8 --spot "
        "--runtime-version=v2-alpha-tpuv6e --valid-until-duration=24h"
    ]


def test_create_a_multislice(dry):
    assert dry("create.sh", TYPE="v4-32", SLICES="2", QUEUED="1", NAME="n") == [
        "gcloud compute tpus queued-resources create n --project=p --zone=z --node-count=2 --node-prefix=n --accelerator-type=v4-32 "
        "--runtime-version=tpu-ubuntu2204-base --valid-until-duration=24h"
    ]


def test_a_multislice_needs_the_queue(make_cloud):
    result = make_cloud().run("create.sh", SLICES="2")
    assert result.returncode == 2 and "QUEUED=1" in result.stderr


def test_delete(dry):
    assert dry("delete.sh") == ["gcloud compute tpus tpu-vm delete jaxpolya --project=p --zone=z --quiet"]


def test_delete_the_queued_request(dry):
    assert dry("delete.sh", QUEUED="1") == ["gcloud compute tpus queued-resources delete jaxpolya --project=p --zone=z --force --quiet"]


def test_setup_reaches_every_host_of_every_slice(dry):
    lines = dry("setup.sh", SLICES="2", QUEUED="1", FILESTORE="10.0.0.2:/share", SHARED_DIR="/mnt/s")
    assert lines[:3] == [
        "git -C CHECKOUT bundle create --quiet CHECKOUT/.cache/jaxpolya.bundle HEAD",
        "gcloud compute tpus tpu-vm scp CHECKOUT/.cache/jaxpolya.bundle jaxpolya-0:jaxpolya.bundle --project=p --zone=z --worker=all",
        "gcloud compute tpus tpu-vm scp CHECKOUT/.cache/jaxpolya.bundle jaxpolya-1:jaxpolya.bundle --project=p --zone=z --worker=all",
    ]
    mount0, mount1, install0, install1 = lines[3:]
    assert "tpu-vm ssh jaxpolya-0" in mount0 and "mount -t nfs -o hard,nolock 10.0.0.2:/share /mnt/s" in mount0
    assert mount1 == mount0.replace("jaxpolya-0", "jaxpolya-1")
    assert "-c constraints.txt" in install0 and "[tpu]" in install0
    assert install1 == install0.replace("jaxpolya-0", "jaxpolya-1")


def test_launch(dry):
    start, state = dry("launch.sh", CONFIG, "--set", "arms=[base, rl]", SHARED_DIR="/mnt/s")
    # Quoted twice: for whoever pastes the line, and for the shell of the hosts.
    assert subprocess.run(["bash", "-c", f"printf '%s\\n' {start}"], capture_output=True, text=True, check=True).stdout.splitlines() == [
        *["gcloud", "compute", "tpus", "tpu-vm", "ssh", "jaxpolya", "--project=p", "--zone=z", "--worker=all"],
        f"--command=jaxpolya/tpu_scripts/worker.sh start {CONFIG} --set output=/mnt/s/runs --set arms=\\[base\\,\\ rl\\] ",
    ]
    assert state.endswith("--command=jaxpolya/tpu_scripts/worker.sh\\ state")


def test_resume_replaces_and_goes_on(dry):
    verbs = [line.split()[4] if line.startswith("gcloud") else "git" for line in dry("resume.sh", CONFIG, SHARED_DIR="/mnt/s")]
    assert verbs == ["delete", "create", "git", "scp", "ssh", "ssh", "ssh"]


def test_all_hosts_run_the_same_and_end(make_cloud, tmp_path):
    cloud = make_cloud()
    result = cloud.run("launch.sh", CONFIG, "--set", "arms=[base, rl]")
    assert result.returncode == 0, result.stderr
    expected = ["1", "run", CONFIG, "--set", f"output={tmp_path}/shared/runs", "--set", "arms=[base, rl]"]
    for host in (0, 1):
        assert (tmp_path / f"host-{host}" / "jaxpolya" / "arguments").read_text().splitlines() == expected


@pytest.mark.parametrize("code", [code for code in EXIT_CODES if 2 <= code < 130])
def test_what_a_person_must_mend_is_not_tried_again(code, make_cloud):
    cloud = make_cloud([str(code)], ["hang"])
    result = cloud.run("launch.sh", CONFIG)
    assert result.returncode == code, result.stderr
    assert [cloud.starts(0), cloud.starts(1)] == [1, 1]
    assert cloud.worker("state") == [f"jaxpolya-state exit {code}", "jaxpolya-state lost"], "the other host goes on"


@pytest.mark.parametrize("code", [1, 130, 137])
def test_interrupted_hosts_start_again_together(code, make_cloud):
    cloud = make_cloud([str(code), "0"], ["hang", "0"])
    result = cloud.run("launch.sh", CONFIG)
    assert result.returncode == 0, result.stderr
    assert [cloud.starts(0), cloud.starts(1)] == [2, 2]
    assert "restart 1" in result.stderr


def test_restarts_end(make_cloud):
    cloud = make_cloud(["1"] * 5, ["1"] * 5)
    result = cloud.run("launch.sh", CONFIG, MAX_RESTARTS="2")
    assert result.returncode == 1 and "2 restarts" in result.stderr
    assert cloud.starts(0) == 3


def test_a_slice_that_is_taken_away_ends_the_launch(make_cloud):
    result = make_cloud(["gone"], ["hang"]).run("launch.sh", CONFIG)
    assert result.returncode == 75
    assert "resume.sh" in result.stderr


def test_resume_gets_another_slice_and_goes_on(make_cloud):
    cloud = make_cloud(state="PREEMPTED")
    result = cloud.run("resume.sh", CONFIG)
    assert result.returncode == 0, result.stderr
    made = [call for call in cloud.calls() if call.split()[1] in ("create", "delete")]
    assert made == ["tpu-vm delete jaxpolya", "tpu-vm create jaxpolya"]
    assert cloud.starts(0) == cloud.starts(1) == 1


def test_a_config_that_hosts_would_not_have_is_refused(make_cloud):
    cloud = make_cloud()
    result = cloud.run("launch.sh", "configs/mine.yaml")
    assert result.returncode == 2 and "commit it" in result.stderr
    assert cloud.calls() == []
