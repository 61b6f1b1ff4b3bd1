"""Documents of the backbone's training: what the sampler would start from, and what is predicted of it."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from quick_pipeline import quick_sequences
from torch import Tensor

from unimodal.sequence import SequenceBuilder
from unimodal.training.documents import END_STRIDE, DocumentBuilder, Dropout, scenes_of
from unimodal.world.scene import Scene, load_level
from unimodal.world.tasks import EditExample, GenerateExample, StoryExample, UnderstandExample, sample_example

LEVEL = load_level("standard")
BLOCK = 32


@pytest.fixture(scope="module")
def sequences() -> SequenceBuilder:
    return quick_sequences()


def builder(sequences: SequenceBuilder, questions: int = 3, **dropout: float) -> DocumentBuilder:
    shares = {"generate": 0.0, "edit_text": 0.0, "edit_images": 0.0} | dropout
    return DocumentBuilder(sequences, LEVEL, BLOCK, Dropout(**shares), questions)


def drawn(task: str, seed: int = 0) -> tuple[Any, dict[Scene, Tensor]]:
    """An example and made-up codes of its pictures."""
    example = sample_example(task, LEVEL, Random(seed))
    draws = torch.Generator().manual_seed(seed)
    return example, {scene: torch.randint(0, 8, (8, 8), generator=draws) for scene in scenes_of(example)}


def codes(sequences: SequenceBuilder, grid: Tensor) -> list[int]:
    return sequences.vocab.codes_to_tokens(grid).flatten().tolist()


def check(document: Any, prompt: list[int], answer: list[int]) -> None:
    """The prompt, then the predicted answer, in whole blocks."""
    stop = len(prompt) + len(answer)
    assert len(document.tokens) % BLOCK == 0 and 0 <= len(document.tokens) - stop < BLOCK
    assert document.tokens[:stop].tolist() == [*prompt, *answer]
    assert not document.targets[: len(prompt)].any() and document.targets[len(prompt) : stop].all()
    assert document.supervised[len(prompt) : stop].all()
    assert not (document.supervised & ~document.targets).any()
    assert not (document.fillers & document.targets).any()


def test_drawings_predict_their_codes(sequences: SequenceBuilder) -> None:
    example, grids = drawn("generate")
    assert isinstance(example, GenerateExample)
    answer = codes(sequences, grids[example.scene])
    for share, prompt in ((0.0, 0), (0.999, 1)):
        [document] = builder(sequences, generate=share).write(example, Random(0), grids).documents
        branches = sequences.generation(example.prompt, 8, 8)
        check(document, [branches.prompt, branches.others[0]][prompt], answer)
        assert document.targets.sum() == 64
        assert np.array_equal(
            document.fillers, np.arange(len(document.tokens)) >= document.targets.nonzero()[0][-1] + 1
        )


def test_thoughts_are_predicted_with_header_and_codes(sequences: SequenceBuilder) -> None:
    example, grids = drawn("thinking")
    thoughts, picture = sequences.thoughts(example.thinking), codes(sequences, grids[example.scene])
    [document] = builder(sequences).write(example, Random(0), grids).documents
    check(document, sequences.thinking(example.prompt), [*thoughts, *sequences.header(8, 8), *picture])
    # The sampler draws the picture from the same tokens.
    start = sequences.generation_after_thinking(example.prompt, thoughts, 8, 8).prompt
    assert document.tokens[: len(start)].tolist() == start
    [left_out] = builder(sequences, generate=0.999).write(example, Random(0), grids).documents
    check(left_out, sequences.generation_after_thinking(example.prompt, thoughts, 8, 8).others[0], picture)


def test_edits_leave_out_the_text_or_the_pictures(sequences: SequenceBuilder) -> None:
    example, grids = drawn("edit")
    assert isinstance(example, EditExample)
    branches = sequences.editing([grids[scene] for scene in example.sources], example.instruction, 8, 8)
    answer = codes(sequences, grids[example.target])
    for text, images, prompt in (
        (0.0, 0.0, branches.prompt),
        (0.999, 0.0, branches.others[0]),
        (0.0, 0.999, branches.others[1]),
    ):
        [document] = builder(sequences, edit_text=text, edit_images=images).write(example, Random(0), grids).documents
        check(document, prompt, answer)


def test_questions_about_a_picture_share_it(sequences: SequenceBuilder) -> None:
    example, grids = drawn("understand", seed=3)
    assert isinstance(example, UnderstandExample)
    [scene] = example.scenes
    group = builder(sequences).write(example, Random(0), grids)
    assert 1 < len(group.documents) <= 3
    assert group.shared % BLOCK == 0 and group.shared >= 64
    first = group.documents[0]
    check(
        first,
        sequences.understanding([grids[scene]], example.question),
        [*sequences.text(example.answer), sequences.vocab.eos_id],
    )
    for document in group.documents:
        assert np.array_equal(document.tokens[: group.shared], first.tokens[: group.shared])
        assert not document.targets[: group.shared].any() and not document.fillers.any()
    [alone] = builder(sequences, questions=1).write(example, Random(0), grids).documents
    assert np.array_equal(alone.tokens, first.tokens)


def test_some_of_the_end_tokens_that_fill_a_block_count(sequences: SequenceBuilder) -> None:
    for seed in range(8):
        example, grids = drawn("understand", seed)
        for document in builder(sequences).write(example, Random(0), grids).documents:
            ends = document.tokens == sequences.vocab.eos_id
            padding = int(ends[document.targets].sum()) - 1
            assert document.targets[ends & (np.arange(len(ends)) >= len(ends) - padding)].all()
            assert (document.targets & ~document.supervised).sum() == padding - padding // END_STRIDE


def test_stories_predict_text_and_pictures(sequences: SequenceBuilder) -> None:
    example, grids = drawn("interleave")
    assert isinstance(example, StoryExample)
    answer: list[int] = []
    for segment in example.segments:
        answer += sequences.text(segment) if isinstance(segment, str) else sequences.picture(grids[segment])
    [document] = builder(sequences).write(example, Random(0), grids).documents
    check(document, sequences.interleaving(example.prompt), [*answer, sequences.vocab.eos_id])
