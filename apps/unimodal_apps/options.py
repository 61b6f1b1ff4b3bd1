"""Options that several verbs share, under the names of the pipeline's arguments. None leaves it to the checkpoint.

Those that belong together are the fields of a dataclass; a verb takes one as a parameter, and `grouped` turns its
fields into options.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

SAMPLING, PIXELS, PLACE, BATCH = "How it is sampled", "How it is drawn", "Model and output", "Many at once"


def _models() -> list[str]:
    from unimodal.checkpoint import embedded_names

    return embedded_names()


Model = Annotated[
    str,
    typer.Option(
        help="An embedded checkpoint, a folder, or a Hub id owner/name.", rich_help_panel=PLACE, autocompletion=_models
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1, mps; the best there is if left out.",
        rich_help_panel=PLACE,
        autocompletion=lambda: ["cpu", "cuda", "mps"],
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16 or float64.",
        rich_help_panel=PLACE,
        autocompletion=lambda: ["float32", "bfloat16", "float16", "float64"],
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Makes a run repeatable; drawn and told if left out.", rich_help_panel=PLACE)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=PLACE)]
PictureOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="A picture file, a folder (`outputs` if left out), or - for the standard output; with --input a folder.",
        rich_help_panel=PLACE,
    ),
]
NumImages = Annotated[int, typer.Option(help="Pictures to draw.", rich_help_panel=PIXELS)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Which model, where, from which seed, and how results are told."""

    model: Model = "tiny"
    device: Device = None
    dtype: Dtype = None
    seed: Seed = None
    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Requests from a file."""

    input: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A JSON object per line instead of arguments; - is the standard input.",
            rich_help_panel=BATCH,
        ),
    ] = None
    batch_size: Annotated[
        int, typer.Option(min=1, help="Lines that are worked on together.", rich_help_panel=BATCH)
    ] = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options that are handed to the pipeline as they are."""

    def stated(self) -> dict[str, Any]:
        """Those that were given; a flag counts when it is set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}


@dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    preset: Annotated[
        str | None,
        typer.Option(
            help="fast, balanced or best; what is set beside it counts more.",
            rich_help_panel=SAMPLING,
            autocompletion=lambda: ["fast", "balanced", "best"],
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(help="Which positions a step fills: quota, threshold, remasking, ...", rich_help_panel=SAMPLING),
    ] = None
    span: Annotated[
        str | None, typer.Option(help="What is filled at once: block, answer or sequence.", rich_help_panel=SAMPLING)
    ] = None
    remasking: Annotated[
        str | None,
        typer.Option(
            help="How the policy remasking ranks: low_confidence, top_k_margin, ...", rich_help_panel=SAMPLING
        ),
    ] = None
    num_inference_steps: Annotated[int | None, typer.Option(help="Per block.", rich_help_panel=SAMPLING)] = None
    block_length: Annotated[int | None, typer.Option(help="Tokens per block.", rich_help_panel=SAMPLING)] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Confidence from which on a token is accepted, 0 to 1.", rich_help_panel=SAMPLING),
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest token.", rich_help_panel=SAMPLING)
    ] = None
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.", rich_help_panel=SAMPLING)] = None
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest of this mass.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class TextSampling(Sampling):
    gen_length: Annotated[int | None, typer.Option(help="Tokens of a text at most.", rich_help_panel=SAMPLING)] = None


@dataclass(frozen=True, kw_only=True)
class Drawing(Settings):
    decoder: Annotated[
        str | None,
        typer.Option(
            help="turbo (few steps) or normal.", rich_help_panel=PIXELS, autocompletion=lambda: ["turbo", "normal"]
        ),
    ] = None
    decoder_steps: Annotated[int | None, typer.Option(help="Steps of the decoder.", rich_help_panel=PIXELS)] = None
    guidance_rescale: Annotated[
        float | None, typer.Option(help="0 to 1, tames strong guidance.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class Size(Settings):
    height: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=PIXELS)] = None
    width: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=PIXELS)] = None


@dataclass(frozen=True, kw_only=True)
class PromptGuidance(Settings):
    guidance_scale: Annotated[
        float | None, typer.Option(help="How much the prompt weighs; 1 is no guidance.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class PictureGuidance(Settings):
    text_guidance_scale: Annotated[
        float | None, typer.Option(help="How much the instruction weighs.", rich_help_panel=SAMPLING)
    ] = None
    image_guidance_scale: Annotated[
        float | None, typer.Option(help="How much the picture weighs.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class NegativePrompt(Settings):
    negative_prompt: Annotated[
        str | None, typer.Option(help="What guidance leads away from.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Drawing, NegativePrompt, PromptGuidance, Sampling, Size):
    thinking: Annotated[
        bool, typer.Option("--thinking", help="The model first writes what it will draw.", rich_help_panel=PIXELS)
    ] = False
    thinking_gen_length: Annotated[
        int | None, typer.Option(help="Tokens of the thoughts at most.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class EditSettings(Drawing, NegativePrompt, PictureGuidance, Sampling, Size):
    mask_feather: Annotated[
        int | None, typer.Option(help="Pixels over which the mask's border fades.", rich_help_panel=PIXELS)
    ] = None


@dataclass(frozen=True, kw_only=True)
class InfillSettings(Sampling):
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What the text answers.")] = None
    gap_length: Annotated[
        int | None, typer.Option(help="Tokens of a gap of free length at most.", rich_help_panel=SAMPLING)
    ] = None


@dataclass(frozen=True, kw_only=True)
class InterleaveSettings(Drawing, PictureGuidance, PromptGuidance, TextSampling):
    max_images: Annotated[int | None, typer.Option(help="Pictures in the answer at most.", rich_help_panel=PIXELS)] = (
        None
    )
    image_num_inference_steps: Annotated[
        int | None, typer.Option(help="Per block of a picture.", rich_help_panel=SAMPLING)
    ] = None


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """The command whose options are the parameters of `function`, those that are dataclasses taken apart."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))
            continue
        group = groups[parameter.name]
        own = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=own[field.name])
            for field in fields(group)
        ]

    def command(**values: Any) -> None:
        built = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**values, **built)

    command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
