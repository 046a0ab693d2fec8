"""What a run is, said once: one small strict model a section, in a file of its own. `config.file` reads them from YAML.

Everything is checked before anything is loaded. An unknown key is answered with the nearest known one; an impossible
combination is named by its keys. Symbols in the field docs are those of the paper (arXiv 2605.08472) and of docs/design.md.
Nothing in here imports jax or numpy.
"""

from jaxpolya.config.base import CONTENT, HOW, LARGEST_SEED, LATER, NAME, Door, Fraction, Later, LeftOut, Seed, Strict, known, ours_or_own
from jaxpolya.config.data import ADHERENCES, KEEPS, GenerateConfig, SelectConfig
from jaxpolya.config.evaluation import JUDGES, KERNELS, ContaminationConfig, EvalConfig
from jaxpolya.config.machine import CodeConfig, DecodeConfig, MathConfig, MeshConfig, VerifyConfig
from jaxpolya.config.model import NO_ARGUMENTS, ModelConfig, Sampling
from jaxpolya.config.questions import (
    AnySource,
    ColumnSource,
    GymSource,
    HubSource,
    JsonlSource,
    Ours,
    PythonSource,
    Source,
    Sources,
    TfdsSource,
)
from jaxpolya.config.rl import ALGORITHMS, REWARDS, Aggregation, KlConfig, KlEstimator, RlConfig, ValueConfig
from jaxpolya.config.run import SEEDED, SINKS, RunConfig
from jaxpolya.config.training import Batching, LoraConfig, LoraTarget, Optimizer, SftConfig, ValidationConfig

__all__ = [
    "ADHERENCES",
    "ALGORITHMS",
    "CONTENT",
    "HOW",
    "JUDGES",
    "KEEPS",
    "KERNELS",
    "LARGEST_SEED",
    "LATER",
    "NAME",
    "NO_ARGUMENTS",
    "REWARDS",
    "SEEDED",
    "SINKS",
    "Aggregation",
    "AnySource",
    "Batching",
    "CodeConfig",
    "ColumnSource",
    "ContaminationConfig",
    "DecodeConfig",
    "Door",
    "EvalConfig",
    "Fraction",
    "GenerateConfig",
    "GymSource",
    "HubSource",
    "JsonlSource",
    "KlConfig",
    "KlEstimator",
    "Later",
    "LeftOut",
    "LoraConfig",
    "LoraTarget",
    "MathConfig",
    "MeshConfig",
    "ModelConfig",
    "Optimizer",
    "Ours",
    "PythonSource",
    "RlConfig",
    "RunConfig",
    "Sampling",
    "Seed",
    "SelectConfig",
    "SftConfig",
    "Source",
    "Sources",
    "Strict",
    "TfdsSource",
    "ValidationConfig",
    "ValueConfig",
    "VerifyConfig",
    "known",
    "ours_or_own",
]
