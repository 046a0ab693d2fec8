"""The host's speed: judged responses a second, with a model that costs next to nothing and with one that costs nothing.

    JAX_PLATFORMS=cpu python benchmarks/host.py [--prompts 210] [--samples 64] [--new-tokens 16] [--decimals] [--workers N] [--rounds 3]
        [--profile]

What is timed is what the generate phase does with its prompts (`rollout.respond`): decoding, detokenising, verdicts, and writing
`samples.jsonl`. The model has 3 layers of width 32 and random weights, the vocabulary is numbers and a few words, so that most responses
say a number. References are integers, which are compared without a worker, or with `--decimals` numbers that the pool's processes compare.
Compiling and the start of the workers are not counted.

On a CPU the model takes the cores that the host works on. So each round is followed by another in which its bursts are played back: the
host finds each burst finished when it looks, as it would beside an accelerator that is faster than it. Neither prefills nor bursts run
then; missing are their dispatch, the placing of their arguments, and the fetching of results. `--profile` prints where the main thread's
time goes in these rounds (cProfile, which itself slows it down).
"""

import argparse
import contextlib
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxpolya.cli.devices import settle
from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.engine import Engine
from jaxpolya.hf.spelling import Spelling
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh, to_host
from jaxpolya.records import Question
from jaxpolya.rollout.respond import Draws, Prompt, respond
from jaxpolya.verify.pool import Pool

WORDS = ["<end>", *(f"Ġ{number}" for number in range(40)), *(f"Ġ{word}" for word in "so the answer is plus and then we have".split())]
MODEL = DecoderConfig("llama", len(WORDS), 32, 64, 3, 4, 2, 8, 128, tied_embeddings=True)
PROMPT = 24  # tokens


def tokenizer() -> PreTrainedTokenizerFast:
    """Of whole words."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=WORDS[0])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=210)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--decimals", action="store_true")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    words = tokenizer()

    def prompts(times: str) -> list[Prompt]:
        """The same prompts each time, of questions that the pool doesn't remember."""
        return [
            Prompt(
                Question(
                    id=f"q{i}",
                    question=f"What is {i} + 1, {times}?",
                    answer=f"{i + 1}.0" if arguments.decimals else str(i + 1),
                    extraction="number",
                ),
                f"What is {i} + 1?",
                tuple([1 + i % 40] * PROMPT),
            )
            for i in range(arguments.prompts)
        ]

    engine = Engine(
        MODEL, make_mesh(), sampling=Sampling(max_new_tokens=arguments.new_tokens), prompts=arguments.prompts, samples=arguments.samples,
        longest_prompt=PROMPT, stop_ids=[0], decode=Spelling(words).decode,
        engine=DecodeConfig(rows=arguments.rows), dtype=jnp.float32,
    )  # fmt: skip
    params = init_params(MODEL, jax.random.key(0))
    rates: dict[str, list[float]] = {"decoded": [], "played back": []}
    load, profile, device = [], cProfile.Profile(), Device()
    settle()  # as the command does
    with Pool(arguments.workers) as pool, tempfile.TemporaryDirectory() as place:
        for number in range(arguments.rounds + 1):  # the first one compiles
            for how, each in rates.items():
                asked, out = prompts(f"{number} {how}"), Path(place) / f"{number} {how}.jsonl"
                with device.recording() if how == "decoded" else device.playing():
                    if arguments.profile and number and how == "played back":
                        profile.enable()
                    start = time.perf_counter()
                    samples = respond(engine, lambda: params, asked, Draws("base", "generate", arguments.samples, 0), pool=pool, out=out)
                    seconds = time.perf_counter() - start
                    profile.disable()
                if number:
                    each.append(len(samples) / seconds)
            load.append(os.getloadavg()[0])
    tokens = sum(len(sample.token_ids) for sample in samples) / len(samples)
    judged = sum(sample.verdict in ("correct", "wrong") for sample in samples) / len(samples)
    print(f"{len(samples)} responses of {tokens:.0f} tokens on average, {judged:.0%} of them compared")
    for how, each in rates.items():
        print(f"{how}: {statistics.median(each):,.0f} judged responses/s ({', '.join(f'{rate:,.0f}' for rate in each)})")
    print(f"{os.cpu_count()} cores, load {min(load):.1f} to {max(load):.1f}, jax {jax.__version__}")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


class Device:
    """What the engine's programs give, kept and played back: its table depends on nothing else."""

    def __init__(self) -> None:
        self._bursts: list[Any] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Within it, what bursts give is kept, in place of what was kept before."""
        self._bursts = []

        def make(*plan: Any) -> Any:
            program = make_burst(*plan)

            def burst(*arguments: Any) -> Any:
                lanes, *drawn = program(*arguments)
                self._bursts.append(drawn)
                return lanes, *drawn

            return burst

        with mock.patch("jaxpolya.decode.engine.make_burst", make):
            yield
        self._bursts = [to_host(drawn) for drawn in self._bursts]

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Within it, neither prefills nor bursts run."""
        bursts = iter(self._bursts)
        with (
            mock.patch("jaxpolya.decode.engine.make_burst", lambda *_: lambda _, lanes, *__: (lanes, *next(bursts))),
            mock.patch("jaxpolya.decode.engine.make_prefill", lambda *_: lambda _, lanes, *__: lanes),
        ):
            yield


if __name__ == "__main__":
    main()
