"""Conversations: what is asked equals the single jobs, what is streamed equals what is returned."""

from typing import Any

import pytest
import torch
from PIL import Image
from quick_pipeline import ScriptedWriter, gradient, quick_pipeline, seeded

from unimodal.messages import read_messages
from unimodal.pipeline import Pipeline
from unimodal.results import ChatEnd, ChatPicture, ChatStep, ChatText, Stats
from unimodal.sequence import INTERLEAVE, UNDERSTAND, Turn
from unimodal.writer import Writer

TALE = {"modalities": ["text", "image"], "decoder_steps": 2}


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quick_pipeline(
        understand={"gen_length": 40, "block_length": 8}, interleave={"gen_length": 24, "block_length": 8}
    )


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return gradient()


def asks(*parts: Any) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in parts
        ],
    }


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def asked(pipe, monkeypatch):
    def listen(answers: list[list[int]] | None = None) -> ScriptedWriter:
        writer = ScriptedWriter(pipe, answers)
        monkeypatch.setattr(Pipeline, "writer", property(lambda self: writer))
        return writer

    return listen


def test_one_question_is_that_of_understand(pipe, picture, asked):
    writer = asked()
    single = pipe.understand([picture, picture.rotate(90)], "what is this?")
    answer = pipe.chat([asks(picture, picture.rotate(90), "what is this?")])
    assert writer.prompts[0] == writer.prompts[1]
    assert answer.text == single.text
    assert answer.stats.tokens == len(single.tokens[0])
    assert answer.images == [] and answer.message == {"role": "assistant", "content": single.text}
    assert pipe.chat([asks("what is this?", picture, picture.rotate(90))]).text == single.text


