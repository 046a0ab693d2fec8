"""Commands on configurations: config."""

import sys

from jaxpolya.cli.options import ConfigPath, Overrides


def config(config: ConfigPath, set_: Overrides = None) -> None:
    """Print the resolved configuration, every field written out."""
    from jaxpolya.config_file import dump_config, load_config

    sys.stdout.write(dump_config(load_config(config, set_ or [])))
