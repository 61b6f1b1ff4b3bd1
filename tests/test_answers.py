"""Answers of several parts: stories that go from text to pictures and back, and thoughts before a picture."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from quick_pipeline import QUICK, ScriptedWriter, gradient, quick_pipeline, seeded

from unimodal.answers import InterleavedAnswer, InterleavedAnswers
from unimodal.pipeline import Pipeline
from unimodal.results import Stats
from unimodal.sequence import INTERLEAVE, Turn
from unimodal.writer import Writer, WritingStep


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quick_pipeline(interleave={"image_guidance_scale": 1.5})


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return gradient()


def story(pipe, *answers, **changes):
    writer = ScriptedWriter(pipe, list(answers))
    opening = pipe.sequences.conversation(INTERLEAVE, [Turn(role="user", parts=["tell a story"])])
    teller = InterleavedAnswer(writer, opening, pipe.settings.interleave.but(**changes), stats=Stats())
    return writer, [part for part in teller if not isinstance(part, WritingStep)], teller.finish_reason


def test_a_story_goes_from_text_to_pictures_and_back(pipe):
    sequences, eos = pipe.sequences, pipe.vocab.eos_id
    once, then = sequences.text("once upon a time"), sequences.text("and then")
    writer, segments, reason = story(
        pipe,
        [*once, *sequences.header(8, 8)],
        [*then, *sequences.header(8, 10)],
        [*sequences.text("the end"), eos],
    )
    assert reason == "stop"
    assert [segments[0], segments[2], segments[4]] == ["once upon a time", "and then", "the end"]
    first, second = segments[1], segments[3]
    assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
    assert (first.shape, second.shape) == ((8, 8), (8, 10))
    prompt = sequences.interleaving("tell a story")
    assert writer.prompts[1] == [*prompt, *once, *sequences.picture(first)]
    assert writer.prompts[2] == [*writer.prompts[1], *then, *sequences.picture(second)]
    assert [len(branches.others) for branches in writer.branches] == [1, 2]
    left_out, alone = sequences.text("<uncondition>"), sequences.interleaving("<uncondition>")
    assert writer.branches[0].others[0] == [*alone, *sequences.header(8, 8)]
    assert writer.branches[1].others[0] == [*writer.prompts[1], *left_out, *sequences.header(8, 10)]
    assert writer.branches[1].others[1] == [*alone, *then, *sequences.header(8, 10)]


def test_a_story_ends_at_its_limits(pipe):
    sequences, words = pipe.sequences, pipe.sequences.text("once")
    assert story(pipe, words)[2] == "length"
    drawn = story(pipe, [*words, *sequences.header(8, 8)], max_images=1)
    assert drawn[2] == "max_images" and len(drawn[1]) == 2
    for broken in ([*words, pipe.vocab.boi_id], [*sequences.header(8, 8)[1:]]):
        assert story(pipe, broken)[2] == "broken_header"
    assert story(pipe, [*words, *sequences.header(200, 200)])[1:] == (["once"], "broken_header")


def test_a_story_enforces_its_budgets(pipe):
    sequences, words = pipe.sequences, pipe.sequences.text("once")
    assert story(pipe, [*words, *sequences.header(8, 10)], max_image_tokens=79)[1:] == (["once"], "broken_header")
    assert story(pipe, [*words, *sequences.header(8, 10)], max_images=0)[1:] == (["once"], "max_images")
    writer, _, reason = story(pipe, [*words, *sequences.header(8, 8)], words, gen_length=7)
    assert (writer.lengths, reason) == ([7, 7], "length")


def test_a_story_ends_where_the_context_is_full(pipe, monkeypatch):
    sequences = pipe.sequences
    once = sequences.text("once upon a time")
    prompt = sequences.interleaving("tell a story")
    picture = len(sequences.header(8, 8)) + 64 + 1
    needed = len(prompt) + len(once) + picture
    for room, drawn, lengths in ((needed, 1, [16]), (needed + 5, 1, [16, 5]), (needed - 1, 0, [16])):
        monkeypatch.setattr(pipe.backbone, "config", replace(pipe.backbone.config, max_position_embeddings=room))
        writer, parts, reason = story(pipe, [*once, *sequences.header(8, 8)], sequences.text("so"))
        assert (len(parts) - (len(lengths) > 1), writer.lengths, reason) == (1 + drawn, lengths, "length")


def test_a_story_goes_on_from_the_pictures_it_is_given(pipe, picture, monkeypatch):
    sequences = pipe.sequences
    writer = ScriptedWriter(pipe, [sequences.header(8, 8), [pipe.vocab.eos_id]])
    monkeypatch.setattr(Pipeline, "writer", property(lambda self: writer))
    result = pipe.interleave("go on", [picture, picture.rotate(90)], decoder_steps=2)
    grids = [pipe._encode(small, Stats()) for small in pipe.sizes.for_understanding([picture, picture.rotate(90)])]
    assert writer.prompts[0] == sequences.interleaving("go on", grids)
    assert len(result.images) == 1
    left_out = sequences.interleaving("<uncondition>", grids)
    assert writer.branches[0].others[0] == [*left_out, *sequences.header(8, 8)]


def test_thoughts_lose_the_header_they_end_with(pipe):
    sequences = pipe.sequences
    words, header = sequences.thoughts("a cat in the middle"), sequences.header(8, 16)
    writer = Writer(pipe.backbone, sequences)
    for end in (header, header[3:], header[:1] + header[3:], [pipe.vocab.eos_id], []):
        assert writer._without_end([*words, *end]) == words
    assert sequences.thought_text(words) == "a cat in the middle"


def test_the_size_asked_for_counts_and_not_the_one_thought_of(pipe, monkeypatch):
    sequences = pipe.sequences
    words = sequences.thoughts("a cat in the middle")
    writer = ScriptedWriter(pipe, [[*words, *sequences.header(8, 16)]])
    monkeypatch.setattr(Pipeline, "writer", property(lambda self: writer))
    result = pipe.generate("a cat", height=256, width=320, thinking=True, **QUICK)
    assert result.thinking == ["a cat in the middle"]
    assert writer.prompts == [sequences.thinking("a cat")]
    assert writer.branches == [sequences.generation_after_thinking("a cat", words, 8, 10)]
    assert result.images[0].size == (320, 256) and result.codes[0].shape == (8, 10)


class Told(Writer):
    """Writes and draws by itself, but says when a story goes on with a picture: `plots` has the sizes of those of each
    story, by the words that only its prompt has.
    """

    def __init__(self, pipe, plots):
        super().__init__(pipe.backbone, pipe.sequences)
        self.plots = {tuple(pipe.sequences.interleaving(words)): sizes for words, sizes in plots.items()}
        self.batches = []

    def text_steps(self, prompts, *arguments, **settings):
        self.batches.append(("text", len(prompts)))
        written = yield from super().text_steps(prompts, *arguments, **settings)
        return [torch.tensor(self._ended(prompt, row)) for prompt, row in zip(prompts, written, strict=True)]

    def picture_steps(self, branches, *arguments, **settings):
        self.batches.append(("picture", len(branches)))
        return (yield from super().picture_steps(branches, *arguments, **settings))

    def _ended(self, prompt, row):
        vocab = self.sequences.vocab
        marks = vocab.soi_id, vocab.boi_id, vocab.eoi_id, vocab.eos_id
        words = [token for token in row.tolist() if token not in marks]
        [sizes] = [sizes for opening, sizes in self.plots.items() if tuple(prompt[: len(opening)]) == opening]
        drawn = prompt.count(vocab.eoi_id)
        return [*words, *self.sequences.header(*sizes[drawn])] if drawn < len(sizes) else [*words, vocab.eos_id]


PLOTS = {
    "two pictures of a cat": [(8, 8), (8, 10)],
    "no picture": [],
    "one": [(8, 10)],
    "three of the moon and of a very long red train": [(8, 8), (8, 8), (8, 10)],
}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_stories_told_together_are_those_told_alone(pipe, monkeypatch, temperature):
    """Those that write do so together, and those that draw; all end at their own time."""
    writer = Told(pipe, PLOTS)
    monkeypatch.setattr(Pipeline, "writer", property(lambda self: writer))
    options = {"temperature": temperature, "decoder_steps": 2}
    together = pipe.interleave(list(PLOTS), generator=[seeded(place) for place in range(len(PLOTS))], **options)
    assert writer.batches == [
        *(("text", 4), ("picture", 3)),
        *(("text", 3), ("picture", 2)),
        *(("text", 2), ("picture", 1)),
        ("text", 1),
    ]
    for place, (words, sizes) in enumerate(PLOTS.items()):
        alone = pipe.interleave(words, generator=seeded(place), **options)
        told = together[place]
        assert [tuple(codes.shape) for codes in told.codes] == sizes
        assert told.finish_reason == alone.finish_reason == "stop"
        assert [type(segment) for segment in told.segments] == [type(segment) for segment in alone.segments]
        assert told.text == alone.text
        for codes, others in zip(told.codes, alone.codes, strict=True):
            assert torch.equal(codes, others)
        for image, other in zip(told.images, alone.images, strict=True):
            apart = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).int()
            apart -= torch.frombuffer(bytearray(other.tobytes()), dtype=torch.uint8).int()
            assert apart.abs().max() <= 1
    assert together[0].stats is together[1].stats


def test_stories_that_are_guided_otherwise_draw_apart(pipe):
    """A first picture has one other branch of guidance, one that follows a picture of the prompt has two."""
    known = torch.arange(64).reshape(8, 8)
    turns = [Turn(role="user", parts=[*parts, "go on"]) for parts in ([known], [])]
    openings = [pipe.sequences.conversation(INTERLEAVE, [turn]) for turn in turns]
    writer = Told(pipe, {})
    writer.plots = {tuple(opening.prompt): [(8, 8)] * 2 for opening in openings}

    def told(openings):
        answers = InterleavedAnswers(writer, openings, pipe.settings.interleave, generators=[None] * len(openings))
        parts = [part for part in answers if not isinstance(part, WritingStep)]
        return [[part[place] for part in parts if place in part] for place in range(len(openings))]

    together = told(openings)
    assert writer.batches[:3] == [("text", 2), ("picture", 1), ("picture", 1)]
    for opening, segments in zip(openings, together, strict=True):
        [alone] = told([opening])
        assert [str(segment) for segment in segments] == [str(segment) for segment in alone]


def test_stories_told_together_go_on_from_their_own_pictures(pipe, picture, monkeypatch):
    sequences = pipe.sequences
    writer = ScriptedWriter(pipe, [])
    monkeypatch.setattr(writer, "text_steps", lambda prompts, *arguments, **settings: ended(writer, prompts))

    def ended(writer, prompts):
        writer.prompts += prompts
        return [torch.tensor([pipe.vocab.eos_id]) for _ in prompts]
        yield

    monkeypatch.setattr(Pipeline, "writer", property(lambda self: writer))
    told = pipe.interleave(["go on", "and so"], [picture, [picture, picture.rotate(90)]])
    groups = [pipe.sizes.for_understanding(group) for group in ([picture], [picture, picture.rotate(90)])]
    grids = [[pipe._encode(small, Stats()) for small in group] for group in groups]
    assert writer.prompts == [sequences.interleaving("go on", grids[0]), sequences.interleaving("and so", grids[1])]
    assert [answer.segments for answer in told] == [[], []] and "decode" not in told[0].stats.seconds
    [single] = pipe.interleave(["go on"])
    assert single.finish_reason == "stop"
