"""Scripts written for the published code: they run after a changed import, and give what the jobs give."""

import inspect
from typing import Any

import pytest
import torch
from PIL import Image
from quick_pipeline import GOLDEN, noise, quiet_pipeline, seeded

from unimodal import published_names
from unimodal.pipeline import Pipeline

DEFAULTS: dict[str, dict[str, Any]] = {
    "generate_image": {
        **{"image_h": 1024, "image_w": 1024, "steps": 16, "block_length": 32, "cfg_scale": 4.0, "mode": "normal"},
        **{"thinking_steps": 32, "thinking_gen_length": 4096},
    },
    "understand_image": {"steps": 32, "block_length": 32, "gen_length": 2048},
    "edit_image": {"steps": 8, "block_length": 32, "cfg_text_scale": 4.0, "cfg_image_scale": 0.0},
    "decode_vq_tokens": {"resolution_multiplier": 2, "num_steps": 50, "decode_mode": "normal"},
}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return noise(128, 128)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quiet_pipeline(images={"edit_patches": 16, "edit_rule": "crop"})


@pytest.fixture(scope="module")
def model() -> published_names.PublishedModel:
    """As the published scripts load it."""
    tokenizer = published_names.AutoTokenizer.from_pretrained(GOLDEN, trust_remote_code=True)
    model = published_names.AutoModelForCausalLM.from_pretrained(
        GOLDEN, device_map="cpu", torch_dtype="float32", trust_remote_code=True
    ).eval()
    model.tokenizer = tokenizer
    model.set_progress_bar_config(disable=True)
    return model


@pytest.mark.parametrize("name", DEFAULTS)
def test_arguments_and_defaults_are_the_published_ones(name):
    function = getattr(Pipeline, name, None) or getattr(published_names, name)
    parameters = inspect.signature(function).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]
    first = {"generate_image": ["prompt"], "decode_vq_tokens": ["token_ids", "h", "w", "model_path", "device"]}
    third = "question" if name == "understand_image" else "instruction"
    expected = first.get(name, ["image_tokens", "h", "w", third])
    assert [key for key in parameters if key != "self"][: len(expected)] == expected
    sprint = {"use_sprint", "keep_ratio", "cache_warmup_steps", "image_keep_ratio", "text_keep_ratio"}
    assert name == "decode_vq_tokens" or sprint <= set(parameters)


def test_a_picture_is_created_and_decoded(model, pipe):
    result = model.generate_image("A red cat on a table.", image_h=256, image_w=320, steps=8, cfg_scale=2.0)
    assert set(result) == {"token_ids", "h", "w"} and (result["h"], result["w"]) == (8, 10)
    options = {"num_inference_steps": 8, "guidance_scale": 2.0, "generator": seeded(0)}
    own = pipe.generate("A red cat on a table.", height=256, width=320, decoder_steps=2, **options)
    assert result["token_ids"] == own.codes[0].flatten().tolist()
    size = result["token_ids"], result["h"], result["w"], GOLDEN, "cpu"
    noise = seeded(0)
    image = published_names.decode_vq_tokens(*size, num_steps=2, decode_mode="decoder-turbo", generator=noise)
    assert image.size == (320, 256) and image.mode == "RGB"
    again = published_names.decode_vq_tokens(*size, num_steps=2, generator=seeded(0))
    assert again.size == (320, 256) and again.tobytes() != image.tobytes()


def test_decoding_is_that_of_the_jobs(model, pipe):
    own = pipe.generate("a cat", height=256, width=256, decoder_steps=3, generator=seeded(7))
    image = published_names.decode_vq_tokens(
        own.codes[0].flatten().tolist(),
        *(8, 8, GOLDEN, "cpu"),
        num_steps=3,
        decode_mode="decoder-turbo",
        generator=seeded(7),
    )
    assert image.tobytes() == own.images[0].tobytes()


def test_thinking_says_what_it_thought(model, pipe):
    options = {"thinking_steps": 4, "thinking_gen_length": 16}
    result = model.generate_image("A fox.", image_h=256, image_w=256, mode="thinking", steps=2, **options)
    own = pipe.generate(
        "A fox.",
        **{"height": 256, "width": 256, "thinking": True, "num_inference_steps": 2, "decoder_steps": 2},
        **{"thinking_num_inference_steps": 4, "thinking_gen_length": 16},
    )
    assert [result["thinking"]] == own.thinking
    assert result["token_ids"] == own.codes[0].flatten().tolist()
    assert (result["h"], result["w"]) == (8, 8)


