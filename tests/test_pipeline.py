"""The four jobs from end to end on a reference checkpoint with random weights, and what they say about bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from quick_pipeline import GOLDEN, QUICK, gradient, quick_pipeline, seeded

import unimodal
from unimodal.diffusion.sampler import StepState
from unimodal.pipeline import Pipeline
from unimodal.results import Stats
from unimodal.settings import Settings


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quick_pipeline(interleave={"image_guidance_scale": 1.5})


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return gradient()


def pixels(image: Image.Image) -> bytes:
    return image.tobytes()


def test_understand_answers_in_text(pipe, picture, tmp_path):
    result = pipe.understand(picture, "how many cats are there?")
    assert isinstance(result.text, str)
    assert result.texts == [result.text]
    assert result.stats.forwards > 0
    assert result.stats.tokens == len(result.tokens[0]) <= 24
    assert result.stats.tokens_per_forward > 0
    assert set(result.stats.seconds) == {"encode", "text"}
    picture.save(tmp_path / "picture.png")
    assert pipe.understand(str(tmp_path / "picture.png"), "how many cats are there?").text == result.text


def test_understand_takes_several_pictures_and_lists_of_questions(pipe, picture):
    other = picture.rotate(90)
    single = [pipe.understand(picture, "what is this?"), pipe.understand([picture, other], "which is darker?")]
    batch = pipe.understand([picture, [picture, other]], ["what is this?", "which is darker?"])
    assert [row.tolist() for row in batch.tokens] == [result.tokens[0].tolist() for result in single]
    bare = pipe.understand(picture, "what is this?", prompt_style="bare")
    assert bare.tokens[0].tolist() != single[0].tokens[0].tolist()


def test_generate_draws_what_its_seed_says(pipe):
    result = pipe.generate("a red circle", generator=seeded(), **QUICK)
    [image], [codes] = result.images, result.codes
    assert image.size == (256, 256) and image.mode == "RGB"
    assert codes.shape == (8, 8) and result.thinking is None
    assert result.stats.tokens == 64
    assert set(result.stats.seconds) == {"picture", "decode"}
    again = pipe.generate("a red circle", generator=seeded(), **QUICK)
    other = pipe.generate("a red circle", generator=seeded(1), **QUICK)
    assert pixels(again.images[0]) == pixels(image) != pixels(other.images[0])


def test_a_batch_draws_what_single_calls_draw(pipe):
    prompts, settings = ["a red circle", "three cats on green grass"], {"temperature": 1.0, **QUICK}
    together = pipe.generate(prompts, generator=[seeded(3), seeded(4)], **settings)
    alone = [pipe.generate(prompt, generator=seeded(3 + place), **settings) for place, prompt in enumerate(prompts)]
    for place in range(2):
        assert together.codes[place].equal(alone[place].codes[0])
        difference = ImageChops.difference(together.images[place], alone[place].images[0])
        assert max(difference.tobytes()) <= 1
    several = pipe.generate(prompts, num_images_per_prompt=2, generator=seeded(), **settings)
    assert len(several.images) == 4
    assert not several.codes[0].equal(several.codes[1])


def test_generate_takes_sizes_guidance_and_decoders(pipe):
    wide = pipe.generate("a cat", height=256, width=512, guidance_scale=1.0, decoder="normal", **QUICK)
    assert wide.images[0].size == (512, 256)
    assert wide.codes[0].shape == (8, 16)
    guided = pipe.generate("a cat", height=256, width=512, guidance_scale=3.0, **QUICK)
    assert not guided.codes[0].equal(wide.codes[0])


def test_thinking_comes_before_the_picture_of_the_size_asked_for(pipe):
    result = pipe.generate(["a cat", "a red dog"], thinking=True, **QUICK)
    assert result.thinking is not None and len(result.thinking) == 2
    assert all(image.size == (256, 256) for image in result.images)
    assert {"thinking", "picture", "decode"} == set(result.stats.seconds)


def test_edit_keeps_the_size_of_the_picture(pipe, picture):
    result = pipe.edit(picture, "make it green", image_guidance_scale=1.5, generator=seeded(), **QUICK)
    assert result.images[0].size == (256, 256)
    assert result.codes[0].shape == (8, 8)
    several = pipe.edit([picture, picture.rotate(90)], "put one into the other", height=256, width=320, **QUICK)
    assert several.images[0].size == (320, 256)


def test_edits_in_a_batch_are_those_of_single_calls(pipe, picture):
    other = picture.rotate(180)
    together = pipe.edit([picture, [other, picture]], ["make it green", "mix them"], **QUICK)
    for place, (images, text) in enumerate([(picture, "make it green"), ([other, picture], "mix them")]):
        assert pipe.edit(images, text, **QUICK).codes[0].equal(together.codes[place])


def test_interleave_gives_segments(pipe, picture):
    result = pipe.interleave("tell a story", [picture], **QUICK)
    assert all(isinstance(segment, str | Image.Image) for segment in result.segments)
    assert result.finish_reason in ("stop", "length", "max_images", "broken_header")


@pytest.mark.parametrize("job", ["understand", "generate", "thinking", "edit", "interleave", "chat", "story"])
def test_what_has_no_room_in_the_context_is_refused(pipe, picture, monkeypatch, job):
    calls = {
        "understand": (lambda: pipe.understand(picture, "what is this?"), "images, question, gen_length"),
        "generate": (lambda: pipe.generate("a cat"), "prompt, height, width"),
        "thinking": (lambda: pipe.generate("a cat", thinking=True), "prompt, thinking_gen_length, height, width"),
        "edit": (lambda: pipe.edit(picture, "make it red"), "images, instruction, height, width"),
        "interleave": (lambda: pipe.interleave("tell", picture), "prompt, images"),
        "chat": (lambda: pipe.chat([{"role": "user", "content": "hello"}]), "messages, gen_length"),
        "story": (
            lambda: pipe.chat([{"role": "user", "content": "hello"}], modalities=["text", "image"]),
            "messages: the prompt",
        ),
    }
    call, named = calls[job]
    monkeypatch.setattr(pipe.backbone, "config", replace(pipe.backbone.config, max_position_embeddings=20))
    with pytest.raises(ValueError, match=f"^{named}.* together at most 20 have room"):
        call()


def test_a_call_that_just_fits_is_made(pipe, picture, monkeypatch):
    [codes] = [pipe._encode(small, Stats()) for small in pipe.sizes.for_understanding([picture])]
    needed = len(pipe.sequences.understanding([codes], "what?")) + 4
    monkeypatch.setattr(pipe.backbone, "config", replace(pipe.backbone.config, max_position_embeddings=needed))
    assert len(pipe.understand(picture, "what?", gen_length=4).tokens[0]) <= 4
    with pytest.raises(ValueError, match="gen_length"):
        pipe.understand(picture, "what?", gen_length=5)


def test_presets_and_policies_are_options_of_all_jobs(pipe, picture):
    committed: list[int] = []

    def count(owner: Pipeline, step: int, timestep: int, values: dict[str, Any]) -> None:
        if values["stage"] == "picture":
            committed.extend(len(sample.committed) for sample in values["state"].samples)

    pipe.generate("a cat", preset="best", decoder_steps=2, callback_on_step_end=count)
    assert max(committed) == 1 and sum(committed) == 64
    assert pipe.generate("a cat", preset="best", num_inference_steps=2, decoder_steps=2).stats.forwards <= 2 * 4
    assert pipe.generate("a cat", policy="cosine", span="answer", **QUICK).stats.forwards == 2
    assert pipe.understand(picture, "what?", preset="fast", gen_length=4).stats.forwards <= 4
    calls = (
        lambda **options: pipe.understand(picture, "what?", **options),
        lambda **options: pipe.generate("a cat", **options),
        lambda **options: pipe.edit(picture, "make it red", **options),
        lambda **options: pipe.interleave("tell", **options),
        lambda **options: pipe.chat([{"role": "user", "content": "hello"}], **options),
    )
    for call in calls:
        with pytest.raises(ValueError, match="preset: got 'quick'"):
            call(preset="quick")
        with pytest.raises(ValueError, match="policy: got 'none'"):
            call(policy="none")
        with pytest.raises(ValueError, match=r"editing_threshold: got 0.5, policy 'quota' has no such option"):
            call(editing_threshold=0.5)
        with pytest.raises(ValueError, match="sprint: got True"):
            call(sprint=True)


def test_sprint_that_keeps_everything_changes_nothing(pipe, picture):
    everything = unimodal.SprintOptions(image_keep_ratio=1.0)
    little = unimodal.SprintOptions(text_keep_ratio=0.1, image_keep_ratio=0.1)
    plain = pipe.edit(picture, "make it green", **QUICK)
    assert pipe.edit(picture, "make it green", sprint=everything, **QUICK).codes[0].equal(plain.codes[0])
    assert not pipe.edit(picture, "make it green", sprint=little, **QUICK).codes[0].equal(plain.codes[0])


def test_steps_are_reported(pipe):
    calls = []
    pipe.generate(
        "a cat",
        callback_on_step_end=lambda owner, step, timestep, values: calls.append((owner, step, timestep, values)),
        **QUICK,
    )
    assert [call[1] for call in calls] == list(range(len(calls)))
    assert all(call[0] is pipe for call in calls)
    stages = [call[3]["stage"] for call in calls]
    assert stages == sorted(stages, key=["picture", "decode"].index) and stages.count("decode") == 2
    drawing = [call[3] for call in calls if call[3]["stage"] == "picture"]
    assert isinstance(drawing[0]["state"], StepState)
    unknown = [int((values["grids"][0] == -1).sum()) for values in drawing]
    assert unknown == sorted(unknown, reverse=True) and unknown[-1] == 0


def test_bars_can_be_switched_on_and_off(pipe, capsys):
    pipe.set_progress_bar_config(disable=False)
    pipe.generate("a cat", **QUICK)
    assert "Drawing" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe.generate("a cat", **QUICK)
    assert capsys.readouterr().err == ""


def test_what_is_saved_loads_and_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    saved = unimodal.load(tmp_path / "saved", device="cpu", dtype="float32")
    saved.set_progress_bar_config(disable=True)
    assert saved.settings == pipe.settings
    ours, theirs = (each.generate("a cat", generator=seeded(), **QUICK) for each in (pipe, saved))
    assert ours.codes[0].equal(theirs.codes[0])
    assert pixels(ours.images[0]) == pixels(theirs.images[0])
    picture = ours.images[0]
    assert saved.understand(picture, "what is it?").text == pipe.understand(picture, "what is it?").text


def test_odd_shapes_of_pictures_are_made_to_fit(pipe):
    for size in ((1000, 100), (40, 300), (7, 7)):
        image = Image.new("RGBA", size, (255, 0, 0, 128))
        assert isinstance(pipe.understand(image, "what?", gen_length=2).text, str)
        assert pipe.sizes.for_editing(image).size[0] // pipe.patch_size in pipe.vocab.size_ids


BAD_CALLS = [
    (lambda pipe, picture: pipe.generate(""), "prompt: got ''"),
    (lambda pipe, picture: pipe.generate(["a", " "]), "prompt: got"),
    (lambda pipe, picture: pipe.generate([]), "prompt: got"),
    (lambda pipe, picture: pipe.generate("a", height=250), "height: got 250, allowed are 256"),
    (lambda pipe, picture: pipe.generate("a", width=96), "width: got 96, allowed are 256"),
    (lambda pipe, picture: pipe.generate("a", num_inference_steps=0), "num_inference_steps: got 0"),
    (lambda pipe, picture: pipe.generate("a", num_inference_steps="8"), "num_inference_steps: got '8'"),
    (lambda pipe, picture: pipe.generate("a", guidance_scale=-1.0), "guidance_scale: got -1.0"),
    (lambda pipe, picture: pipe.generate("a", threshold=2.0), "threshold: got 2.0"),
    (lambda pipe, picture: pipe.generate("a", decoder="fast"), "decoder: got 'fast'"),
    (lambda pipe, picture: pipe.generate("a", decoder_steps=0), "^decoder_steps: got 0"),
    (
        lambda pipe, picture: pipe.generate("a", thinking=True, thinking_gen_length=0),
        "^thinking_gen_length: got 0",
    ),
    (lambda pipe, picture: pipe.generate("a", num_images_per_prompt=0), "num_images_per_prompt: got 0"),
    (lambda pipe, picture: pipe.generate("a", generator=[seeded(), seeded()]), "generator: got 2"),
    (lambda pipe, picture: pipe.understand("missing.png", "what?"), "images: there is no file 'missing.png'"),
    (lambda pipe, picture: pipe.understand(__file__, "what?"), "images: .* is not a picture"),
    (lambda pipe, picture: pipe.understand(5, "what?"), "images: got int"),
    (lambda pipe, picture: pipe.understand([], "what?"), "images: got"),
    (lambda pipe, picture: pipe.understand([picture], ["a", "b"]), "images: got"),
    (lambda pipe, picture: pipe.understand(picture, ""), "question: got ''"),
    (lambda pipe, picture: pipe.understand(picture, "what?", prompt_style="loud"), "prompt_style: got 'loud'"),
    (lambda pipe, picture: pipe.understand(picture, "what?", temperature=-1.0), "temperature: got -1.0"),
    (lambda pipe, picture: pipe.edit(picture, " "), "instruction: got ' '"),
    (lambda pipe, picture: pipe.edit(picture, "a", height=256), "height, width: got 256 and None"),
    (lambda pipe, picture: pipe.edit(picture, "a", text_guidance_scale=-2.0), "text_guidance_scale: got -2.0"),
    (lambda pipe, picture: pipe.interleave(""), "prompt: got ''"),
    (lambda pipe, picture: pipe.interleave(["a", "b"], [picture]), r"images: got \[1\] pictures for 2 texts"),
    (lambda pipe, picture: pipe.interleave([]), r"prompt: got \[\]"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_input_is_named(pipe, picture, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(pipe, picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "no such model"}, "no such model"),
        ({"name_or_path": GOLDEN, "device": "abacus"}, "device: 'abacus'"),
        ({"name_or_path": GOLDEN, "dtype": "int8"}, "dtype: got 'int8'"),
        ({"name_or_path": GOLDEN, "dtype": "round"}, "dtype: got 'round'"),
    ],
)
def test_what_cannot_be_loaded_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        unimodal.load(**arguments)


def test_a_checkpoint_states_its_own_settings(tmp_path):
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "config.json",
        "model.safetensors",
    ):
        shutil.copy(GOLDEN / name, tmp_path / name)

    def state(tasks: object) -> Path:
        (tmp_path / "generation_config.json").write_text(json.dumps({"tasks": tasks, "max_length": 5}))
        return tmp_path

    pipe = unimodal.load(state({"generate": {"height": 256, "guidance_scale": 2}}), device="cpu")
    assert pipe.settings.generate.height == 256
    assert pipe.settings.generate.guidance_scale == 2.0
    assert pipe.settings.understand == Settings.published().understand
    for tasks, message in [
        ({"generate": {"hieght": 256}}, r"generation_config.json: tasks.generate.hieght: there is no such setting"),
        ({"generate": {"height": "256"}}, "tasks.generate.height: got '256'"),
        ({"draw": {}}, "tasks.draw: there is no such setting"),
        ({"edit": 3}, "tasks.edit: got 3"),
        (5, "tasks is 5"),
        ([], "tasks is"),
    ]:
        with pytest.raises(ValueError, match=message):
            unimodal.load(state(tasks), device="cpu")
    with pytest.raises(ValueError, match=r"image_tokenizer: the pipeline of .* has none"):
        pipe.understand(Image.new("RGB", (128, 128)), "what?")


def test_dtypes_have_two_names():
    assert unimodal.load(GOLDEN, device="cpu", torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    assert unimodal.load(GOLDEN, device="cpu").dtype == torch.float32
