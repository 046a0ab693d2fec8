"""The file around a page: a template with its style, data and scripts, under a policy that lets nothing else run."""

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from jaxpolya.files import package_version

LIBRARIES = ("vega", "vega-lite", "vega-embed")

POLICY = "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
"""Nothing is loaded, and no script runs but those of these digests; plots are saved as pictures through data: and blob:."""


def prose(markdown: str) -> Markup:
    """Markdown of our own sentences as HTML; markup inside them stays text."""
    return Markup(MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink"]).render(markdown))


def fill(template: str, *, data: Mapping[str, Any], **values: Any) -> str:
    """The text of a page.

    Args:
      template: the name of its file.
      data: JSON for the scripts: `charts` by key, and what is looked up.
      values: what the template fills in; text, unless it is `Markup`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    scripts = [_script(f"vendor/{name}.min.js") for name in LIBRARIES] + [_script("page.js")]
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return environment.get_template(template).render(
        policy=POLICY.format(digests),
        css=Markup(_read("page.css")),
        scripts=[Markup(script) for script in scripts],
        licences=_read("vendor/LICENSES.txt"),
        version=package_version("jaxpolya"),
        data=data,
        **values,
    )


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """A script without the line that sends a debugger after a file that isn't there."""
    lines = _read(name).splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL=")) + "\n"
