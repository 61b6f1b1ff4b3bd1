"""Examples of the picture-book world as documents of tokens.

The prompt is never masked. What is predicted: the answer to a question with its end and the end tokens that fill its
last block; the codes of a picture that is drawn or edited; thoughts, header and codes; and everything that an
interleaved answer says and shows. A share of the prompts is left out, which is what guidance compares with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from pydantic import Field
from torch import Tensor

from unimodal.diffusion.objective import Document
from unimodal.sequence import LEFT_OUT, SequenceBuilder
from unimodal.training.recipe import Strict
from unimodal.world.questions import ask, question_kinds
from unimodal.world.scene import Level, Scene
from unimodal.world.tasks import EditExample, Example, GenerateExample, StoryExample, UnderstandExample

Grids = Mapping[Scene, Tensor]
END_STRIDE = 8


class Dropout(Strict):
    """Shares of prompts that are left out: the text of a drawing, the text or the pictures of an edit."""

    generate: float = Field(ge=0, lt=1)
    edit_text: float = Field(ge=0, lt=1)
    edit_images: float = Field(ge=0, lt=1)


@dataclass(frozen=True)
class Group:
    """Documents whose first `shared` tokens are the same."""

    documents: list[Document]
    shared: int = 0


class DocumentBuilder:
    """Writes examples of a level as documents.

    Args:
        questions: questions asked about one picture, as documents that share it.
    """

    def __init__(self, builder: SequenceBuilder, level: Level, block_length: int, dropout: Dropout, questions: int):
        self.builder, self.level, self.block_length = builder, level, block_length
        self.dropout, self.questions = dropout, questions

    def write(self, example: Example, random: Random, grids: Grids) -> Group:
        """The documents of one example; `grids` holds the codes int [H, W] of every scene of `scenes_of(example)`."""
        if isinstance(example, UnderstandExample):
            return self._understand(example, random, grids)
        if isinstance(example, EditExample):
            return Group([self._edit(example, random, grids)])
        if isinstance(example, StoryExample):
            return Group([self._interleave(example, random, grids)])
        return Group([self._generate(example, random, grids)])

    def _understand(self, example: UnderstandExample, random: Random, grids: Grids) -> Group:
        (scene,) = example.scenes
        grid = grids[scene]
        asked = [(example.question, example.answer)]
        kinds = list(question_kinds(self.level))
        random.shuffle(kinds)
        for kind in kinds:
            further = ask(kind, scene, self.level, random) if len(asked) < self.questions else None
            if further is not None and further.kind != example.kind:
                asked.append((further.question, further.answer))
        end = self.builder.vocab.eos_id
        documents = [
            self._finish(self.builder.understanding([grid], question), [*self.builder.text(answer), end], True)
            for question, answer in asked
        ]
        same = _common_prefix([d.tokens for d in documents])
        first_target = min(int(np.argmax(d.targets)) for d in documents)
        return Group(documents, min(same, first_target) // self.block_length * self.block_length)

    def _generate(self, example: GenerateExample, random: Random, grids: Grids) -> Document:
        grid = grids[example.scene]
        height, width = grid.shape
        left_out = random.random() < self.dropout.generate
        codes = self._codes(grid)
        if example.thinking is None:
            branches = self.builder.generation(example.prompt, height, width)
            return self._finish(branches.others[0] if left_out else branches.prompt, codes, False)
        thoughts = self.builder.thoughts(example.thinking)
        if left_out:
            return self._finish(
                self.builder.generation_after_thinking(example.prompt, thoughts, height, width).others[0], codes, False
            )
        answer = [*thoughts, *self.builder.header(height, width), *codes]
        return self._finish(self.builder.thinking(example.prompt), answer, False)

    def _edit(self, example: EditExample, random: Random, grids: Grids) -> Document:
        grid = grids[example.target]
        branches = self.builder.editing([grids[scene] for scene in example.sources], example.instruction, *grid.shape)
        draw = random.random()
        if draw < self.dropout.edit_text:
            prompt = branches.others[0]
        elif draw < self.dropout.edit_text + self.dropout.edit_images:
            prompt = branches.others[1]
        else:
            prompt = branches.prompt
        return self._finish(prompt, self._codes(grid), False)

    def _interleave(self, example: StoryExample, random: Random, grids: Grids) -> Document:
        answer: list[int] = []
        for segment in example.segments:
            answer += self.builder.text(segment) if isinstance(segment, str) else self.builder.picture(grids[segment])
        prompt = LEFT_OUT if random.random() < self.dropout.generate else example.prompt
        return self._finish(self.builder.interleaving(prompt), [*answer, self.builder.vocab.eos_id], True)

    def _codes(self, grid: Tensor) -> list[int]:
        return self.builder.vocab.codes_to_tokens(grid).flatten().tolist()

    def _finish(self, prompt: list[int], answer: list[int], ends: bool) -> Document:
        """Fills the last block: with predicted end tokens after a text that `ends`, with fillers after a picture.

        Every `END_STRIDE`th of the further end tokens counts in the loss: they are many, and soon certain.
        """
        length = len(prompt) + len(answer)
        padding = -length % self.block_length
        tokens = np.array([*prompt, *answer, *[self.builder.vocab.eos_id] * padding])
        targets, fillers = np.zeros(len(tokens), dtype=bool), np.zeros(len(tokens), dtype=bool)
        targets[len(prompt) : len(tokens) if ends else length] = True
        fillers[length:] = not ends
        supervised = targets.copy()
        supervised[length:] &= np.arange(padding) % END_STRIDE == END_STRIDE - 1
        return Document(tokens, targets, supervised, fillers)


def scenes_of(example: Example) -> list[Scene]:
    """Every scene whose picture the documents of `example` hold."""
    if isinstance(example, UnderstandExample):
        return list(example.scenes)
    if isinstance(example, EditExample):
        return [*example.sources, example.target]
    if isinstance(example, StoryExample):
        return [segment for segment in example.segments if isinstance(segment, Scene)]
    return [example.scene]


def _common_prefix(sequences: list[np.ndarray]) -> int:
    """How many leading tokens all sequences share."""
    length = min(len(s) for s in sequences)
    differ = np.any([s[:length] != sequences[0][:length] for s in sequences], axis=0)
    return int(np.argmax(differ)) if differ.any() else length
