"""The token sequences of the jobs, spelled out."""

import pytest
import torch
from quick_pipeline import quick_sequences

from unimodal.sequence import INTERLEAVE, UNDERSTAND, SequenceBuilder, Turn, system_texts

HEADER = "<|image|><|reserved_token_8|><|reserved_token_10|><boi>"


@pytest.fixture(scope="module")
def build() -> SequenceBuilder:
    return quick_sequences()


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.arange(80).reshape(8, 10)


def spell(build: SequenceBuilder, tokens: list[int]) -> str:
    first, last = build.vocab.image_range
    text = [token for token in tokens if not first <= token < last]
    return build.text_tokenizer.decode(text, skip_special_tokens=False)


def test_height_comes_before_width(build):
    assert spell(build, build.header(8, 10)) == HEADER
    assert len(build.header(8, 10)) == 4
    with pytest.raises(ValueError, match="9"):
        build.header(8, 9)


def test_a_picture_is_its_header_its_rows_and_an_end(build, codes):
    tokens = build.picture(codes)
    assert spell(build, tokens) == f"{HEADER}<|/image|>"
    assert build.grid(torch.tensor(tokens[4:-1]), 8, 10).equal(codes)


def test_understanding_has_roles_unless_bare(build, codes):
    chat = build.understanding([codes, codes], "how many?")
    pictures = f"{HEADER}<|/image|>" * 2
    system = "You are a multimodal understanding assistant."
    opening = f"<role>SYSTEM</role> {system} <role>HUMAN</role>"
    assert spell(build, chat) == f"{opening}{pictures}how many?<role>ASSISTANT</role>"
    assert spell(build, build.understanding([codes], "how many?", "bare")) == f"{HEADER}<|/image|>how many?"


def test_generation_leaves_the_prompt_out_in_its_other_branch(build):
    branches = build.generation("a cat", 8, 10)
    opening = "<role>SYSTEM</role> You are a text-to-image generation assistant. <role>HUMAN</role>"
    assert spell(build, branches.prompt) == f"{opening}a cat<role>ASSISTANT</role>{HEADER}"
    assert [spell(build, other) for other in branches.others] == [
        f"{opening}<uncondition><role>ASSISTANT</role>{HEADER}"
    ]


def test_segments_are_tokenised_on_their_own(build):
    opening = "<role>SYSTEM</role> You are an image editing assistant. <role>HUMAN</role>"
    apart = build.chat("You are an image editing assistant.", build.text("a cat"))
    assert apart == [*build.text(opening), *build.text("a cat"), *build.text("<role>ASSISTANT</role>")]


def test_thoughts_are_in_the_prompt_and_not_in_its_other_branch(build):
    thoughts = build.thoughts("a cat, left")
    branches = build.generation_after_thinking("a cat", thoughts, 8, 10)
    opening = (
        "<role>SYSTEM</role> You are a text-to-image generation assistant with a thinking process. <role>HUMAN</role>"
    )
    assert spell(build, branches.prompt) == (
        f"{opening}a cat<role>ASSISTANT</role><think>\na cat, left\n</think>{HEADER}"
    )
    assert spell(build, branches.others[0]) == f"{opening}<uncondition><role>ASSISTANT</role>{HEADER}"


def test_editing_drops_text_or_pictures(build, codes):
    branches = build.editing([codes, codes], "mix", 8, 10)
    opening = "<role>SYSTEM</role> You are an image editing assistant. <role>HUMAN</role>"
    picture = f"{HEADER}<|/image|>"
    end = f"<role>ASSISTANT</role>{HEADER}"
    assert spell(build, branches.prompt) == f"{opening}{picture * 2}mix{end}"
    assert [spell(build, other) for other in branches.others] == [
        f"{opening}{picture * 2}<uncondition>{end}",
        f"{opening}<|image|><|image|>mix{end}",
    ]


def test_a_first_interleaved_picture_with_references_keeps_them_in_one_branch(build, codes):
    told = build.conversation(INTERLEAVE, [Turn(role="user", parts=[codes, "go on"])])
    assert told.prompt == build.interleaving("go on", [codes])
    branches = build.interleaved_picture(told, build.text("once"), 8, 10)
    opening = "<role>SYSTEM</role> You are a interleaved generation assistant. <role>HUMAN</role>"
    end = "<role>ASSISTANT</role>"
    assert spell(build, branches.prompt) == f"{opening}{HEADER}<|/image|>go on{end}once{HEADER}"
    assert [spell(build, other) for other in branches.others] == [
        f"{opening}{HEADER}<|/image|><uncondition>{end}{HEADER}",
        f"{opening}<uncondition>{end}once{HEADER}",
    ]


def test_a_conversation_of_one_turn_is_the_prompt_of_its_job(build, codes):
    told = build.conversation(UNDERSTAND, [Turn(role="user", parts=["how many?", codes, codes])])
    assert told.prompt == build.understanding([codes, codes], "how many?")
    assert build.conversation(INTERLEAVE, [Turn(role="user", parts=["go on"])]).history is None


def test_turns_alternate_without_end_tokens(build, codes):
    picture = f"{HEADER}<|/image|>"
    turns = [
        Turn(role="user", parts=["look", codes, "closely"]),
        Turn(role="assistant", parts=["I see", codes, "this"]),
        Turn(role="user", parts=["go on"]),
    ]
    told = build.conversation("You are kind.", turns)
    opening = f"<role>SYSTEM</role> You are kind. <role>HUMAN</role>{picture}look\nclosely"
    assert spell(build, told.prompt) == (
        f"{opening}<role>ASSISTANT</role>I see{picture}this<role>HUMAN</role>go on<role>ASSISTANT</role>"
    )
    assert told.history is not None
    assert spell(build, told.history) == (
        f"{opening}<role>ASSISTANT</role>I see{picture}<role>HUMAN</role><uncondition><role>ASSISTANT</role>"
    )


def test_text_alone_is_told_in_the_template_of_the_tokenizer(build, monkeypatch):
    turns = [Turn(role="user", parts=["hi"]), Turn(role="assistant", parts=["yes"]), Turn(role="user", parts=["go"])]
    assert build.plain_conversation("be kind", turns) is None
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|role_end|>{% endfor %}<role>ASSISTANT</role>"
    monkeypatch.setattr(build.text_tokenizer.library, "chat_template", template)
    assert spell(build, build.plain_conversation("be kind", turns)) == (
        "[system]be kind<|role_end|>[user]hi<|role_end|>[assistant]yes<|role_end|>[user]go<|role_end|>"
        "<role>ASSISTANT</role>"
    )


def test_grids_in_part_known_have_masks(build, codes):
    tokens = build.partial_grid(codes.masked_fill(codes < 10, -1))
    assert tokens[:10] == [build.vocab.mask_id] * 10
    assert build.grid(torch.tensor(tokens[10:]), 7, 10).equal(codes[1:])


def test_headers_are_found_again(build):
    words = build.text("once")
    assert build.split_header([*words, *build.header(8, 10)]) == (words, 8, 10)
    assert build.split_header(words) is None
    assert build.split_header([*words, *build.header(8, 10)[1:]]) is None
    assert build.split_header(build.header(8, 10)[:3]) is None


def test_codes_and_special_tokens_are_no_text(build, codes):
    assert build.plain_text([*build.text("a cat"), *build.picture(codes), build.vocab.eos_id]) == "a cat"


def test_the_fixed_texts_are_known(build):
    chat = build.chat("You are an image editing assistant.", [])
    assert any(build.text(text) + build.text("<role>ASSISTANT</role>") == chat for text in system_texts())
