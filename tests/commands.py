"""Fixtures of the command line, as a user meets it, within this process."""

import sys

import pytest

from jaxpolya import cli
from jaxpolya.cli import devices


@pytest.fixture
def jaxpolya(monkeypatch, capsys):
    """A function (arguments) → (exit code, stdout, stderr) of the command, in this process."""
    for prepare in ("start_jax", "settle"):  # the tests have their own settings
        monkeypatch.setattr(devices, prepare, lambda: None)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jaxpolya", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call


@pytest.fixture
def refused(jaxpolya):
    """A function (exit code, what the sentence must say, arguments): the command must end so. Returns the sentence."""

    def call(code: int, says: str, *arguments) -> str:
        got, _, err = jaxpolya(*arguments)
        assert "jaxpolya: " in err, (got, err)
        sentence = err[err.rindex("jaxpolya: ") :]
        assert got == code, err
        assert says in sentence and "Traceback" not in err, err
        return sentence

    return call
