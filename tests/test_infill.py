"""Gaps: how they are read, what the sampler sees around them, and what comes back untouched."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from quick_pipeline import gradient, quiet_pipeline, seeded

from unimodal import Gap, exactly_words, json_template
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample, stream
from unimodal.gap_tokens import GapTokens
from unimodal.infill import Content, parse_gaps, read_gapped_texts
from unimodal.pipeline import Pipeline
from unimodal.writer import Writer

MASK, SIZE = 30, 48
QUICK: dict[str, Any] = {"num_inference_steps": 4, "block_length": 16}


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quiet_pipeline()


@pytest.fixture(scope="module")
def gap_tokens(pipe) -> GapTokens:
    return GapTokens(pipe.text_tokenizer, pipe.vocab)


def test_tags_are_read_and_can_be_written_out():
    assert parse_gaps("The <gap:2> on <gap>.") == ["The ", Gap(tokens=2), " on ", Gap(), "."]
    assert parse_gaps("<gap><gap>") == [Gap(), Gap()]
    assert parse_gaps(r"a \<gap> b \\<gap> c \\\<gap:3> d\e") == [r"a <gap> b " + "\\", Gap(), r" c \<gap:3> d\e"]
    assert parse_gaps("<gapped> <gap") == ["<gapped> <gap"]


@pytest.mark.parametrize("tag", ["<gap:0>", "<gap:x>", "<gap:>", "<gap:-1>", "<gap:²>", "<gap: 2>"])
def test_other_tags_are_refused(tag):
    with pytest.raises(ValueError, match=r"text: got the gap '<gap:.*allowed are <gap> and <gap:N>"):
        parse_gaps(f"a {tag}")


def test_texts_parts_and_lists_of_both_are_told_apart():
    parts = ["a", "<gap> ", Gap()]
    assert read_gapped_texts(parts) == [["a<gap> ", Gap()]]
    assert read_gapped_texts(["a <gap>", parts]) == [["a ", Gap()], ["a<gap> ", Gap()]]
    for wrong, message in (
        ([], "a list of such texts"),
        ("none", "no gap"),
        (["a <gap>", "b"], "no gap"),
        (3, "got 3"),
    ):
        with pytest.raises(ValueError, match=f"text: .*{message}"):
            read_gapped_texts(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokens": 0}, "tokens: got 0"),
        ({"tokens": True}, "tokens: got True"),
        ({"at_most": 0}, "at_most: got 0"),
        ({"tokens": 2, "at_most": 3}, "tokens: got 2 beside"),
        ({"at_least": -1}, "at_least: got -1"),
        ({"at_least": 3, "at_most": 2}, "at_least: got 3"),
        ({"content": "verse"}, "content: got 'verse', allowed are text"),
    ],
)
def test_gaps_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Gap(**values)


def test_forms():
    assert exactly_words(2) == [Gap(at_most=1, content="word"), Gap(at_most=1, content="next_word")]
    with pytest.raises(ValueError, match="count: got 0"):
        exactly_words(0)
    form = json_template({"a": Gap(tokens=2), "n": [Gap(content="number"), None], 'q"': {"b": "é"}})
    quoted, number = Gap(tokens=2, content="quoted"), Gap(content="number")
    assert form == ['{"a": "', quoted, '", "n": [', number, ', null], "q\\"": {"b": "é"}}']
    with pytest.raises(ValueError, match="which JSON does not know"):
        json_template({"a": {1, 2}})


class Seen:
    """A model that answers every position with one token and remembers what each forward may look at."""

    def __init__(self, token: int):
        self.token, self.windows, self.masks = token, [], []

    def __call__(self, tokens, position_ids, attention_mask, logits_for, vocab_range=None):
        self.windows.append(tokens.clone())
        self.masks.append(attention_mask)
        logits = torch.zeros(*tokens[:, logits_for].shape, SIZE)
        logits[..., self.token] = 5
        return SimpleNamespace(logits=logits)


def test_given_tokens_stay_and_are_seen_from_the_left():
    model = Seen(7)
    given = [MASK, 1, 2, 3, MASK, 4, MASK, 5, 6, 8]
    task = SamplingTask(prompt=[9, 9, 9, 9, 9, 9], length=10, given=given)
    options = SamplingOptions(block_length=4, num_inference_steps=1)
    joined = sample(model, [task], options, mask_id=MASK, use_cache=False, joined=True)
    assert joined.tokens[0].tolist() == [7, 1, 2, 3, 7, 4, 7, 5, 6, 8]
    assert joined.forwards == 1
    assert model.windows[0].tolist() == [[9] * 6 + given]
    # Blocks of 4: the first is the prompt's own, all from column 4 on is one block.
    seen = model.masks[0][0, 0]
    assert seen[:4, :4].all()
    assert not seen[:4, 4:].any()
    assert seen[4:].all()

    model = Seen(7)
    apart = sample(model, [task], options, mask_id=MASK, use_cache=False)
    assert apart.tokens[0].tolist() == [7, 1, 2, 3, 7, 4, 7, 5, 6, 8]
    assert [window.shape[1] for window in model.windows] == [8, 12, 16]


def test_blocks_that_are_given_cost_nothing_and_end_the_sample():
    options = SamplingOptions(block_length=4, num_inference_steps=1)
    tasks = [
        SamplingTask(prompt=[9] * 4, length=8, given=[MASK, 1, 2, 3, 4, 5, 6, 8]),
        SamplingTask(prompt=[9] * 4, length=8, given=[1, 2, 3, 4, MASK, 5, 6, 8]),
        SamplingTask(prompt=[9] * 4, length=4, given=[1, 2, 3, 4]),
    ]
    states = list(stream(Seen(7), tasks, options, mask_id=MASK, use_cache=False))
    found = {part.index: part.tokens.tolist() for state in states for part in state.samples if part.done}
    assert found == {0: [7, 1, 2, 3, 4, 5, 6, 8], 1: [1, 2, 3, 4, 7, 5, 6, 8], 2: [1, 2, 3, 4]}
    assert states[-1].forwards == 2
    assert sorted(part.index for state in states for part in state.samples if part.done) == [0, 1, 2]
    with pytest.raises(ValueError, match="given: got 2 tokens, the sample has 3"):
        sample(Seen(7), [SamplingTask(prompt=[1], length=3, given=[1, 2])], options, mask_id=MASK)


def test_a_joined_canvas_has_one_block_to_fill():
    canvas = Canvas.lay_out([[[1] * 5]], [11], block_length=4, mask_id=MASK, joined=True)
    assert (canvas.first_block, canvas.num_blocks, canvas.columns(0), canvas.columns(1)) == (
        *(1, 2),
        *(slice(0, 4), slice(4, 16)),
    )


def test_every_known_token_and_character_stays(pipe):
    text = "Fünf  cats <gap:3> sat \\<gap>, on <gap> mats\n\tand  <gap:1>!"
    result = pipe.infill(text, gap_length=4, **QUICK)
    known = parse_gaps(text)
    assert result.text == "".join(
        part if isinstance(part, str) else result.gaps[index // 2] for index, part in enumerate(known)
    )
    assert "<gap>" in result.text
    encode = pipe.text_tokenizer.encode
    # The space before a gap is part of the first token in it.
    pieces = [encode("Fünf  cats"), encode(" sat <gap>, on"), encode(" mats\n\tand "), encode("!")]
    tokens, place = result.tokens[0].tolist(), 0
    for piece, most in zip(pieces, [3, 4, 1, 0], strict=True):
        assert tokens[place : place + len(piece)] == piece
        rest = tokens[place + len(piece) :]
        following = pieces[pieces.index(piece) + 1] if most else []
        gap = next(n for n in range(most + 1) if rest[n : n + len(following)] == following)
        place += len(piece) + gap
    assert result.stats.tokens == 8
    assert pipe.text_tokenizer.decode(tokens) == result.text


def test_fixed_gaps_have_their_length_and_free_ones_at_most_theirs(pipe, gap_tokens):
    result = pipe.infill(["a", Gap(tokens=5), "b", Gap(at_least=2, at_most=3), "c"], **QUICK)
    tokens = result.tokens[0].tolist()
    b, c = (pipe.text_tokenizer.encode(letter)[0] for letter in "bc")
    assert tokens[6] == b
    assert tokens[-1] == c
    assert 2 <= len(tokens) - 8 <= 3
    assert pipe.vocab.eos_id not in tokens
    assert pipe.vocab.mask_id not in tokens


def test_empty_places_are_dropped(gap_tokens):
    end = gap_tokens.vocab.eos_id
    x, y, zero = (gap_tokens.text_tokenizer.encode(letter)[0] for letter in "xy0")
    middle = gap_tokens.write(["a", Gap(), "b"], 4)
    a, b = middle.tokens[0], middle.tokens[-1]
    assert middle.tokens == [a, *[gap_tokens.vocab.mask_id] * 4, b]
    filled = gap_tokens.read(middle, [a, end, x, end, y, b])
    assert (filled.text, filled.gaps, filled.tokens) == ("axyb", ["xy"], [a, x, y, b])
    last = gap_tokens.write(["a", Gap()], 4)
    assert gap_tokens.read(last, [a, x, end, y, end]).text == "ax"
    number = gap_tokens.write(["a", Gap(content="number"), "b"], 3)
    assert gap_tokens.read(number, [a, zero, end, zero, b]).gaps == ["0"]


def test_a_gap_sees_what_stands_far_to_its_right(pipe):
    far = " the first word comes long before the last, and much is said between the two"
    left = "we saw a"
    room = len(pipe.text_tokenizer.encode(far))
    assert room > 2 * QUICK["block_length"]
    states: list[torch.Tensor] = []

    def watch(pipe, step, timestep, values):
        states.append(values["state"].samples[0].confidence)

    for ending in (" red", " blue"):
        pipe.infill(f"{left}<gap:2>{far}{ending}", callback_on_step_end=watch, threshold=0.0, **QUICK)
    assert len(states) == 2
    assert not torch.equal(*states)


def test_known_text_is_never_proposed_anew_with_or_without_a_cache(pipe):
    tokens = GapTokens(pipe.text_tokenizer, pipe.vocab).write(parse_gaps("a long known beginning, <gap:6> and"), 4)
    prompt = tokens.tokens[: tokens.first_gap]
    given = [*tokens.tokens[tokens.first_gap :], *[pipe.vocab.eos_id] * 3]
    given += [pipe.vocab.eos_id] * (-(len(prompt) + len(given)) % 16)
    task = SamplingTask(prompt=prompt, length=len(given), given=given)
    options = SamplingOptions(block_length=16, num_inference_steps=6)
    settings = {"mask_id": pipe.vocab.mask_id, "joined": True}
    cached = sample(pipe.backbone, [task], options, **settings)
    plain = sample(pipe.backbone, [task], options, use_cache=False, **settings)
    assert cached.tokens[0].tolist() == plain.tokens[0].tolist()
    assert cached.computed < plain.computed


def test_a_batch_fills_what_single_calls_fill(pipe):
    texts = ["a <gap:2> b", "<gap:3> is what we saw in the long and narrow street behind the houses <gap:1>", "<gap>"]
    single = [
        pipe.infill(text, generator=seeded(number), temperature=1.0, **QUICK) for number, text in enumerate(texts)
    ]
    generators = [seeded(number) for number in range(3)]
    batch = pipe.infill(texts, generator=generators, temperature=1.0, **QUICK)
    assert batch.texts == [result.text for result in single]
    assert batch.fillings == [result.gaps for result in single]
    assert [row.tolist() for row in batch.tokens] == [result.tokens[0].tolist() for result in single]


def test_seeds_repeat_and_differ(pipe):
    def draw(number):
        return pipe.infill("a <gap:6> b", generator=seeded(number), temperature=1.0, **QUICK).text

    assert draw(0) == draw(0)
    assert len({draw(number) for number in range(4)}) > 1


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("tokens_per_word", [1, 3])
def test_exactly_so_many_words(pipe, number, tokens_per_word):
    form = exactly_words(3, tokens_per_word=tokens_per_word)
    result = pipe.infill(
        form, prompt="what do you see?", generator=seeded(number), temperature=3.0, num_inference_steps=4
    )
    assert len(result.text.split()) == 3 == len(result.text.split(" "))
    assert all(word.strip() for word in result.gaps)


@pytest.mark.parametrize("number", range(4))
def test_a_json_form_is_json_whatever_is_drawn(pipe, number):
    form = json_template(
        {
            "name": Gap(at_most=6),
            "word": Gap(tokens=2, content="word"),
            "count": Gap(at_most=3, content="number"),
            "year": Gap(tokens=2, content="number"),
            "nested": {"fixed": [1, Gap(tokens=4)], "none": None},
        }
    )
    result = pipe.infill(form, generator=seeded(number), temperature=5.0, **QUICK)
    value = json.loads(result.text)
    assert list(value) == ["name", "word", "count", "year", "nested"]
    assert value["name"] == result.gaps[0]
    assert isinstance(value["count"], int)
    assert value["year"] >= 10
    assert value["nested"]["fixed"][0] == 1
    assert value["nested"]["none"] is None


def test_contents_keep_to_what_they_say(pipe, gap_tokens):
    never: dict[Content, str] = {"line": "\n", "quoted": '"\\\n\t', "word": " \n\t\"'\\", "number": "abc .-"}
    for content, forbidden in never.items():
        sequence = gap_tokens.write([Gap(tokens=2, content=content)], 1)
        for row in gap_tokens.allowed([kind for kind in sequence.kinds if kind is not None]):
            pieces = "".join(pipe.text_tokenizer.decode([id_]) for id_ in row.nonzero().flatten().tolist())
            assert pieces
            assert not set(forbidden) & set(pieces)
            assert not row[pipe.vocab.eos_id]
            assert not row[pipe.vocab.mask_id]
    free = gap_tokens.write([Gap(at_most=2, content="word")], 1)
    rows = gap_tokens.allowed([kind for kind in free.kinds if kind is not None])
    assert [bool(row[pipe.vocab.eos_id]) for row in rows] == [False, True]


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "threshold", "threshold": 0.02},
        {"policy": "remasking", "remasking": "top_k_margin"},
        {"policy": "ancestral"},
        {"policy": "editing", "editing_threshold": 0.0, "max_post_steps": 2},
        {"span": "answer"},
    ],
    ids=str,
)
def test_what_is_known_stays_under_any_policy(pipe, options):
    form = json_template({"a": Gap(tokens=4), "b": [1, Gap(at_most=2, content="number")]})
    settings = {**QUICK, **options, "temperature": 1.0}
    if options.get("policy") == "threshold":
        del settings["num_inference_steps"]
    result = pipe.infill([form, ["one ", Gap(tokens=3), " two"]], prompt="what?", generator=seeded(), **settings)
    assert list(json.loads(result.texts[0])) == ["a", "b"]
    assert len(result.tokens[0]) - len(pipe.infill(form, prompt="what?", **QUICK).tokens[0]) in (-1, 0, 1)
    assert result.texts[1].startswith("one ")
    assert result.texts[1].endswith(" two")


def test_a_prompt_with_pictures_is_answered_in_a_form(pipe):
    pictures = [gradient(), Image.radial_gradient("L").convert("RGB")]
    questions = ["what is it?", "how many are there?"]
    both = pipe.infill("it is <gap:2>.", prompt=questions, images=pictures, num_inference_steps=4)
    assert all(text.startswith("it is ") and text.endswith(".") for text in both.texts)
    assert set(both.stats.seconds) == {"encode", "text"}
    alone = [
        pipe.infill("it is <gap:2>.", prompt=question, images=picture, num_inference_steps=4).text
        for question, picture in zip(questions, pictures, strict=True)
    ]
    assert both.texts == alone


def test_a_form_without_a_cache_is_filled_alike(pipe, monkeypatch):
    cached = pipe.infill("it is <gap:4> that we see.", prompt="what is it?", num_inference_steps=4)
    monkeypatch.setattr(Pipeline, "writer", property(lambda own: Writer(own.backbone, own.sequences, use_cache=False)))
    assert pipe.infill("it is <gap:4> that we see.", prompt="what is it?", num_inference_steps=4).text == cached.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "nothing to fill"}, "text: 'nothing to fill' has no gap"),
        ({"text": "a <gap>", "gap_length": 0}, "gap_length: got 0"),
        ({"text": "a <gap:100000>"}, "text: with its prompt and gaps it has 1000.*the context of the model has room"),
        ({"text": "a <|mask|> <gap>"}, "text: .*holds the mask token"),
        ({"text": "a <gap>", "images": Image.new("RGB", (64, 64))}, "images: got pictures without a prompt"),
        ({"text": ["a <gap>"] * 3, "prompt": ["x", "y"]}, "prompt: got 2 prompts and 3 texts"),
        ({"text": "a <gap>", "threshold": 2.0}, "threshold: got 2.0"),
        ({"text": "a <gap>", "prompt": " "}, "prompt: got ' '"),
    ],
)
def test_bad_input_is_named(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe.infill(**arguments)
