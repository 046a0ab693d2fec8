"""jaxpolya: language models teach themselves several ways to solve a problem, then learn from rewards.

JAX and Flax, after "Mid-Training with Self-Generated Data Improves Reinforcement Learning in Language Models" (arXiv
2605.08472). The names below load what they need on first use: `import jaxpolya` itself imports neither jax nor a model.

    load             a checkpoint onto a mesh; the model gives logits and samples
    make_mesh        the device mesh
    verify_response  judge one response
    run              run a configuration
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxpolya.api import load, run
    from jaxpolya.parallel.mesh import make_mesh
    from jaxpolya.verify.judge import verify_response

__version__ = "0.1.0"
__all__ = ["load", "make_mesh", "run", "verify_response"]

_HOMES = {"load": "jaxpolya.api", "run": "jaxpolya.api", "make_mesh": "jaxpolya.parallel.mesh", "verify_response": "jaxpolya.verify.judge"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"jaxpolya has no {name}; it has {', '.join(__all__)}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
