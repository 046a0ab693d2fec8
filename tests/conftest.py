"""What all tests share: eight virtual CPU devices, a compile cache, meshes, and a tiny checkpoint."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before jax is imported anywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.append(str(Path(sys.prefix) / "cuda"))  # where `make test` puts XLA's compiler for GPUs

import jax  # noqa: E402
import pytest  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from jaxpolya.config import MeshConfig  # noqa: E402
from jaxpolya.hf.checkpoint import CheckpointMeta, export_checkpoint  # noqa: E402
from jaxpolya.hf.families import config_to_hf  # noqa: E402
from jaxpolya.models.config import DecoderConfig  # noqa: E402
from jaxpolya.models.decoder import init_params  # noqa: E402
from jaxpolya.parallel.mesh import make_mesh  # noqa: E402

pytest_plugins = ["guesser", "commands"]

SPECIALS = ["<|end|>", "<|turn|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


MEMORY_MAPS = 20_000
"""Linux gives a process 65,530; each executable on CPU holds about ten, and XLA crashes where it gets no more."""


@pytest.fixture(scope="module", autouse=True)
def _forget_executables():
    """Lets go of the compiled functions of the files before, when a process holds many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MEMORY_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="module")
def no_compile_cache():
    """A cached program of a device that isn't here can't be read back."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", before)


@pytest.fixture(scope="session")
def mesh1():
    """A mesh of the first device."""
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def mesh8():
    """Eight devices: two replicas, two data shards, two tensor shards."""
    return make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2), jax.devices()[:8])


@pytest.fixture(scope="session")
def tiny_config():
    """A Llama small enough to compile in a second."""
    return DecoderConfig(
        family="llama", vocab_size=300, width=32, ff_width=64, layers=2, heads=4, kv_heads=2, head_width=8, max_positions=256, norm_eps=1e-5
    )


@pytest.fixture(scope="session")
def make_tokenizer():
    """A function (texts, vocabulary size) → a byte-level BPE of all bytes and some merges of the texts, with a chat template."""

    def make(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIALS,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|end|>",
            pad_token="<|pad|>",
            chat_template=CHAT_TEMPLATE,
            clean_up_tokenization_spaces=False,
        )

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer(make_tokenizer):
    """A tokenizer of arithmetic prose; ids stay below 300."""
    return make_tokenizer(["The answer is 42. What is 12 plus 30? Add the numbers, then check the answer."] * 4, 290)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_config, tiny_tokenizer):
    """A Hugging Face directory with a random tiny Llama in float32."""
    directory = tmp_path_factory.mktemp("tiny") / "llama"
    eos = tiny_tokenizer.eos_token_id
    meta = CheckpointMeta(
        "tiny", tiny_config, config_to_hf(tiny_config) | {"eos_token_id": eos}, {"eos_token_id": [eos]}, tiny_tokenizer, (eos,)
    )
    export_checkpoint(directory, init_params(tiny_config, jax.random.key(0)), meta, dtype="float32")
    return directory
