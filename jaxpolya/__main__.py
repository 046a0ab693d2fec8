"""`python -m jaxpolya` is the `jaxpolya` command."""

from jaxpolya.cli.process import entry

entry()
