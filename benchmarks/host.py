"""The host's speed: judged responses a second where the model costs next to nothing.

    JAX_PLATFORMS=cpu python benchmarks/host.py [--prompts 210] [--samples 64] [--new-tokens 16] [--decimals] [--workers N] [--rounds 3]
        [--profile]

What is timed is what the generate phase does with its prompts (`rollout.respond`): decoding, detokenising, verdicts, and writing
`samples.jsonl`. The model has 3 layers of width 32 and random weights, the vocabulary is numbers and a few words, so that most responses
say a number. References are integers, which are compared without a worker, or with `--decimals` numbers that the pool's processes compare.
Compiling and the start of the workers are not counted. `--profile` prints where the main thread's time goes (cProfile, which itself slows
it down).
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.decode.engine import Engine
from jaxpolya.hf.spelling import Spelling
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.parallel.mesh import make_mesh
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
    prompts = [
        Prompt(
            Question(
                id=f"q{i}", question=f"What is {i} + 1?", answer=f"{i + 1}.0" if arguments.decimals else str(i + 1), extraction="number"
            ),
            f"What is {i} + 1?",
            tuple([1 + i % 40] * PROMPT),
        )
        for i in range(arguments.prompts)
    ]
    engine = Engine(
        MODEL, make_mesh(), sampling=Sampling(max_new_tokens=arguments.new_tokens), prompts=len(prompts), samples=arguments.samples,
        longest_prompt=PROMPT, stop_ids=[0], decode=Spelling(words).decode,
        engine=DecodeConfig(rows=arguments.rows), dtype=jnp.float32,
    )  # fmt: skip
    params = init_params(MODEL, jax.random.key(0))
    rates, load, profile = [], [], cProfile.Profile()
    with Pool(arguments.workers) as pool, tempfile.TemporaryDirectory() as place:
        for number in range(arguments.rounds + 1):  # the first one compiles
            if arguments.profile and number:
                profile.enable()
            start = time.perf_counter()
            draws, out = Draws("base", "generate", arguments.samples, number), Path(place) / f"{number}.jsonl"
            samples = respond(engine, lambda: params, prompts, draws, pool=pool, out=out)
            seconds = time.perf_counter() - start
            profile.disable()
            if number:
                rates.append(len(samples) / seconds)
                load.append(os.getloadavg()[0])
    tokens = sum(len(sample.token_ids) for sample in samples) / len(samples)
    judged = sum(sample.verdict in ("correct", "wrong") for sample in samples) / len(samples)
    what = f"{len(samples)} responses of {tokens:.0f} tokens on average, {judged:.0%} of them compared"
    print(f"{what}: {statistics.median(rates):,.0f} judged responses/s ({', '.join(f'{rate:,.0f}' for rate in rates)})")
    print(f"{os.cpu_count()} cores, load {min(load):.1f} to {max(load):.1f}, jax {jax.__version__}")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
