"""report.html: one file that shows a run, opened from disk, without network.

`page` puts it together from the run's results and its evidence, `charts` says what is drawn, `evidence` what can be looked up, `style` how
an arm looks. Vega-Lite draws (`vendor/`), Jinja fills in the templates.

Everything that a model or a data set wrote is hostile until shown otherwise. It reaches the page as escaped text or as JSON in which no
`<` stands, becomes text nodes in the browser, and a policy in the page's head lets no script run but those whose digests it names, and
nothing be loaded at all. This package imports no jax.
"""

from jaxpolya.report.html.page import write_page

__all__ = ["write_page"]
