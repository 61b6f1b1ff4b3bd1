"""`unimodal train`: one stage of training."""

from pathlib import Path
from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import report


def train(
    stage: Annotated[
        str,
        typer.Argument(
            help="text-tokenizer, tokenizer, autoencoder, decoder, distill or backbone; in this order.",
            metavar="STAGE",
        ),
    ],
    checkpoint: Annotated[Path, typer.Option(help="Folder that parts are read from and the trained part goes to.")],
    recipe: Annotated[
        str | None, typer.Option(help="A packaged recipe or a YAML file; the tiny model's if left out.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Log, samples and state; CHECKPOINT/training/STAGE if left out."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override the recipe, as in optimizer.learning_rate=1e-3."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Keep to the CPU even where there is a GPU.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Short for --set seed=SEED.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Train one part of a model into a checkpoint folder; continues where it stopped.

    On several devices: accelerate launch -m unimodal_apps.cli train ...

    \b
    Examples:
      unimodal train backbone --checkpoint runs/tiny
      unimodal train decoder --checkpoint runs/tiny --set steps=2000
      unimodal train tokenizer --checkpoint runs/mine --recipe mine.yaml
    """
    from unimodal.training.run import run_stage

    for option, folder in (("--checkpoint", checkpoint), ("--output", output)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ValueError(f"{option}: {str(folder)!r} is a file, it must be a folder")
    overrides = list(assignments or []) + ([] if seed is None else [f"seed={seed}"])
    metrics = run_stage(stage, checkpoint, recipe, output, overrides, cpu=cpu)
    result = {"task": "train", "stage": stage, "checkpoint": str(checkpoint), "metrics": metrics}
    lines = [f"{name}  {value:.4g}" for name, value in metrics.items()]
    report(as_json, result, [*lines, f"{stage} is in {checkpoint}"])
