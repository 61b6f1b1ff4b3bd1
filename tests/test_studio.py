"""The studio without a browser: frames, runs in a line, recordings, inputs, markup."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from gradio.blocks import BlockContext
from PIL import Image, ImageSequence
from quick_pipeline import quiet_pipeline, seeded

from unimodal import Pipeline
from unimodal.diffusion.sprint import SprintOptions
from unimodal.diffusion.traces import Trace
from unimodal_apps.metadata import read_record
from unimodal_apps.reproduction import redraw
from unimodal_apps.requests import Request, as_called
from unimodal_apps.studio import inputs, markup
from unimodal_apps.studio.drawing import code_colors, draw_codes
from unimodal_apps.studio.frames import UNDECIDED, Frame, PicturePanel, Recorder, TextPanel
from unimodal_apps.studio.page import build_page
from unimodal_apps.studio.parameters import POLICY, SPRINT, STEPS, THRESHOLD, TOP_K, TOP_P, Parameters
from unimodal_apps.studio.recording import Recording
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.runner import MOST_WAITING, Job, Runner
from unimodal_apps.studio.studio import Studio
from unimodal_apps.studio.words import Words

QUICK: dict[str, Any] = {"height": 256, "width": 256, "num_inference_steps": 4, "block_length": 16, "decoder_steps": 2}
PATIENCE = 60


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quiet_pipeline()


@pytest.fixture
def studio(pipe: Pipeline) -> Iterator[Studio]:
    studio = Studio(pipe, "uni_a")
    yield studio
    studio.close()


@pytest.fixture
def runner(pipe: Pipeline) -> Iterator[Runner]:
    runner = Runner(pipe)
    yield runner
    runner.close()


def in_a_loop(make: Callable[[], Any]) -> Any:
    """Gradio's blocks begin an event loop where none runs, and leave it open."""

    async def made() -> Any:
        return make()

    return asyncio.run(made())


@pytest.fixture(scope="module")
def drawn(pipe: Pipeline) -> tuple[Recorder, list[Frame], Any]:
    """The frames of two pictures that are drawn together after thoughts, and what the pipeline returned."""
    frames: list[Frame] = []
    options = {**QUICK, "thinking_gen_length": 8, "num_images_per_prompt": 2, "temperature": 1.0}
    recorder = Recorder(pipe, frames.append)
    found = pipe.generate("a cat", thinking=True, generator=seeded(), callback_on_step_end=recorder, **options)
    return recorder, frames, found


def record(pipe: Pipeline, recorder: Recorder, frames: list[Frame], **facts: Any) -> Recording:
    colors = code_colors(pipe.decoder.conditioner.prior_token_embedding.weight)
    return Recording(
        name="run",
        facts=facts,
        stats={"forwards": 1},
        frames=frames,
        written=recorder.trace,
        words=Words(pipe),
        colors=colors,
    )


def test_frames_end_with_what_the_pipeline_returned(drawn: tuple[Recorder, list[Frame], Any]) -> None:
    _, frames, found = drawn
    last = frames[-1]
    assert [type(panel) for panel in last.panels] == [TextPanel, TextPanel, PicturePanel, PicturePanel]
    assert [frame.stage for frame in frames][:: len(frames) - 1] == ["thinking", "decode"]
    for panel, codes, image in zip(last.panels[2:], found.codes, found.images, strict=True):
        assert isinstance(panel, PicturePanel) and panel.pixels is not None and panel.decoded == (2, 2)
        assert np.array_equal(panel.codes, codes.numpy())
        assert np.array_equal(np.asarray(panel.pixels), np.asarray(image))
    assert last.forwards == found.stats.forwards
    assert [frame.number for frame in frames] == list(range(len(frames)))


