"""`python -m jaxpolya.cli` is the `jaxpolya` command."""

from jaxpolya.cli.process import entry

entry()
