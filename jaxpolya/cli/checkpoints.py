"""Commands that bring checkpoints in and out: import, export."""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jaxpolya.cli import devices
from jaxpolya.cli.screen import note, say


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Hugging Face directory or hub name, or a .gguf file.", show_default=False)
    ],
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            help="Where jaxpolya's own sharded layout is written, also gs://…; a directory that jaxpolya wrote before is replaced.",
            show_default=False,
        ),
    ],
    revision: Annotated[str | None, typer.Option(metavar="REVISION", help="Commit or tag of a hub model.", show_default=False)] = None,
) -> None:
    """Bring a checkpoint in: convert it once, for fast starts on many devices."""
    check_destination(directory, source)
    devices.start_jax()
    from jaxpolya.hf.checkpoint import load_checkpoint, save_checkpoint
    from jaxpolya.hf.origin import origin_of
    from jaxpolya.parallel.mesh import make_mesh

    checkpoint = load_checkpoint(source, mesh=make_mesh(), revision=revision)
    note(checkpoint.meta.note)
    save_checkpoint(directory, checkpoint.params, checkpoint.meta, origin=origin_of(source, revision))
    say(f"wrote {directory}; use it as model.source")


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run directory (its best arm), or any checkpoint.", show_default=False)],
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            help="The Hugging Face directory to write, also gs://…; a directory that jaxpolya wrote before is replaced.",
            show_default=False,
        ),
    ],
    arm: Annotated[str | None, typer.Option(metavar="ARM", help="Of a run: this arm instead of the best.", show_default=False)] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run: the results of this configuration, as `jaxpolya show` names it.", show_default=False),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE", help="bfloat16, float16 or float32; unset is as the base model's own files have it.", show_default=False
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REVISION", help="Commit or tag of a hub model.", show_default=False)] = None,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Of one file of weights: a whole number of KB, MB or GB.")] = "50GB",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Of a model that was trained with adapters, write these alone, as PEFT loads them (float32).")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --adapter: what PEFT is to know their base model by.", show_default=False),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Load what was written with transformers (needs torch), and compare its logits with ours; takes memory for the model in "
            "float32 once more. If they differ, nothing is written.",
        ),
    ] = False,
) -> None:
    """Take a model home as a Hugging Face directory that transformers loads, with a model card."""
    from jaxpolya.errors import ConfigError, MachineError
    from jaxpolya.runs.results import arm_of_model, arm_of_run, model_of_run
    from jaxpolya.runs.stages import source_commit

    if dtype not in (None, "bfloat16", "float16", "float32"):
        raise ConfigError(f"--dtype {dtype}: choose bfloat16, float16 or float32")
    if not re.fullmatch(r"0*[1-9]\d*[KMG]B", max_shard_size, re.IGNORECASE):
        raise ConfigError(f"--max-shard-size {max_shard_size}: write it as a whole number of KB, MB or GB, such as 5GB")
    if verify and importlib.util.find_spec("torch") is None:
        raise MachineError("--verify needs torch, for transformers' own forward pass: pip install torch, or export without --verify")
    if adapter and (verify or dtype):
        raise ConfigError(f"{'--verify' if verify else '--dtype'} is of a whole model; leave it away, or --adapter")
    if base and not adapter:
        raise ConfigError("--base names the base model of adapters; add --adapter")
    model = model_of_run(Path(source), arm, at)
    for option, given in (("--arm", arm), ("--at", at)):
        if given and model is None:
            raise ConfigError(f"{option} {given}: {source} is not a run directory, so it has no arms")
    if revision and model:
        raise ConfigError(f"--revision {revision}: {source} is a run directory; a revision is of a hub model")
    of_run = arm_of_run(Path(source), arm, at) if model else arm_of_model(Path(source))
    source = model or source
    check_destination(directory, source)
    devices.start_jax()
    from jaxpolya.hf.adapter import save_adapter
    from jaxpolya.hf.check_export import compare_export
    from jaxpolya.hf.checkpoint import adapters_of, export_checkpoint, fingerprint, load_checkpoint
    from jaxpolya.hf.origin import origin_of
    from jaxpolya.parallel.mesh import is_primary, make_mesh
    from jaxpolya.report.card import checkpoint_card, run_card

    mesh = make_mesh()
    if of_run and source == of_run[0].run.model:  # a run says itself of which revision its base model is
        revision = of_run[0].config["model"]["revision"]
    if of_run:
        card = run_card(*of_run)
    else:
        card = checkpoint_card(source, fingerprint(source, revision), origin_of(source, revision), source_commit())
    if adapter:
        adapters, meta = adapters_of(source, revision=revision)
        save_adapter(directory, dataclasses.replace(adapters, base=base or adapters.base), meta, card=card)
        say(f"wrote {directory}, adapters of {base or adapters.base} ({source})")
        return
    checkpoint = load_checkpoint(source, mesh=mesh, revision=revision)
    note(checkpoint.meta.note)

    def check(written: Any) -> None:
        agreement = compare_export(written, checkpoint, mesh)
        if is_primary():
            say(f"verify: {agreement}")

    export_checkpoint(
        directory,
        checkpoint.params,
        checkpoint.meta,
        dtype=cast(Any, dtype),
        max_shard_size=max_shard_size,
        card=card,
        check=check if verify else None,
    )
    say(f"wrote {directory} ({source})")


def check_destination(directory: str, source: str) -> None:
    """Raises `ConfigError` where writing a model to a directory would replace the one that is read, or a part of a run."""
    from jaxpolya.errors import ConfigError

    if "://" in directory:
        if directory.rstrip("/") == source.rstrip("/"):
            raise ConfigError(f"{directory} is the model that is read; name another directory to write to")
        return
    target, origin = (Path(os.path.realpath(Path(name).expanduser())) for name in (directory, source))
    if origin.exists() and origin.is_relative_to(target):
        raise ConfigError(f"{directory} holds the model that is read, and would be replaced; name another directory to write to")
    for parent in target.parents:
        if parent.name == "stages" and (parent.parent / "config.yaml").exists():
            raise ConfigError(f"{directory} lies in the stages of the run {parent.parent}, which are its own; name another directory")