def test_every_frame_adds_what_is_fresh_in_it(drawn: tuple[Recorder, list[Frame], Any]) -> None:
    _, frames, _ = drawn
    for before, after in pairwise(frames):
        if after.stage != before.stage or after.stage == "decode":
            continue
        for old, new in zip(before.panels[-2:], after.panels[-2:], strict=True):
            if isinstance(old, PicturePanel) and isinstance(new, PicturePanel):
                settled = (old.codes == UNDECIDED) & (new.codes != UNDECIDED)
                assert np.array_equal(settled, new.fresh)
                assert np.array_equal(np.isnan(old.confidence) & ~np.isnan(new.confidence), new.fresh)
                assert np.array_equal(old.codes[~new.fresh], new.codes[~new.fresh])
        assert after.done > before.done and after.decided > before.decided
    assert not any(panel.fresh.any() for panel in frames[-1].panels)


def test_a_text_shows_its_masks_and_its_result(pipe: Pipeline, golden: Path) -> None:
    frames: list[Frame] = []
    picture = golden / "uni_a" / "images" / "image_0.png"
    answer = pipe.understand(
        picture, "what?", gen_length=16, num_inference_steps=4, callback_on_step_end=Recorder(pipe, frames.append)
    )
    [panel] = frames[-1].panels
    assert isinstance(panel, TextPanel) and np.array_equal(panel.ids, answer.tokens[0].numpy())
    assert Words(pipe).text(panel.ids).strip() == answer.text
    [first] = frames[0].panels
    assert isinstance(first, TextPanel)
    shown, _, _ = "".join(markup.render_frame(frames[0], Words(pipe), None)).partition("uni-legend")
    assert shown.count('<i class="m">') == (first.ids == UNDECIDED).sum() > 0
    # Of several ends in a row one is shown.
    assert 0 < shown.count(" new") <= first.fresh.sum()


def test_watching_changes_no_pixel(pipe: Pipeline) -> None:
    plain = pipe.generate("a cat", generator=seeded(3), **QUICK)
    watched = pipe.generate(
        "a cat", generator=seeded(3), callback_on_step_end=Recorder(pipe, lambda frame: None), **QUICK
    )
    assert np.array_equal(np.asarray(plain.images[0]), np.asarray(watched.images[0]))


def test_markup_escapes_what_users_and_models_write() -> None:
    evil = "<script>alert(1)</script>"
    for page in (
        markup.render_answer(evil),
        markup.render_story([evil, Image.new("RGB", (2, 2)), evil]),
        markup.render_notice(evil, evil),
        markup.render_facts({evil: evil}),
        markup.render_idle(evil, evil),
    ):
        assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(("probability", "level"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.9, 3), (0.95, 4), (1.0, 4)])
def test_confidence_has_five_levels(probability: float, level: int) -> None:
    assert markup.confidence_level(probability) == level
    assert markup.confidence_level(float("nan")) is None


def test_characters_of_several_tokens_are_shown_once_they_are_whole(pipe: Pipeline) -> None:
    words = Words(pipe)
    ids = np.array(pipe.text_tokenizer.encode("a 漢 b"))
    assert len(ids) > 5
    assert "".join(piece.text or "" for piece in words.pieces(ids)) == "a 漢 b"
    some = ids.copy()
    some[-3] = UNDECIDED
    assert [piece.text for piece in words.pieces(some)].count(None) == 1
    [end] = words.pieces(np.array([pipe.vocab.eos_id]))
    assert end.special and end.text == "end"


def test_alike_codes_have_alike_colors() -> None:
    source = seeded()
    centers = torch.randn(4, 16, generator=source) * 5
    embedding = (centers[:, None] + 0.01 * torch.randn(4, 20, 16, generator=source)).reshape(80, 16)
    colors = code_colors(embedding).astype(int).reshape(4, 20, 3)
    within = np.abs(colors[:, :10] - colors[:, 10:]).mean()
    between = np.abs(colors[:2] - colors[2:]).mean()
    assert between > 2 * within
    assert np.array_equal(code_colors(embedding), code_colors(embedding))


