"""The public surface is short and written down: a change of it is a change of this file."""

import inspect

import pytest

import unimodal
from unimodal.pipeline import Pipeline

PUBLIC = {
    "ChatOutput",
    "EditOutput",
    "Gap",
    "GenerateOutput",
    "InfillOutput",
    "InterleaveOutput",
    "LikelihoodOutput",
    "Pipeline",
    "SprintOptions",
    "Stats",
    "UnderstandOutput",
    "__version__",
    "exactly_words",
    "json_template",
    "load",
}
SAMPLING = ("preset", "policy", "block_length", "threshold", "temperature", "top_k", "top_p")
JOBS = {
    "chat": ("messages", "modalities", "gen_length", "num_inference_steps", *SAMPLING, "max_images", "decoder_steps"),
    "chat_batch": ("conversations", "gen_length", "num_inference_steps", *SAMPLING, "eos_early_stop"),
    "understand": ("images", "question", "gen_length", "num_inference_steps", *SAMPLING, "eos_early_stop"),
    "generate": (
        *("prompt", "height", "width", "thinking", "num_inference_steps", "guidance_scale"),
        *("num_images_per_prompt", *SAMPLING, "decoder", "decoder_steps"),
    ),
    "edit": (
        *("images", "instruction", "num_inference_steps", "text_guidance_scale", "image_guidance_scale"),
        *("num_images_per_prompt", *SAMPLING, "decoder", "decoder_steps"),
    ),
    "infill": ("text", "prompt", "images", "gap_length", "num_inference_steps", *SAMPLING),
    "interleave": ("prompt", "images", "num_inference_steps", *SAMPLING, "max_images", "decoder", "decoder_steps"),
}


def test_the_package_offers_these_names_and_no_others() -> None:
    assert set(unimodal.__all__) == PUBLIC == set(dir(unimodal))
    for name in PUBLIC:
        assert getattr(unimodal, name) is not None
    with pytest.raises(AttributeError, match="utils"):
        _ = unimodal.utils  # type: ignore[attr-defined]


@pytest.mark.parametrize("job", JOBS)
def test_jobs_take_the_names_that_users_know(job: str) -> None:
    parameters = inspect.signature(getattr(Pipeline, job)).parameters
    expected = {*JOBS[job], "generator", "callback_on_step_end"}
    assert expected <= set(parameters)
    assert not [name for name, kind in parameters.items() if kind.kind is kind.VAR_KEYWORD]


def test_loading_takes_the_names_that_users_know() -> None:
    assert list(inspect.signature(unimodal.load).parameters)[:3] == ["name_or_path", "device", "dtype"]
    parameters = inspect.signature(Pipeline.from_pretrained).parameters
    assert {"device", "dtype", "torch_dtype", "revision", "token", "local_files_only"} <= set(parameters)
