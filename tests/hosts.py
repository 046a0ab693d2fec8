"""A program run as some processes of some devices each, which find each other as the hosts of a pod do."""

import os
import socket
import subprocess
import sys


def on_hosts(program: str, *arguments, hosts: int = 2, devices: int = 2) -> list[str]:
    """What each of the hosts prints. The program's arguments are its number, the port, and those given here.

    A process that fails is an assertion's error, one that waits for the other for ever a time-out's.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Nothing here runs for long: half of the time to compile is worth more than fast programs.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(process), str(port), *map(str, arguments)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(hosts)
    ]  # fmt: skip
    printed = []
    try:
        for host in started:
            out, err = host.communicate(timeout=600)
            assert host.returncode == 0, err
            printed.append(out)
    finally:
        for host in started:
            host.kill()
    return printed
