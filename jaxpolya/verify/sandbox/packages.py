"""Third-party modules that programs may import, found where this interpreter has them.

A program sees the standard library alone, so that verdicts are the same on every machine. A setting may add modules; each comes with
what its distribution requires, and nothing else of `site-packages` does: what lies beside it may know answers.
"""

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from jaxpolya.errors import ConfigError


def locate(modules: Iterable[str]) -> dict[str, Path]:
    """Files and folders by the names that they need on the path. Raises `ConfigError` for a module that isn't installed here."""
    wanted = [module for module in dict.fromkeys(modules) if module not in sys.stdlib_module_names]
    if not wanted:
        return {}
    owners = importlib.metadata.packages_distributions()
    paths: dict[str, Path] = {}
    seen: set[str] = set()
    for module in wanted:
        if not module.isidentifier() or importlib.util.find_spec(module) is None:
            raise ConfigError(f"verify.code.modules: {module} is not installed here; install it, or leave it out")
        if module not in owners:
            raise ConfigError(f"verify.code.modules: {module} belongs to no installed distribution, so what it needs is not known")
        waiting = list(owners[module])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                try:
                    distribution = importlib.metadata.distribution(name)
                except PackageNotFoundError:  # an optional requirement, or another platform's
                    continue
                paths |= _contents(distribution)
                waiting += [required for line in distribution.requires or [] if (required := _required(line))]
    return paths


def _contents(distribution: Distribution) -> dict[str, Path]:
    tops = {file.parts[0] for file in distribution.files or []}
    tops = {top for top in tops if top != ".." and not re.search(r"\.(?:dist-info|egg-info|data|pth)$|^__pycache__$", top)}
    return {top: Path(str(distribution.locate_file(top))) for top in tops}


def _required(line: str) -> str | None:
    """The name in a requirement that isn't an extra's."""
    name = re.match(r"[\w.-]+", line)
    return name.group() if name and "extra ==" not in line else None
