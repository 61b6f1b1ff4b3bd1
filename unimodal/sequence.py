"""The token sequences of all jobs: what the model is shown, and what it is shown in the other branches of guidance.

    header   <|image|> HEIGHT WIDTH <boi>             announces a grid of codes
    picture  header, codes row by row, <|/image|>
    chat     <role>SYSTEM</role> system <role>HUMAN</role>, what the user says, <role>ASSISTANT</role>

HEIGHT and WIDTH are single reserved tokens, in codes. Each segment is tokenised on its own and the ids are joined,
because a tokenizer may merge characters across a border. Templates are those of the published model (arXiv
2604.20796).

Legend: H, W height and width of a grid of codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unimodal.vocab import UnifiedVocab
from unimodal_tokenizers.text import TextTokenizer

UNDERSTAND = "You are a multimodal understanding assistant."
GENERATE = "You are a text-to-image generation assistant."
THINK = "You are a text-to-image generation assistant with a thinking process."
EDIT = "You are an image editing assistant."
INTERLEAVE = "You are a interleaved generation assistant."

# Not a special token: it is the text that stands where a prompt is left out.
LEFT_OUT = "<uncondition>"

ASK = "<role>HUMAN</role>"
ANSWER = "<role>ASSISTANT</role>"

PromptStyle = Literal["chat", "bare"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Branches:
    """A prompt and those of the other guidance branches that belong to it."""

    prompt: list[int]
    others: tuple[list[int], ...]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side says: texts, and pictures as codes [H, W], in order."""

    role: Role
    parts: Sequence[str | Tensor]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A prompt that is answered, perhaps with pictures.

    Args:
        history: the same with the text after its last picture left out; None if it has no picture.
    """

    prompt: list[int]
    history: list[int] | None


def system_texts() -> list[str]:
    """The fixed texts around what a user says, each tokenised on its own."""
    openings = [_opening(system) for system in (UNDERSTAND, GENERATE, THINK, EDIT, INTERLEAVE)]
    return [*openings, ANSWER]


def _opening(system: str) -> str:
    return f"<role>SYSTEM</role> {system} {ASK}"


class SequenceBuilder:
    """Builds token sequences with the ids of one checkpoint."""

    def __init__(self, text_tokenizer: TextTokenizer, vocab: UnifiedVocab):
        self.text_tokenizer = text_tokenizer
        self.vocab = vocab

    def text(self, text: str) -> list[int]:
        return self.text_tokenizer.encode(text)

    def header(self, height: int, width: int) -> list[int]:
        """Announces a picture of height × width codes.

        Raises:
            ValueError: the vocabulary has no token for a side; the message lists those it has.
        """
        vocab = self.vocab
        return [vocab.soi_id, vocab.size_id(height), vocab.size_id(width), vocab.boi_id]

    def picture(self, codes: Tensor) -> list[int]:
        """A whole picture from its codes [H, W]."""
        height, width = codes.shape
        return [*self.header(height, width), *self.vocab.codes_to_tokens(codes).flatten().tolist(), self.vocab.eoi_id]

    def pictures(self, grids: Sequence[Tensor]) -> list[int]:
        return [token for codes in grids for token in self.picture(codes)]

    def chat(self, system: str, user: Sequence[int]) -> list[int]:
        """One turn, up to where the answer begins."""
        return [*self.text(_opening(system)), *user, *self.text(ANSWER)]

    def conversation(self, system: str, turns: Sequence[Turn]) -> Opening:
        """Several turns, the first and the last of them the user's, up to where the next answer begins.

        Roles alternate without end tokens, and a user's pictures go before the text of the turn, as the published
        server has it (arXiv 2604.20796); of one turn this is `chat`.
        """
        tokens, history = self.text(_opening(system)), None
        for place, turn in enumerate(turns):
            asks = turn.role == "user"
            if place > 0:
                tokens += self.text(ASK if asks else ANSWER)
            for part in self._parts(turn):
                if isinstance(part, str):
                    tokens += self.text(part)
                else:
                    tokens += self.picture(part)
                    history = [*tokens, *([] if asks else self.text(ASK)), *self.text(LEFT_OUT), *self.text(ANSWER)]
        return Opening(prompt=[*tokens, *self.text(ANSWER)], history=history)

    def _parts(self, turn: Turn) -> list[str | Tensor]:
        if turn.role == "assistant":
            return list(turn.parts)
        texts = [part for part in turn.parts if isinstance(part, str)]
        return [*[part for part in turn.parts if not isinstance(part, str)], *(["\n".join(texts)] if texts else [])]

    def plain_conversation(self, system: str | None, turns: Sequence[Turn]) -> list[int] | None:
        """Turns of text alone in the template that the checkpoint's text tokenizer states; None if it states none."""
        library = self.text_tokenizer.library
        if not library.chat_template:
            return None
        messages = [{"role": turn.role, "content": "\n".join(map(str, turn.parts))} for turn in turns]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text = library.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.text(str(text))

    def understanding(self, grids: Sequence[Tensor], question: str, style: PromptStyle = "chat") -> list[int]:
        """Pictures and a question. `bare` leaves the roles out, as the first published script did."""
        user = [*self.pictures(grids), *self.text(question)]
        return self.chat(UNDERSTAND, user) if style == "chat" else user

    def generation(self, prompt: str, height: int, width: int, *, negative: str = LEFT_OUT) -> Branches:
        """A picture of height × width codes for a prompt; the other branch is the prompt left out, or `negative`."""
        header = self.header(height, width)
        return Branches(
            prompt=[*self.chat(GENERATE, self.text(prompt)), *header],
            others=([*self.chat(GENERATE, self.text(negative)), *header],),
        )

    def thinking(self, prompt: str) -> list[int]:
        """A prompt that is answered with thoughts and then the header of a picture."""
        return self.chat(THINK, self.text(prompt))

    def thoughts(self, text: str) -> list[int]:
        """What such an answer says before the header."""
        return self.text(f"<think>\n{text}\n</think>")

    def thought_text(self, tokens: Sequence[int]) -> str:
        """The text of thoughts, without the marks around it."""
        return self.plain_text(tokens).replace("<think>", "").replace("</think>", "").strip()

    def generation_after_thinking(
        self, prompt: str, thoughts: Sequence[int], height: int, width: int, *, negative: str = LEFT_OUT
    ) -> Branches:
        """A picture that follows thoughts; the other branch has neither prompt nor thoughts, perhaps `negative`."""
        header = self.header(height, width)
        return Branches(
            prompt=[*self.thinking(prompt), *thoughts, *header],
            others=([*self.thinking(negative), *header],),
        )

    def editing(
        self, grids: Sequence[Tensor], instruction: str, height: int, width: int, *, negative: str = LEFT_OUT
    ) -> Branches:
        """A picture made from others; the other branches drop the text, for which `negative` may stand, and the
        pictures, of which a lone start token stays for each.
        """
        header = self.header(height, width)
        pictures, text = self.pictures(grids), self.text(instruction)
        return Branches(
            prompt=[*self.chat(EDIT, [*pictures, *text]), *header],
            others=(
                [*self.chat(EDIT, [*pictures, *self.text(negative)]), *header],
                [*self.chat(EDIT, [*[self.vocab.soi_id] * len(grids), *text]), *header],
            ),
        )

    def interleaving(self, prompt: str, grids: Sequence[Tensor] = ()) -> list[int]:
        """A prompt, perhaps with pictures before it, that is answered with text and pictures in turn."""
        return self.chat(INTERLEAVE, [*self.pictures(grids), *self.text(prompt)])

    def interleaved_picture(self, opening: Opening, answer: Sequence[int], height: int, width: int) -> Branches:
        """The next picture of an interleaved answer.

        The first picture, if none came before it, has one other branch: the prompt left out. Later ones have two: all
        up to the last picture with the text after it left out, and that text without any picture.

        Args:
            opening: what is answered.
            answer: the tokens of the answer before this picture's header.
        """
        header = self.header(height, width)
        left_out = self.text(LEFT_OUT)
        full = [*opening.prompt, *answer, *header]
        alone = self.chat(INTERLEAVE, left_out)
        last_picture = max((place for place, token in enumerate(answer) if token == self.vocab.eoi_id), default=None)
        if last_picture is not None:
            history = [*opening.prompt, *answer[: last_picture + 1], *left_out]
            text = answer[last_picture + 1 :]
        elif opening.history is not None:
            history = opening.history
            text = answer
        else:
            return Branches(prompt=full, others=([*alone, *header],))
        return Branches(prompt=full, others=([*history, *header], [*alone, *text, *header]))

    def coordinates(self, tokens: Tensor) -> Tensor:
        """Row and column, from 1 on, of every place of an announced grid, filled or not; 0, 0 elsewhere.

        Args:
            tokens: int [..., L], from the start of a sequence on.

        Returns:
            int64 [..., L, 2].
        """
        columns = torch.arange(tokens.shape[-1], device=tokens.device)
        sides = self.vocab.sides(tokens)
        # 1. the last <boi> up to each place, and the two sides that stand before it
        begins = torch.where(tokens == self.vocab.boi_id, columns, -1).cummax(dim=-1).values
        height, width = (sides.gather(-1, (begins - back).clamp(min=0)) for back in (2, 1))
        # 2. how far into that grid the place lies
        place = columns - begins - 1
        inside = (begins >= 2) & (place >= 0) & (place < height * width)
        width = width.clamp(min=1)
        found = torch.stack([place // width + 1, place % width + 1], dim=-1)
        return found * inside[..., None]

    def locate_for(self, grid_rotary_dim: int) -> Callable[[Tensor], Tensor] | None:
        """`coordinates` for a backbone that turns so many dimensions with rows and columns; None if it turns none."""
        return self.coordinates if grid_rotary_dim else None

    def split_header(self, tokens: Sequence[int]) -> tuple[list[int], int, int] | None:
        """What comes before the header that ends `tokens`, and its height and width; None if no whole header does."""
        vocab = self.vocab
        tail = list(tokens[-4:])
        if len(tail) < 4 or tail[0] != vocab.soi_id or tail[3] != vocab.boi_id:
            return None
        height, width = vocab.size_of(tail[1]), vocab.size_of(tail[2])
        if height is None or width is None:
            return None
        return list(tokens[:-4]), height, width

    def plain_text(self, tokens: Sequence[int]) -> str:
        """The text among tokens, without special tokens and picture codes."""
        first, last = self.vocab.image_range
        return self.text_tokenizer.decode([token for token in tokens if not first <= token < last])

    def grid(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Codes [H, W] from their tokens [H·W]."""
        return self.vocab.tokens_to_codes(torch.as_tensor(tokens)).reshape(height, width)

    def partial_grid(self, codes: Tensor) -> list[int]:
        """The tokens of codes [H, W], the mask where a code is -1."""
        known = codes >= 0
        tokens = torch.full(codes.shape, self.vocab.mask_id, dtype=torch.long)
        tokens[known] = self.vocab.codes_to_tokens(codes[known])
        return tokens.flatten().tolist()