def test_undecided_codes_are_hatched_and_fresh_ones_framed() -> None:
    colors = np.array([[10, 20, 30], [200, 100, 50]], dtype=np.uint8)
    codes = np.array([[0, 1], [UNDECIDED, 1]])
    fresh = np.array([[False, True], [False, False]])
    picture = np.asarray(draw_codes(codes, fresh, colors))
    side = picture.shape[0] // 2
    middle = [picture[row * side + side // 2, column * side + side // 2] for row in (0, 1) for column in (0, 1)]
    assert middle[0].tolist() == [10, 20, 30, 255] and middle[1].tolist() == middle[3].tolist() == [200, 100, 50, 255]
    hatched = picture[side:, :side, 3]
    assert 0 < (hatched > 0).mean() < 0.5 and hatched.max() < 255
    white = (picture[..., :3] == 255).all(axis=-1) & (picture[..., 3] == 255)
    assert white[:side, side:].any() and not white[:side, :side].any() and not white[side:, side:].any()


def test_a_trace_plays_the_run_again(pipe: Pipeline, drawn: tuple[Recorder, list[Frame], Any], tmp_path: Path) -> None:
    recorder, frames, found = drawn
    trace = Trace.load(record(pipe, recorder, frames, task="generate", seed=0).save_trace(tmp_path))
    assert trace.facts["task"] == "generate" and trace.facts["stats"] == {"forwards": 1}
    assert [part.stage for part in trace.parts] == ["thinking", "picture"]
    for codes, kept, tokens in zip(found.codes, trace.codes, trace.parts[1].tokens(), strict=True):
        assert torch.equal(kept, codes)
        assert torch.equal(pipe.vocab.tokens_to_codes(tokens), codes.flatten())


def test_an_animation_has_a_frame_for_every_step(
    pipe: Pipeline, drawn: tuple[Recorder, list[Frame], Any], tmp_path: Path
) -> None:
    recorder, frames, _ = drawn
    path = record(pipe, recorder, frames, prompt="a cat " * 40).save_animation(tmp_path)
    with Image.open(path) as animation:
        pages = [page.convert("RGB") for page in ImageSequence.Iterator(animation)]
    # Steps that look the same are one frame of a GIF.
    assert len(frames) // 2 < len(pages) <= len(frames)
    assert not np.array_equal(np.asarray(pages[0]), np.asarray(pages[-1]))


def test_runs_wait_in_line_and_keep_their_results_apart(runner: Runner) -> None:
    gate, order = threading.Event(), []

    def call(name: str) -> Any:
        def made(pipe: Pipeline, recorder: Recorder) -> str:
            assert gate.wait(PATIENCE)
            order.append(name)
            return f"for {name}"

        return made

    jobs = {name: runner.submit(name, Job(call(name))) for name in ("ann", "bob", "cleo")}
    assert [runner.ahead(jobs[name]) for name in jobs] == [0, 1, 2]
    gate.set()
    for name, job in jobs.items():
        assert list(job.follow())[-1:] in ([], [None])
        assert job.state == "finished" and job.result == f"for {name}"
    assert order == ["ann", "bob", "cleo"]


def test_a_failed_run_leaves_the_next_one_alone(runner: Runner) -> None:
    def fail(pipe: Pipeline, recorder: Recorder) -> None:
        raise ValueError("no such thing")

    first, second = runner.submit("ann", Job(fail)), runner.submit("bob", Job(lambda pipe, recorder: 7))
    assert not [frame for job in (first, second) for frame in job.follow() if frame is not None]
    assert first.state == "failed" and str(first.error) == "no such thing"
    assert second.state == "finished" and second.result == 7


def test_a_run_stops_at_its_next_step(runner: Runner) -> None:
    def call(pipe: Pipeline, recorder: Recorder) -> Any:
        def watch(*step: Any) -> None:
            if step[1] == 2:
                job.stop()
            recorder(*step)

        return pipe.generate("a cat", callback_on_step_end=watch, **QUICK)

    job = Job(call)
    runner.submit("ann", job)
    list(job.follow())
    assert job.state == "stopped" and job.result is None and len(job.frames) == 3


def test_a_run_that_waits_can_be_stopped_before_it_begins(runner: Runner) -> None:
    gate, made = threading.Event(), []
    first = runner.submit("ann", Job(lambda pipe, recorder: gate.wait(PATIENCE)))
    second = runner.submit("bob", Job(lambda pipe, recorder: made.append("bob")))
    runner.stop(lambda owner: owner == "bob")
    assert [frame for frame in second.follow() if frame] == [] and second.state == "stopped"
    gate.set()
    list(first.follow())
    assert first.state == "finished" and made == []


def test_a_new_run_of_the_same_owner_replaces_the_old_one(runner: Runner) -> None:
    gate = threading.Event()
    runner.submit("other", Job(lambda pipe, recorder: gate.wait(PATIENCE)))
    old = runner.submit("ann", Job(lambda pipe, recorder: "old"))
    new = runner.submit("ann", Job(lambda pipe, recorder: "new"))
    gate.set()
    list(new.follow())
    assert old.state == "stopped" and new.result == "new"


def test_the_line_has_an_end(runner: Runner) -> None:
    gate = threading.Event()
    for number in range(MOST_WAITING):
        runner.submit(number, Job(lambda pipe, recorder: gate.wait(PATIENCE)))
    with pytest.raises(ValueError, match="waiting"):
        runner.submit("one more", Job(lambda pipe, recorder: None))
    gate.set()


def test_followers_see_every_frame_if_there_is_a_pause_between_them(pipe: Pipeline) -> None:
    def call(pipe: Pipeline, recorder: Recorder) -> Any:
        return pipe.generate("a cat", callback_on_step_end=recorder, **QUICK)

    slow, fast = Job(call, pause=0.001), Job(call)
    for job in (slow, fast):
        job.run(pipe)
    assert [frame.number for frame in slow.follow() if frame] == list(range(len(slow.frames)))
    assert [frame.number for frame in fast.follow() if frame] == [len(fast.frames) - 1]


def test_a_request_draws_what_python_draws_and_its_file_says_how(studio: Studio, pipe: Pipeline) -> None:
    work = requested(studio, Request(task="generate", text="a cat", seed=5, count=2, arguments=QUICK))
    outcome = work.call(pipe, Recorder(pipe, lambda frame: None))
    plain = pipe.generate("a cat", num_images_per_prompt=2, generator=seeded(5), **QUICK)
    paths = saved_pictures(studio, work, outcome.value.images)
    for number, (path, image) in enumerate(zip(paths, plain.images, strict=True)):
        with Image.open(path) as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(image))
        made = read_record(path)
        assert (made.prompt, made.seed, made.index, made.count) == ("a cat", 5, number, 2)
        assert made.arguments == QUICK
    facts = studio.facts(outcome.stats, 5)
    assert facts["Seed"] == "5" and facts["Forwards"] == str(outcome.stats.forwards) and "Peak memory" in facts


def test_uploads_that_are_no_pictures_are_named_without_their_place(tmp_path: Path, golden: Path) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no picture")
    with pytest.raises(ValueError, match=r"“notes\.png” cannot be read") as told:
        inputs.read_uploads([(str(broken), None)])
    assert str(tmp_path) not in str(told.value)
    good = golden / "uni_a" / "images" / "image_0.png"
    [source] = inputs.read_uploads([(str(good), None)])
    with Image.open(good) as picture:
        assert source.path is None and source.load().size == picture.size
    assert inputs.read_uploads(None) == ()


def test_seeds_are_whole_numbers() -> None:
    assert inputs.read_seed(False, 7.0) == 7
    assert 0 <= inputs.read_seed(True, 7.0) < 2**31
    for bad in (-1, 0.5, 2.0**64):
        with pytest.raises(ValueError, match="seed"):
            inputs.read_seed(False, bad)
    with pytest.raises(ValueError, match="prompt is empty"):
        inputs.needed(" ", "The prompt")


def test_all_sizes_on_offer_can_be_drawn(pipe: Pipeline) -> None:
    sizes = inputs.sizes_on_offer(pipe)
    own = pipe.settings.generate
    assert next(iter(sizes.values())) == (own.height, own.width)
    assert len(set(sizes.values())) == len(sizes) > 1
    for height, width in sizes.values():
        rows, columns = pipe.sizes.grid(height, width)
        assert abs(rows / columns - height / width) < 0.01


def test_what_is_painted_over_a_picture_is_its_mask(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "blue").save(tmp_path / "picture.png")
    strokes = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    strokes.save(tmp_path / "nothing.png")
    strokes.paste((200, 90, 40, 120), (2, 1, 5, 4))
    strokes.save(tmp_path / "strokes.png")
    parts = [(str(tmp_path / name), None) for name in ("picture.png", "nothing.png", "strokes.png")]
    [picture], mask = inputs.read_canvas(parts[:2])
    assert picture.load().size == (8, 6) and mask is None
    _, mask = inputs.read_canvas([parts[0], parts[2]])
    assert mask is not None
    painted = np.asarray(mask.load())
    assert painted[1:4, 2:5].min() == 255 and painted.sum() == 255 * 9
    assert inputs.read_canvas(None) == ((), None)


def test_what_fills_gaps_is_marked_in_order() -> None:
    page = markup.render_filled("a red car and a red <b>", ["red", "", "red"])
    assert page == '<div class="uni-answer">a <mark>red</mark> car and a <mark>red</mark> &lt;b&gt;</div>'


def test_presets_come_first_and_only_what_differs_is_stated(pipe: Pipeline) -> None:
    def build() -> tuple[gr.Blocks, Parameters]:
        with gr.Blocks(analytics_enabled=False) as page:
            return page, Parameters((STEPS, THRESHOLD, TOP_P), pipe.settings.generate)

    page, parameters = in_a_loop(build)
    labels = [block.label for block in page.blocks.values() if isinstance(block, gr.Dropdown | gr.Slider)]
    assert labels == ["Preset", "Steps per block", "Threshold", "Top p"]
    own = pipe.settings.generate

    def stated(*values: float | None) -> dict[str, Any]:
        return parameters.stated(dict(zip(parameters.components, values, strict=True)))

    assert own.top_p is None and stated(own.num_inference_steps, own.threshold, 1) == {}
    assert stated(3.0, own.threshold, 0.5) == {"num_inference_steps": 3, "top_p": 0.5}
    fast = own.but(preset="fast")
    assert parameters.preset("Fast") == [fast.num_inference_steps, fast.threshold, 1]


def test_a_limit_of_the_checkpoint_can_be_lifted(pipe: Pipeline) -> None:
    def build() -> Parameters:
        with gr.Blocks(analytics_enabled=False):
            return Parameters((TOP_K, TOP_P), pipe.settings.generate.but(top_k=5, top_p=0.5))

    parameters = in_a_loop(build)
    assert parameters.stated(dict(zip(parameters.components, (5, 0.5), strict=True))) == {}
    lifted = parameters.stated(dict(zip(parameters.components, (0, 1), strict=True)))
    assert lifted["top_p"] == 1 and lifted["top_k"] >= pipe.vocab.image_range[1]
    pipe.settings.generate.but(**lifted)


def test_a_page_has_a_tab_for_every_job(studio: Studio) -> None:
    page = in_a_loop(lambda: build_page(studio))
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert tabs == ["Chat", "Understand", "Create", "Edit", "Interleaved story", "Infill"]
    # Presets are the first thing in every accordion of parameters, which are closed.
    accordions = [
        block for block in page.blocks.values() if isinstance(block, gr.Accordion) and block.label == "Parameters"
    ]
    assert len(accordions) == len(tabs)
    for accordion in accordions:
        assert not accordion.open
        form = accordion.children[0]
        first = form.children[0] if isinstance(form, BlockContext) else form
        assert isinstance(first, gr.Dropdown) and first.label == "Preset"


def test_little_memory_means_that_parts_are_read_again() -> None:
    pipe = quiet_pipeline()
    studio = Studio(pipe, "uni_a", low_memory=True)
    decoder = pipe.decoder
    job = studio.runner.submit("ann", Job(lambda pipe, recorder: pipe.decoder))
    list(job.follow())
    studio.close()
    assert job.result is decoder and pipe.decoder is not decoder


def test_a_studio_leaves_no_files(pipe: Pipeline) -> None:
    studio = Studio(pipe, "uni_a")
    folder = studio.new_folder()
    assert folder.is_dir()
    studio.close()
    assert not folder.exists()


def test_what_stays_the_same_is_sent_once(pipe: Pipeline, drawn: tuple[Recorder, list[Frame], Any]) -> None:
    recorder, frames, _ = drawn
    recording = record(pipe, recorder, frames)
    decoding = [number for number, frame in enumerate(frames) if frame.stage == "decode"]
    before, after = (recording.markup(number) for number in decoding[:2])
    assert len(before) == len(after)
    kept = [piece for piece, other in zip(before, after, strict=True) if piece == other]
    # While pixels are decoded, the thoughts and both grids of codes are as they were.
    assert sum('class="codes"' in piece for piece in kept) == 2
    assert any('class="uni-text"' in piece for piece in kept)
    changed = sum(len(piece) for piece, other in zip(after, before, strict=True) if piece != other)
    assert changed < len("".join(after))


def test_only_policies_that_suit_a_task_are_offered_with_their_own_options(pipe: Pipeline) -> None:
    def build() -> Parameters:
        with gr.Blocks(analytics_enabled=False):
            return Parameters((POLICY, STEPS, THRESHOLD, SPRINT), pipe.settings.understand)

    parameters = in_a_loop(build)
    policy, *_ = parameters.components
    offered = {value for _, value in policy.choices}
    assert {"quota", "threshold", "adaptive"} <= offered and "cosine" not in offered
    assert [update["visible"] for update in parameters.fitting("threshold")] == [False, True]

    def stated(*values: Any) -> dict[str, Any]:
        return parameters.stated(dict(zip(parameters.components, values, strict=True)))

    own = pipe.settings.understand
    # Steps are no option of this policy, so the field is out of sight and its value does not count.
    assert stated("threshold", 3, own.threshold, "off") == {"policy": "threshold"}
    chosen = stated(own.policy, own.num_inference_steps, own.threshold, "half")
    assert chosen == {"sprint": {**asdict(SprintOptions()), "text_keep_ratio": 0.5, "image_keep_ratio": 0.5}}


def test_sprint_is_what_python_takes_and_what_a_record_holds(studio: Studio, pipe: Pipeline) -> None:
    pruned = SprintOptions(text_keep_ratio=0.5, image_keep_ratio=0.5)
    arguments = {**QUICK, "sprint": asdict(pruned)}
    work = requested(studio, Request(task="generate", text="a cat", seed=5, arguments=arguments))
    outcome = work.call(pipe, Recorder(pipe, lambda frame: None))
    plain = pipe.generate("a cat", generator=seeded(5), sprint=pruned, **QUICK)
    assert np.array_equal(np.asarray(outcome.value.images[0]), np.asarray(plain.images[0]))
    [path] = saved_pictures(studio, work, outcome.value.images)
    made = read_record(path)
    assert made.arguments == arguments
    assert np.array_equal(np.asarray(redraw(pipe, made, ())), np.asarray(plain.images[0]))
    with pytest.raises(ValueError, match=r"sprint.*keep_all.*image_keep_ratio"):
        as_called({"sprint": {"keep_all": True}})
