"""Seconds from command to first token, with nothing compiled yet and with everything compiled.

    JAX_PLATFORMS=cpu python benchmarks/startup.py [MODEL] [--new-tokens 1] [--rounds 2]

A process is started that loads the model (by default the quickstart's) and asks it one question; its clock starts with it. The first one of
a round has an empty cache of compiled programs, the second one has the first one's.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PHASES = ("import", "load", "first token")
ASK = """
import json, sys, time
import jaxpolya
jaxpolya.load
times = [time.time()]
model = jaxpolya.load(sys.argv[1])
times.append(time.time())
model.generate(["What is 3 * 4?"], samples=1, max_new_tokens=int(sys.argv[2]), seed=0)
times.append(time.time())
print(json.dumps(times))
"""


def start(model: str, new_tokens: int, cache: str) -> list[float]:
    """Seconds of each phase."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-c", ASK, model, str(new_tokens)], env=environment | {"XDG_CACHE_HOME": cache}, check=True, stdout=subprocess.PIPE
    )
    times = [begun, *json.loads(done.stdout.splitlines()[-1])]
    return [after - before for before, after in itertools.pairwise(times)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="weights/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--new-tokens", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    seconds: dict[str, list[list[float]]] = {"cold": [], "warm": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for found in seconds.values():
                found.append(start(arguments.model, arguments.new_tokens, cache))
    for name, found in seconds.items():
        phases = ", ".join(f"{phase} {statistics.median(times):.1f}" for phase, times in zip(PHASES, zip(*found, strict=True), strict=True))
        totals = [sum(phases) for phases in found]
        print(f"{name}: {statistics.median(totals):.1f} s ({min(totals):.1f} to {max(totals):.1f}): {phases}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
