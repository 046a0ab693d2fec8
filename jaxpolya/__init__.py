"""jaxpolya: language models teach themselves several ways to solve a problem, then learn from rewards.

JAX and Flax, after "Mid-Training with Self-Generated Data Improves Reinforcement Learning in Language Models" (arXiv
2605.08472). The names below load what they need on first use: `import jaxpolya` itself imports neither jax nor a model.

    load             a checkpoint onto a mesh; the model gives logits, and samples of prompts
    make_mesh        the device mesh
    generate         judged responses to one's own questions, under heuristics
    select           fine-tuning rows of them
    sft, rl          the two trainings
    evaluate         pass@k, majority and greedy accuracy with intervals
    export           a Hugging Face directory
    verify_response  judge one response; verify_responses many, in processes of their own
    run              run a configuration
    Question, Sample, SftRow, Verdict   the records; dictionaries do too
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxpolya.api.asking import evaluate, generate
    from jaxpolya.api.leaving import export
    from jaxpolya.api.model import load
    from jaxpolya.api.running import run
    from jaxpolya.api.selecting import select
    from jaxpolya.api.training import rl, sft
    from jaxpolya.api.verifying import verify_response, verify_responses
    from jaxpolya.parallel.mesh import make_mesh
    from jaxpolya.records import Question, Sample, SftRow, Verdict

__version__ = "0.1.0"
__all__ = [
    "Question",
    "Sample",
    "SftRow",
    "Verdict",
    "evaluate",
    "export",
    "generate",
    "load",
    "make_mesh",
    "rl",
    "run",
    "select",
    "sft",
    "verify_response",
    "verify_responses",
]

_HOMES = {
    "jaxpolya.api.asking": ("evaluate", "generate"),
    "jaxpolya.api.leaving": ("export",),
    "jaxpolya.api.model": ("load",),
    "jaxpolya.api.running": ("run",),
    "jaxpolya.api.selecting": ("select",),
    "jaxpolya.api.training": ("rl", "sft"),
    "jaxpolya.api.verifying": ("verify_response", "verify_responses"),
    "jaxpolya.parallel.mesh": ("make_mesh",),
    "jaxpolya.records": ("Question", "Sample", "SftRow", "Verdict"),
}


def __getattr__(name: str) -> Any:
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"jaxpolya has no {name}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
