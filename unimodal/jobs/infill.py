"""Gaps in texts."""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from unimodal.arguments import Generators, Pictures, read_generators, read_groups, read_texts
from unimodal.diffusion.restriction import AllowedTokens
from unimodal.diffusion.sampler import SamplingTask
from unimodal.gap_tokens import GappedSequence, GapTokens
from unimodal.infill import GappedText, read_gapped_texts
from unimodal.jobs.job import Job
from unimodal.jobs.options import Sampling, spelled_out
from unimodal.progress import StepCallback
from unimodal.results import InfillOutput, Stats
from unimodal.settings import TextSettings


class Infill(Job):
    @spelled_out
    def infill(
        self,
        text: GappedText | Sequence[GappedText],
        *,
        prompt: str | Sequence[str] | None = None,
        images: Pictures | Sequence[Pictures] | None = None,
        gap_length: int = 16,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[Sampling],
    ) -> InfillOutput:
        """Fills the gaps of a text, or of a list of texts, and leaves the rest as it is, token for token.

        A token sees the blocks before its own and its own, so a gap would not see what stands more than a block to
        its right. Therefore everything from the block on in which the first gap lies is filled as one block; what
        comes before it is computed in blocks of `block_length`, as the model was trained. Behind the text stand end
        tokens up to the next border of a block, as they do behind the answers in training.

        Args:
            text: gaps are written `<gap>` or `<gap:5>` (see `unimodal.infill`), or the text is a list of texts and
                `Gap`, such as `exactly_words` and `json_template` give.
            prompt: what the text answers; one for all texts, or one for each. A list of prompts may share one text.
            images: pictures that the prompt is about; with a list of prompts one entry, a picture or several, for
                each.
            gap_length: the largest number of tokens in a gap of free length.
            num_inference_steps: for every `block_length` positions.
            callback_on_step_end: see `unimodal.progress.Progress`; it may drop samples.
            sampling: see `Sampling`.

        Raises:
            ValueError: an argument that cannot be used; a text without a gap, or too long for the context.
        """
        settings = self.settings.understand.but(**sampling)
        if isinstance(gap_length, bool) or not isinstance(gap_length, int) or gap_length < 1:
            raise ValueError(f"gap_length: got {gap_length!r}, it must be a whole number of at least 1")
        texts = read_gapped_texts(text)
        gap_tokens = GapTokens(self.text_tokenizer, self.vocab)
        sequences = [gap_tokens.write(parts, gap_length) for parts in texts]
        stats = Stats()
        prompts = self._prompts(prompt, images, stats)
        count = max(len(sequences), len(prompts))
        sequences, prompts = _one_for_each(sequences, count), _one_for_each(prompts, count)
        generators = read_generators(generator, count)
        tasks = [
            self._task(before, sequence, settings.block_length, source)
            for before, sequence, source in zip(prompts, sequences, generators, strict=True)
        ]
        filled: dict[int, Tensor] = {}
        with self._progress(callback_on_step_end, count) as progress:
            for columns, places in _by_length(tasks, settings).items():
                group = [tasks[place] for place in places]
                steps = settings.num_inference_steps * columns // settings.block_length
                rows = self.writer.fill(
                    group,
                    settings.sampling(num_inference_steps=steps),
                    self._allowed(group, [sequences[place] for place in places], columns, gap_tokens),
                    stats=stats,
                    wanted=lambda index, places=places: progress.wanted(places[index]),
                    watch=progress.writing,
                )
                filled |= dict(zip(places, rows, strict=True))
        results = [
            gap_tokens.read(sequence, [*sequence.tokens[: sequence.first_gap], *filled[place].tolist()])
            for place, sequence in progress.stayed(enumerate(sequences))
        ]
        return InfillOutput(
            texts=[result.text for result in results],
            fillings=[result.gaps for result in results],
            tokens=[torch.tensor(result.tokens, dtype=torch.long) for result in results],
            dropped=progress.dropped,
            stats=stats,
        )

    def _prompts(
        self, prompt: str | Sequence[str] | None, images: Pictures | Sequence[Pictures] | None, stats: Stats
    ) -> list[list[int]]:
        """The tokens before each text."""
        if prompt is None:
            if images is not None:
                raise ValueError("images: got pictures without a prompt that says what about them is to be written")
            return [[]]
        texts = read_texts("prompt", prompt)
        groups = [[] for _ in texts] if images is None else read_groups(images, prompt, texts)
        return [self._question(text, group, stats) for group, text in zip(groups, texts, strict=True)]

    def _task(
        self, prompt: Sequence[int], sequence: GappedSequence, block_length: int, generator: torch.Generator
    ) -> SamplingTask:
        before = [*prompt, *sequence.tokens[: sequence.first_gap]]
        after = [*sequence.tokens[sequence.first_gap :], self.vocab.eos_id]
        after += [self.vocab.eos_id] * (-(len(before) + len(after)) % block_length)
        context = self.backbone.config.max_position_embeddings
        if len(before) + len(after) > context:
            raise ValueError(
                f"text: with its prompt and gaps it has {len(before) + len(after)} tokens in blocks of {block_length}, "
                f"the context of the model has room for {context}"
            )
        return SamplingTask(prompt=before, length=len(after), given=after, generator=generator)

    def _allowed(
        self,
        tasks: Sequence[SamplingTask],
        sequences: Sequence[GappedSequence],
        columns: int,
        gap_tokens: GapTokens,
    ) -> AllowedTokens:
        """What may stand in each column of the block that is filled, with which the tasks end."""
        known = [sequence.kinds[sequence.first_gap :] for sequence in sequences]
        kinds = list(dict.fromkeys(kind for row in known for kind in row if kind is not None))
        anything = torch.ones(1, self.vocab.image_token_offset, dtype=torch.bool)
        rows = []
        for task, row in zip(tasks, known, strict=True):
            indices = [0 if kind is None else kinds.index(kind) + 1 for kind in row]
            rows.append([*[0] * (columns - task.length), *indices, *[0] * (task.length - len(row))])
        device = self.device
        return AllowedTokens(
            kinds=torch.cat([anything, gap_tokens.allowed(kinds)]).to(device),
            kind_of=torch.tensor(rows, device=device),
        )


def _one_for_each(values: Sequence[Any], count: int) -> list[Any]:
    if len(values) not in (1, count):
        raise ValueError(f"prompt: got {len(values)} prompts and {count} texts, or the reverse; one for each is needed")
    return [*values] * (count if len(values) == 1 else 1)


def _by_length(tasks: Sequence[SamplingTask], settings: TextSettings) -> dict[int, list[int]]:
    """The tasks whose block to fill has as many columns."""
    groups: dict[int, list[int]] = {}
    for place, task in enumerate(tasks):
        before = len(task.prompt) % settings.block_length
        groups.setdefault(before + task.length, []).append(place)
    return groups
