"""The command `unimodal`. Each verb is a module of `commands`; importing this one imports no heavy library."""

import os
import sys
import warnings
from typing import Annotated

import typer

import unimodal
from unimodal_apps.commands.bench import bench
from unimodal_apps.commands.chat import chat
from unimodal_apps.commands.demo import demo
from unimodal_apps.commands.edit import edit
from unimodal_apps.commands.evaluate import evaluate
from unimodal_apps.commands.generate import generate
from unimodal_apps.commands.infill import infill
from unimodal_apps.commands.info import info
from unimodal_apps.commands.interleave import interleave
from unimodal_apps.commands.quickstart import quickstart
from unimodal_apps.commands.reproduce import reproduce
from unimodal_apps.commands.serve import serve
from unimodal_apps.commands.train import train
from unimodal_apps.commands.understand import understand
from unimodal_apps.errors import OneLineErrors

HELP = """Understand, draw, edit and interleave text and pictures with one masked-diffusion model.

\b
Examples:
  unimodal quickstart
  unimodal generate "a red car in a meadow" --output car.png
  unimodal understand car.png --question "what color is the car?"
  unimodal edit car.png --instruction "make the car blue" -o blue.png
  unimodal VERB --help

\b
Exit codes:
  0    done
  1    something failed, or `reproduce` made another picture
  2    bad input, said in one line; nothing was written
  130  interrupted; a batch goes on when it is run again
"""

app = typer.Typer(
    name="unimodal",
    cls=OneLineErrors,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)

for verb, command in {
    "understand": understand,
    "generate": generate,
    "edit": edit,
    "interleave": interleave,
    "chat": chat,
    "infill": infill,
    "reproduce": reproduce,
    "serve": serve,
    "quickstart": quickstart,
    "demo": demo,
    "info": info,
    "train": train,
    "eval": evaluate,
    "bench": bench,
}.items():
    app.command(verb)(command)


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        typer.echo(unimodal.__version__)
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit()


def main() -> None:
    """The console script: `app`, in a process of its own."""
    # What libraries have to say to developers is no answer to somebody at a terminal.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="unimodal")


if __name__ == "__main__":
    main()
