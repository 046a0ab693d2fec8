"""Where compiled programs are kept, and whose word on it holds."""

import os
import subprocess
import sys

import pytest

from jaxpolya.compile_cache import BYTES, cache_settings


def test_there_is_one_cache_a_user_and_it_is_bounded(tmp_path):
    settings = cache_settings({"XDG_CACHE_HOME": str(tmp_path)}, None)
    directory = tmp_path / "jaxpolya" / "programs"
    assert directory.is_dir()
    assert settings["jax_compilation_cache_dir"] == str(directory) and settings["jax_compilation_cache_max_size"] == BYTES


@pytest.mark.parametrize(
    ("environment", "configured", "enabled"),
    [({}, "/their/own", True), ({"JAX_COMPILATION_CACHE_DIR": ""}, None, True), ({}, None, False)],
    ids=["a directory", "none", "off"],
)
def test_what_the_user_set_holds(tmp_path, environment, configured, enabled):
    assert cache_settings({"XDG_CACHE_HOME": str(tmp_path), **environment}, configured, enabled) == {}
    assert not list(tmp_path.iterdir())


def test_their_own_bounds_hold_in_our_directory(tmp_path):
    theirs = {"JAX_COMPILATION_CACHE_MAX_SIZE": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "9"}
    assert list(cache_settings({"XDG_CACHE_HOME": str(tmp_path), **theirs}, None)) == ["jax_compilation_cache_dir"]


def test_nowhere_to_keep_it_is_no_trouble(tmp_path):
    (tmp_path / "file").write_text("")
    assert cache_settings({"XDG_CACHE_HOME": str(tmp_path / "file")}, None) == {}


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    program = (
        "from jaxpolya.compile_cache import use_compile_cache; use_compile_cache(); import jax, jax.numpy as jnp\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "hits = []; jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if 'cache_hits' in event else None)\n"
        "jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((64, 64))).block_until_ready(); print(len(hits))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment | {"XDG_CACHE_HOME": str(tmp_path)}, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert int(runs[0]) == 0 < int(runs[1])
