"""Options that several verbs share, under the names of the pipeline's arguments. None leaves it to the checkpoint."""

from typing import Annotated

import typer

SAMPLING, PIXELS, PLACE = "How it is sampled", "How it is drawn", "Model and output"

Model = Annotated[
    str, typer.Option(help="An embedded checkpoint, a folder, or a Hub id owner/name.", rich_help_panel=PLACE)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.", rich_help_panel=PLACE)
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.", rich_help_panel=PLACE)]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Makes a run repeatable; drawn and told if left out.", rich_help_panel=PLACE)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=PLACE)]
PictureOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", help="A picture file or a folder; `outputs` if left out.", rich_help_panel=PLACE),
]

Steps = Annotated[int | None, typer.Option("--num-inference-steps", help="Per block.", rich_help_panel=SAMPLING)]
GenLength = Annotated[int | None, typer.Option(help="Tokens of a text at most.", rich_help_panel=SAMPLING)]
BlockLength = Annotated[int | None, typer.Option(help="Tokens per block.", rich_help_panel=SAMPLING)]
Threshold = Annotated[
    float | None, typer.Option(help="Confidence from which on a token is accepted, 0 to 1.", rich_help_panel=SAMPLING)
]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token.", rich_help_panel=SAMPLING)]
TopK = Annotated[int | None, typer.Option(help="Draw among the k likeliest.", rich_help_panel=SAMPLING)]
TopP = Annotated[float | None, typer.Option(help="Draw among the likeliest of this mass.", rich_help_panel=SAMPLING)]
GuidanceScale = Annotated[
    float | None, typer.Option(help="How much the prompt weighs; 1 is no guidance.", rich_help_panel=SAMPLING)
]
TextGuidanceScale = Annotated[
    float | None, typer.Option(help="How much the instruction weighs.", rich_help_panel=SAMPLING)
]
ImageGuidanceScale = Annotated[
    float | None, typer.Option(help="How much the picture weighs.", rich_help_panel=SAMPLING)
]
GuidanceRescale = Annotated[float | None, typer.Option(help="0 to 1, tames strong guidance.", rich_help_panel=SAMPLING)]

Height = Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=PIXELS)]
Width = Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=PIXELS)]
NumImages = Annotated[int, typer.Option(help="Pictures to draw.", rich_help_panel=PIXELS)]
Decoder = Annotated[str | None, typer.Option(help="turbo (few steps) or normal.", rich_help_panel=PIXELS)]
DecoderSteps = Annotated[int | None, typer.Option(help="Steps of the decoder.", rich_help_panel=PIXELS)]
