"""How a model that is being trained is asked a validation's questions: drawn responses, greedy ones, and what they come to.

Every look draws with the same seed, so that looks differ by the model alone, and writes what was said beside the training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpolya.config import Sampling, ValidationConfig
from jaxpolya.decode.engine import Engine
from jaxpolya.evaluation.measures import Answers
from jaxpolya.evaluation.passk import pass_at_k
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.records import Sample, write_records
from jaxpolya.rollout.respond import Draws, Prompt, respond
from jaxpolya.verify.pool import Pool


def make_looks(
    config: ValidationConfig,
    prompts: Sequence[Prompt],
    engine_of: Callable[[Sampling, int], Engine],
    pool: Pool,
    *,
    arm: str,
    directory: Path,
) -> Callable[[int, Params], Mapping[str, float]]:
    """A function (steps done, parameters) → `figures`: what `train.validation.Validation` asks.

    Args:
      config: how the questions are asked.
      prompts: of the questions.
      engine_of: makes an engine for them, from how responses are drawn and how many a prompt.
      pool: the verifier.
      arm: named in the records.
      directory: of the training; responses are written to `validation/` below it.
    """
    kinds = [("sampled", config.sampling, config.samples)] + [("greedy", config.sampling.greedy, 1)] * config.greedy
    engines = {name: (engine_of(sampling, samples), samples) for name, sampling, samples in kinds}

    def ask(done: int, params: Params) -> dict[str, float]:
        drawn: dict[str, list[Sample]] = {}
        for name, (engine, samples) in engines.items():
            draws = Draws(arm, "validation", samples, config.seed, step=done)
            file = directory / "validation" / f"{done:06d}-{name}.jsonl"
            drawn[name] = respond(engine, lambda: params, prompts, draws, pool=pool, out=file)
            if is_primary():
                write_records(file, drawn[name])
        answers = Answers.of([prompt.question for prompt in prompts], drawn["sampled"], drawn.get("greedy"))
        return figures(answers, config.samples)

    return ask


def figures(answers: Answers, samples: int) -> dict[str, float]:
    """`pass@k` for the powers of two and the number of samples, `greedy` where it was asked, and the mean `length`."""
    n, c = np.array(list(answers.counts.values())).T
    ks = sorted({1 << power for power in range(samples.bit_length())} | {samples})
    shares = {f"pass@{k}": float(pass_at_k(n, c, k).mean()) for k in ks}
    if answers.greedy:
        shares["greedy"] = sum(sample.verdict == "correct" for sample in answers.greedy) / len(answers.greedy)
    return shares | {"length": sum(len(sample.token_ids) for sample in answers.samples) / len(answers.samples)}
