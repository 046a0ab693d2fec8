"""Two hosts of four devices each train on recorded rollouts as one host of eight does, whatever the algorithm."""

import json
from pathlib import Path

import pytest
import replays
from hosts import on_hosts

from jaxpolya.config import ALGORITHMS

HOST = """
import json, sys
import jax
process, port, count, tests, call, *arguments = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(process))
sys.path.insert(0, tests)
import replays
assert jax.device_count() == 8 and jax.local_device_count() == 8 // int(count)
print(json.dumps(getattr(replays, call)(*arguments)))
"""


def compare(call: str, file: str, directory: Path, *arguments: str) -> dict:
    """What a function of `replays` gives on one host, after a comparison with what it gives on two."""
    tests = Path(replays.__file__).parent
    given = {
        count: on_hosts(HOST, count, tests, call, file, directory / str(count), *arguments, hosts=count, devices=8 // count)
        for count in (1, 2)
    }
    one, first, second = (json.loads(text.splitlines()[-1]) for text in given[1] + given[2])
    assert first == second and set(first) == set(one)
    for name, steps in one.items():
        for ours, theirs in zip(steps, first[name], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5), name
    return one


def test_two_hosts_find_the_losses_of_one_under_every_algorithm(tmp_path):
    found = compare("losses_side_by_side", replays.write(tmp_path / "rollouts.jsonl", replays.rows()), tmp_path)
    assert set(found) == set(ALGORITHMS)
    for name, losses in found.items():
        assert abs(losses[-1] - losses[0]) > 1e-3, f"{name}: the updates moved nothing"


@pytest.mark.soak  # programs of its own for each algorithm
@pytest.mark.parametrize("arguments", [*((name,) for name in ALGORITHMS), ("ppo", "2")], ids="-".join)
def test_two_hosts_train_as_one_does(arguments, tmp_path):
    found = compare("losses", replays.write(tmp_path / "rollouts.jsonl", replays.rows()), tmp_path, *arguments)
    assert all(length > 0 for _, length in found[arguments[0]])
