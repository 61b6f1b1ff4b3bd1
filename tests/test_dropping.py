"""Calls from which samples are dropped while they run, and conversations that share a call."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from PIL import Image
from quick_pipeline import QUICK, gradient, quick_pipeline, seeded

from unimodal.pipeline import Pipeline

STEPWISE = {"threshold": 1.0, "num_inference_steps": 6}


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quick_pipeline()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return gradient()


@pytest.fixture
def rows(pipe: Pipeline) -> Iterator[list[int]]:
    """How many rows the backbone has seen, forward by forward."""
    seen: list[int] = []
    hook = pipe.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


def seeds() -> list[Any]:
    return [seeded(place) for place in range(3)]


def dropping(place: int, stage: str, after: int = 0) -> Any:
    """Drops a sample after some steps of a stage."""
    steps = 0

    def callback(pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> Mapping[str, Any]:
        nonlocal steps
        steps += values["stage"] == stage
        return {**values, "dropped": [place]} if steps > after else values

    return callback


def test_a_picture_that_is_dropped_is_left_out(pipe: Pipeline, rows: list[int]) -> None:
    prompts = ["a cat", "two red dogs", "a boat"]
    settings = {"thinking": True, "temperature": 1.0, "decoder_steps": 2, "num_inference_steps": 4}
    whole = pipe.generate(prompts, generator=seeds(), **settings)
    assert whole.thinking is not None and whole.dropped == []
    for place, stage in ((0, "thinking"), (2, "picture"), (1, "picture")):
        rows.clear()
        drawn = pipe.generate(prompts, generator=seeds(), callback_on_step_end=dropping(place, stage), **settings)
        others = [other for other in range(3) if other != place]
        assert drawn.dropped == [place] and len(drawn.images) == 2
        assert drawn.thinking == [whole.thinking[other] for other in others]
        assert [codes.tolist() for codes in drawn.codes] == [whole.codes[other].tolist() for other in others]
        # Guidance has two branches. Who was dropped while thinking is not drawn at all.
        assert rows[-1] == 4 and (6 in rows) == (stage == "picture")


def test_an_answer_that_is_dropped_is_left_out(pipe: Pipeline, picture: Image.Image, rows: list[int]) -> None:
    asked = [picture] * 3, ["what?", "is it dark or is it bright?", "how many?"]
    whole = pipe.understand(*asked, generator=seeds(), **STEPWISE)
    rows.clear()
    answered = pipe.understand(*asked, generator=seeds(), callback_on_step_end=dropping(1, "text", after=1), **STEPWISE)
    assert answered.dropped == [1] and answered.texts == [whole.texts[0], whole.texts[2]]
    assert [row.tolist() for row in answered.tokens] == [whole.tokens[0].tolist(), whole.tokens[2].tolist()]
    assert answered.stats.tokens == sum(map(len, answered.tokens))
    assert 3 in rows and rows[-1] <= 2


def test_an_edit_that_is_dropped_is_left_out(pipe: Pipeline, picture: Image.Image) -> None:
    mask = Image.new("L", picture.size)
    mask.paste(255, (0, 0, 128, 256))
    asked: tuple[Any, Any] = [picture] * 3, ["green", "blue", "red"]
    settings = {"mask_image": [None, mask, mask], "num_inference_steps": 4, "threshold": 1.0, "decoder_steps": 2}
    whole = pipe.edit(*asked, generator=seeds(), **settings)
    edited = pipe.edit(*asked, generator=seeds(), callback_on_step_end=dropping(0, "picture"), **settings)
    assert edited.dropped == [0] and len(edited.images) == 2
    assert [codes.tolist() for codes in edited.codes] == [codes.tolist() for codes in whole.codes[1:]]
    assert edited.stats.tokens == sum(int(mask is not None) for mask in settings["mask_image"][1:]) * 32


def test_a_text_with_gaps_that_is_dropped_is_left_out(pipe: Pipeline) -> None:
    texts = ["a <gap:2> cat", "the <gap:5> was very <gap:4> that day", "a <gap:3> dog"]
    whole = pipe.infill(texts, generator=seeds(), **STEPWISE)
    for place in range(3):
        filled = pipe.infill(texts, generator=seeds(), callback_on_step_end=dropping(place, "text"), **STEPWISE)
        # A group of one text may be done before it is dropped; it is left out all the same.
        assert filled.dropped == [place]
        assert filled.texts == [text for other, text in enumerate(whole.texts) if other != place]


def test_who_drops_everything_gets_nothing(pipe: Pipeline, picture: Image.Image, rows: list[int]) -> None:
    drawn = pipe.generate("a cat", callback_on_step_end=dropping(0, "picture"), **QUICK)
    assert (drawn.images, drawn.codes, drawn.dropped, len(rows)) == ([], [], [0], 1)
    answered = pipe.understand(picture, "what?", callback_on_step_end=dropping(0, "text"), **STEPWISE)
    assert (answered.texts, answered.tokens, answered.dropped) == ([], [], [0])


def test_what_cannot_be_dropped_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(ValueError, match=r"callback_on_step_end: it dropped \[1\], the call has samples 0 to 0"):
        pipe.generate("a cat", callback_on_step_end=dropping(1, "picture"), **QUICK)
    with pytest.raises(ValueError, match="callback_on_step_end: it dropped the only sample"):
        pipe.interleave("a story", callback_on_step_end=dropping(0, "text"))


def test_conversations_share_a_call(pipe: Pipeline, picture: Image.Image) -> None:
    shown = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]}
    said = {"role": "assistant", "content": "a cat"}
    talks: list[Any] = [
        [shown],
        [{"role": "system", "content": "Be brief."}, shown, said, {"role": "user", "content": "and where is it?"}],
        [{"role": "user", "content": "hello"}],
    ]
    settings = {"temperature": 1.0, "gen_length": 20, **STEPWISE}
    alone = [pipe.chat(talk, generator=source, **settings).text for talk, source in zip(talks, seeds(), strict=True)]
    together = pipe.chat_batch(talks, generator=seeds(), **settings)
    assert together.texts == alone and len(set(alone)) == 3
    dropped = pipe.chat_batch(talks, generator=seeds(), callback_on_step_end=dropping(0, "text"), **settings)
    assert dropped.dropped == [0] and dropped.texts == alone[1:]
    with pytest.raises(ValueError, match="conversations: got none"):
        pipe.chat_batch([])