def test_a_picture_is_understood(model, pipe, picture, tmp_path):
    picture.save(tmp_path / "picture.png")
    [small] = published_names.smart_resize_images([str(tmp_path / "picture.png")])
    info = published_names.ImageTokenizer(model_path=GOLDEN, device="cpu").encode_with_info(small)
    image_tokens = [code + model.config.image_token_offset for code in info["token_ids"]]
    _, h, w = info["grid_thw"]
    assert (h, w) == (8, 8)
    answer = model.understand_image(image_tokens, h, w, question="What is this?", steps=4, gen_length=24)
    own = pipe.understand(picture, "What is this?", num_inference_steps=4, gen_length=24)
    assert isinstance(answer, str) and answer == own.text
    assert isinstance(model.understand_image(image_tokens, h, w, steps=4, gen_length=8), str)


def test_a_picture_is_edited(model, pipe, picture):
    sizes = published_names.generate_crop_size_list(16, 32)
    cropped = published_names.var_center_crop(picture, crop_size_list=sizes)
    assert cropped.size == (128, 128)
    info = published_names.ImageTokenizer(model_path=GOLDEN, device="cpu").encode_with_info(cropped)
    image_tokens = [code + model.config.image_token_offset for code in info["token_ids"]]
    _, h, w = info["grid_thw"]
    result = model.edit_image(image_tokens, h, w, instruction="Make it blue.", steps=2, cfg_text_scale=3.0)
    own = pipe.edit(picture, "Make it blue.", num_inference_steps=2, text_guidance_scale=3.0, decoder_steps=2)
    assert result == {"token_ids": own.codes[0].flatten().tolist(), "h": 8, "w": 8}


def test_sprint_prunes_and_unmasks_adaptively(model, pipe):
    whole = {"keep_ratio": 1.0, "cache_warmup_steps": 1}
    result = model.generate_image("A cat.", image_h=256, image_w=256, steps=4, use_sprint=True, **whole)
    own = pipe.generate(
        "A cat.", height=256, width=256, num_inference_steps=4, guidance_scale=4.0, policy="adaptive", decoder_steps=2
    )
    assert result["token_ids"] == own.codes[0].flatten().tolist()
    pruned = model.generate_image("A cat.", image_h=256, image_w=256, steps=4, use_sprint=True, keep_ratio=0.1)
    assert pruned["token_ids"] != result["token_ids"]


def test_crop_sizes_are_the_published_ones():
    sizes = published_names.generate_crop_size_list((512 // 32) ** 2, 32)
    assert len(sizes) == 49 and (512, 512) in sizes and sizes[0] == (1024, 256)


def test_models_are_placed_as_asked(model):
    half = published_names.AutoModelForCausalLM.from_pretrained(GOLDEN, device_map={"": "cpu"}, torch_dtype="auto")
    assert (half.device.type, half.dtype) == ("cpu", torch.float32)
    assert half.to(torch.bfloat16).eval().dtype == torch.bfloat16
    assert model.tokenizer("a cat", add_special_tokens=False)["input_ids"] == model.sequences.text("a cat")


BAD = [
    (lambda model: model.generate_image(["a"]), r"prompt: got \['a'\]"),
    (lambda model: model.generate_image(" "), "prompt: got ' '"),
    (lambda model: model.generate_image("a", mode="loud"), "mode: got 'loud'"),
    (lambda model: model.generate_image("a", image_h=96), "image_h: got 96 pixels, 3 codes have no token"),
    (lambda model: model.generate_image("a", 256, 256, gen_length=63), "gen_length: got 63, it cuts off a picture"),
    (lambda model: model.generate_image("a", 256, 256, keep_ratio=0.5), "keep_ratio: got 0.5, it needs use_sprint"),
    (lambda model: model.understand_image([1, 2], 8, 8, "what?"), "image_tokens: got 2, a picture of 8 × 8"),
    (lambda model: model.understand_image([1] * 64, 8, 8, "what?"), "tokens: got 1 to 1, allowed"),
    (lambda model: model.edit_image([1] * 64, 8, 8, ""), "instruction: got ''"),
    (lambda model: published_names.decode_vq_tokens([1], 2, 2, GOLDEN, "cpu"), "token_ids: got 1"),
    (
        lambda model: published_names.decode_vq_tokens([1], 1, 1, GOLDEN, "cpu", decode_mode="turbo"),
        "decode_mode: got 'turbo'",
    ),
    (
        lambda model: published_names.AutoModelForCausalLM.from_pretrained(GOLDEN, device_map={"head": 0}),
        "device_map: got",
    ),
]


@pytest.mark.parametrize(("call", "error"), BAD)
def test_bad_arguments_are_named(model, call, error):
    with pytest.raises(ValueError, match=error):
        call(model)


def test_names_that_never_were_arguments_are_refused(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_steps'"):
        model.generate_image("a", num_steps=3)
