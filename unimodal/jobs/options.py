"""The options that jobs share, written once.

A job lists its own arguments and takes the shared ones as `**sampling: Unpack[Sampling]`; `spelled_out` puts their
names where Python and its tools look for arguments. None always means: as the checkpoint's settings say.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import ParamSpec, TypedDict, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Sampling(TypedDict, total=False):
    """How blocks are filled; ranges as in `unimodal.diffusion.options.SamplingOptions`.

    Args:
        preset: `fast`, `balanced` or `best`; the other options count more.
        policy: which positions a step fills, one of `unimodal.diffusion.policies`.
        num_inference_steps: steps per block.
        block_length: positions that are filled together.
        span: what a block is: `block`, `answer` or `sequence`.
        threshold: a token that is more probable than this is committed at once; 0 to 1.
        temperature: 0 takes the most probable token, above it tokens are drawn.
        top_k, top_p: limits of what is drawn from.
        minimal_topk, remasking, reveal_length, choice_temperature, editing_threshold, max_post_steps: options of
            policies; one that the policy does not have is refused.
    """

    preset: str | None
    policy: str | None
    num_inference_steps: int | None
    block_length: int | None
    span: str | None
    threshold: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    minimal_topk: int | None
    remasking: str | None
    reveal_length: int | None
    choice_temperature: float | None
    editing_threshold: float | None
    max_post_steps: int | None


class TextSampling(Sampling, total=False):
    """How text is written.

    Args:
        gen_length: tokens at most.
        eos_early_stop: ends within a block, once nothing before the first stop token is masked.
    """

    gen_length: int | None
    eos_early_stop: bool | None


class InterleavedSampling(TextSampling, total=False):
    """How text and pictures are written in turn.

    Args:
        gen_length: tokens of each text at most.
        image_num_inference_steps: steps per block of a picture.
        guidance_scale: of the first picture; 0 takes `text_guidance_scale`, 1 is none.
        text_guidance_scale, image_guidance_scale: of later pictures; both 0 is none.
        guidance_rescale: 0 to 1.
        max_images: the answer ends with this many.
        max_image_tokens: codes of each picture at most; the answer ends before a larger one.
    """

    image_num_inference_steps: int | None
    guidance_scale: float | None
    text_guidance_scale: float | None
    image_guidance_scale: float | None
    guidance_rescale: float | None
    max_images: int | None
    max_image_tokens: int | None


def spelled_out(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Lists the names of an unpacked TypedDict in the signature of `function`; others are a TypeError, as they are
    for arguments that were never packed.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    [packed] = typing.get_args(parameters[-1].annotation)
    names = typing.get_type_hints(packed)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in names.items()
    ]
    known = {parameter.name for parameter in parameters[:-1]} | set(names)

    @functools.wraps(function)
    def checked(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        for name in named:
            if name not in known:
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
        return function(*arguments, **named)

    checked.__signature__ = signature.replace(parameters=[*parameters[:-1], *options])  # type: ignore[attr-defined]
    return checked