def test_one_request_is_that_of_interleave(pipe, picture, asked):
    writer = asked()
    single = pipe.interleave("tell a story", [picture], generator=seeded(), temperature=1.0, decoder_steps=2)
    answer = pipe.chat([asks(picture, "tell a story")], generator=seeded(), temperature=1.0, **TALE)
    assert writer.prompts[0] == writer.prompts[len(writer.prompts) // 2]
    assert answer.finish_reason == single.finish_reason
    assert answer.text == single.text
    assert [codes.tolist() for codes in answer.codes] == [codes.tolist() for codes in single.codes]


def test_turns_are_told_in_order(pipe, picture, asked):
    writer = asked()
    messages = [
        {"role": "system", "content": "Be brief."},
        asks(picture, "what is this?"),
        says("a red cat"),
        asks("is it large?"),
    ]
    pipe.chat(messages)
    [small] = pipe.sizes.for_understanding([picture])
    codes = pipe._encode(small, Stats())
    turns = [
        Turn(role="user", parts=[codes, "what is this?"]),
        Turn(role="assistant", parts=["a red cat"]),
        Turn(role="user", parts=["is it large?"]),
    ]
    assert writer.prompts == [pipe.sequences.conversation(f"{UNDERSTAND} Be brief.", turns).prompt]
    assert messages == [{"role": "system", "content": "Be brief."}, messages[1], says("a red cat"), messages[3]]


def test_text_alone_goes_in_the_tokenizers_template(pipe, asked, monkeypatch):
    writer = asked()
    pipe.chat([asks("hello")])
    assert writer.prompts[0] == pipe.sequences.chat(UNDERSTAND, pipe.sequences.text("hello"))
    monkeypatch.setattr(pipe.text_tokenizer.library, "chat_template", "{{ messages[0].content }}: ")
    pipe.chat([asks("hello")])
    assert writer.prompts[1] == pipe.sequences.text("hello: ")


def test_pictures_of_the_answer_keep_their_codes_in_the_next_turn(pipe, asked):
    sequences = pipe.sequences
    once, then = sequences.text("once upon a time"), sequences.text("the end")
    first_answers = [[*once, *sequences.header(8, 10)], [*then, pipe.vocab.eos_id]]
    writer = asked([*first_answers, [*then, *sequences.header(8, 8)], [pipe.vocab.eos_id]])
    question = asks("tell a story")
    first = pipe.chat([question], **TALE)
    assert [type(segment) for segment in first.segments] == [str, Image.Image, str]
    assert first.segments[::2] == ["once upon a time", "the end"]
    assert (first.text, first.finish_reason) == ("once upon a time\nthe end", "stop")
    assert [image.size for image in first.images] == [(320, 256)]
    second = pipe.chat([question, first.message, asks("go on")], **TALE)
    told = sequences.conversation(
        INTERLEAVE,
        [
            Turn(role="user", parts=["tell a story"]),
            Turn(role="assistant", parts=["once upon a time", first.codes[0], "the end"]),
            Turn(role="user", parts=["go on"]),
        ],
    )
    assert writer.prompts[2] == told.prompt
    assert writer.branches[1] == sequences.interleaved_picture(told, then, 8, 8)
    assert len(writer.branches[0].others) == 1 and len(writer.branches[1].others) == 2
    assert len(second.images) == 1
    assert set(second.stats.seconds) == {"picture", "decode"}, "nothing had to be encoded"


def test_what_is_streamed_is_what_is_returned(pipe, picture):
    messages = [asks(picture, "what is this?")]
    events = list(pipe.stream_chat(messages))
    assert isinstance(events[-1], ChatEnd) and sum(isinstance(event, ChatEnd) for event in events) == 1
    output = pipe.chat(messages)
    assert events[-1].output.text == output.text == "".join(e.text for e in events if isinstance(e, ChatText))
    steps = [event for event in events if isinstance(event, ChatStep)]
    assert len(steps) == output.stats.forwards and steps[0].values["stage"] == "text"
    pieces = [place for place, event in enumerate(events) if isinstance(event, ChatText)]
    assert len(pieces) > 1, "blocks are given as they are settled"
    assert isinstance(events[pieces[0] + 1], ChatStep)


def test_a_text_is_streamed_without_the_header_of_its_picture(pipe, monkeypatch):
    sequences = pipe.sequences
    script = [*sequences.text("once upon a time "), *sequences.header(8, 8)]
    real = Writer.text_steps

    def scripted(self, prompts, options, length, **settings):
        """The model's steps, with a story in the place of its tokens."""
        steps, calls = real(self, prompts, options, len(script), **settings), scripted.calls
        scripted.calls += 1
        if calls:
            return [torch.tensor([pipe.vocab.eos_id])]
        while True:
            try:
                step = next(steps)
            except StopIteration:
                return [torch.tensor(script)]
            sample = step.state.samples[0]
            sample.tokens.copy_(torch.tensor(script)[: len(sample.tokens)])
            yield step

    scripted.calls = 0
    monkeypatch.setattr(Writer, "text_steps", scripted)
    events = [e for e in pipe.stream_chat([asks("tell")], **TALE) if not isinstance(e, ChatStep)]
    output = events[-1].output
    assert output.segments[0] == "once upon a time"
    assert "".join(e.text for e in events if isinstance(e, ChatText)) == "once upon a time"
    [drawn] = [e for e in events if isinstance(e, ChatPicture)]
    assert drawn.segment == 1 and drawn.image is output.segments[1] and drawn.codes is output.codes[0]


def test_whoever_stops_listening_stops_the_work(pipe, picture):
    steps = []
    events = pipe.stream_chat(
        [asks(picture, "what?")], callback_on_step_end=lambda *arguments: steps.append(arguments[1])
    )
    next(events)
    events.close()
    assert steps == [0]


def test_arguments_are_checked_before_the_first_event(pipe):
    with pytest.raises(ValueError, match="modalities"):
        pipe.stream_chat([asks("hi")], modalities=["sound"])


BAD = [
    ("hello", "messages: got 'hello'"),
    ([], "messages: got"),
    (["hello"], r"messages\[0\]: got 'hello'"),
    ([{"role": "user"}], r"messages\[0\]: got"),
    ([{"role": "robot", "content": "a"}], r"messages\[0\].role: got 'robot', allowed are system, user, assistant"),
    ([{"role": "user", "content": 5}], r"messages\[0\].content: got 5"),
    ([{"role": "user", "content": " "}], r"messages\[0\].content: it is empty"),
    ([{"role": "user", "content": [{"type": "sound"}]}], r"messages\[0\].content\[0\]: got"),
    ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].content\[0\].text: got None"),
    ([{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}], "there is no key 'b'"),
    ([{"role": "user", "content": [{"type": "image"}]}], r"messages\[0\].content\[0\].image: got NoneType"),
    ([{"role": "user", "content": [{"type": "image", "image": "no.png"}]}], "there is no file 'no.png'"),
    ([{"role": "user", "content": [{"type": "image", "codes": [[0.5]]}]}], r"codes: got torch.float32 \[1, 1\]"),
    ([{"role": "user", "content": [{"type": "image", "codes": [[1], [1, 2]]}]}], r"content\[0\].codes: got"),
    ([{"role": "user", "content": [{"type": "image", "codes": [[10**6] * 8] * 8}]}], "codes: got 1000000"),
    ([{"role": "user", "content": [{"type": "image", "codes": [[1] * 3] * 8}]}], "side: got 3"),
    ([says("hi")], "messages: got the roles"),
    ([asks("hi"), says("hi")], "messages: got the roles"),
    ([asks("hi"), {"role": "system", "content": "be kind"}], r"messages\[1\]: a system message is the first"),
]


@pytest.mark.parametrize(("messages", "error"), BAD)
def test_bad_conversations_are_named(pipe, messages, error):
    with pytest.raises(ValueError, match=error) as caught:
        pipe.chat(messages)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"modalities": "text"}, "modalities: got 'text'"),
        ({"modalities": ["image"]}, "modalities: got"),
        ({"max_images": 2}, "max_images: got 2, it needs 'image' in modalities"),
        ({"decoder": "turbo"}, "decoder: got 'turbo', it needs 'image' in modalities"),
        ({"gen_length": 0}, "gen_length: got 0"),
        ({"gen_length": 4090}, "messages, gen_length: the prompt has .* tokens and 4090 more"),
    ],
)
def test_bad_options_are_named(pipe, options, error):
    with pytest.raises(ValueError, match=error):
        pipe.chat([asks("hi")], **options)


def test_unknown_options_are_refused_by_name(pipe):
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        pipe.chat([asks("hi")], steps=3)


def test_messages_keep_the_order_of_their_parts(picture):
    system, [message] = read_messages([{"role": "system", "content": "a"}, asks("b", picture, " ", "c")])
    assert system == "a"
    assert message.parts == ["b", picture, "c"]
