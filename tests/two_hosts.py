"""A program run as two processes of two devices each, which find each other as the hosts of a pod do."""

import os
import socket
import subprocess
import sys


def on_two_hosts(program: str, *arguments) -> list[str]:
    """What each of the two prints. The program's arguments are its number, the port, and those given here.

    A process that fails is an assertion's error, one that waits for the other for ever a time-out's.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(process), str(port), *map(str, arguments)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    printed = []
    try:
        for host in hosts:
            out, err = host.communicate(timeout=600)
            assert host.returncode == 0, err
            printed.append(out)
    finally:
        for host in hosts:
            host.kill()
    return printed
