"""The samples of a batch while they are filled: what is masked, who works, who is done.

Everything in a step happens on the device of the canvas; at its end one small tensor is read.

Legend: N samples in the batch, B positions of a block, L columns of the canvas, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.draws import uniform, unseeded
from unimodal.diffusion.filtering import propose
from unimodal.diffusion.options import SamplingOptions, SamplingTask
from unimodal.diffusion.policies import Block
from unimodal.diffusion.states import LazySamples, SampleState

Written = tuple[Sequence[SampleState], dict[int, Tensor]]


class Run:
    """Fills the blocks of a canvas, one after the other.

    `active` are the indices of the samples in the batch. In a block, `busy` says whether another step is wanted,
    `changed` whether the last step wrote anything, and `complete` whether a sample ends with a block in which it had
    nothing to fill.
    """

    def __init__(
        self,
        canvas: Canvas,
        tasks: Sequence[SamplingTask],
        options: SamplingOptions,
        *,
        mask_id: int,
        stop_ids: Sequence[int],
    ):
        self.active = list(range(len(tasks)))
        self.busy = self.changed = self.complete = False
        self._canvas, self._options, self._mask_id = canvas, options, mask_id
        self._policy = options.make_policy()
        self._device = device = canvas.tokens.device
        self._stop_ids = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
        self._lengths = torch.tensor([task.length for task in tasks], device=device)
        self._starts: list[int] = canvas.starts.tolist()
        ends: list[int] = canvas.ends[: len(tasks)].tolist()
        self._reach = [
            (start - len(task.prompt), end) for task, start, end in zip(tasks, self._starts, ends, strict=True)
        ]
        draws = options.temperature > 0 or self._policy.draws
        self._generators = [task.generator or unseeded() if draws else None for task in tasks]
        self._alive = [True] * len(tasks)

    def begin(self, block: int) -> None:
        """Turns to a block; samples without masks in it wait."""
        canvas = self._canvas
        self._block, self._columns = block, canvas.columns(block)
        start, stop = self._columns.start, self._columns.stop
        columns = torch.arange(start, stop, device=self._device)
        self._places = columns - canvas.starts[:, None]
        inside = (self._places >= 0) & (columns < canvas.ends[: len(self.active), None])
        self._open = inside & (canvas.samples()[:, self._columns] == self._mask_id)
        self._masks = self._open.sum(dim=1)
        self._own = [(max(first, start) - start, min(last, stop) - start) for first, last in self._reach]
        self._sizes = torch.tensor([last - first for first, last in self._own], device=self._device)
        self._full_steps = torch.zeros_like(self._masks)
        self._last = canvas.starts + self._lengths <= stop
        self._working = torch.ones_like(self._last)
        self._read(self._open, torch.zeros_like(self._last), torch.zeros_like(self._open))
        self._given = {row: end for row, (done, end) in enumerate(zip(self._done, self._ends, strict=True)) if done}
        self.complete = bool(self._given)

    def places_in_question(self) -> Tensor | None:
        """Places of the block where a step may write in any sample, int64 [P]; None is all of them. Only a CPU is told:
        elsewhere finding out would cost more than it spares.
        """
        if self._policy.revises or self._device.type != "cpu":
            return None
        places = self._masked.any(dim=0).nonzero().flatten()
        return None if len(places) == self._masked.shape[1] else places

    def step(self, step: int, logits: Tensor, first_id: int, places: Tensor | None = None) -> Written:
        """Takes one step from the logits [N, B, V], whose first entry is that of token `first_id`, or from those at the
        `places` in question [N, P, V].
        """
        canvas, options, works = self._canvas, self._options, self._works
        tokens = canvas.samples()[:, self._columns].clone()
        writable = self._open & self._working[:, None]
        masked = self._masked & self._working[:, None]
        # A sample that waits for the others draws nothing, so that it goes on with the same numbers as alone.
        sources = [source if taking_part else None for source, taking_part in zip(self._generators, works, strict=True)]
        draw = partial(uniform, sources, tokens.shape[1], self._device, self._own)
        proposal = propose(
            logits,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            first_id=first_id,
            mask_id=self._mask_id,
            draw=draw if places is None else lambda: draw()[:, places],
        )
        if places is not None:
            proposal = proposal.among(places, tokens.shape[1])
        block = Block(
            tokens=tokens,
            masked=masked,
            open=writable,
            places=self._places,
            sizes=self._sizes,
            masks=self._masks,
            lengths=self._lengths,
            full_steps=self._full_steps,
            step=step,
        )
        decision = self._policy.decide(block, proposal, draw)
        chosen = decision.chosen & writable
        canvas.fill(self._block, decision.tokens, chosen)
        self._full_steps = self._full_steps + (~masked.any(dim=1)).long()
        unfinished = torch.zeros_like(self._working) if decision.unfinished is None else decision.unfinished
        self._read(masked & ~chosen, unfinished, chosen)
        ends = {row: self._ends[row] for row, done in enumerate(self._done) if done}
        rows = [row for row, taking_part in enumerate(works) if taking_part]
        return self._written(rows, ends, chosen & masked, chosen & ~masked, decision.confidence)

    def end_complete(self) -> Written:
        """Ends the samples that had nothing to fill in the block, as a step that wrote nothing."""
        nothing, ends = torch.zeros_like(self._open), self._given
        return self._written(list(ends), ends, nothing, nothing, torch.zeros(nothing.shape, device=self._device))

    def survivors(self) -> list[int] | None:
        """Rows of the samples that are not done, None if none is."""
        return None if all(self._alive) else [row for row, alive in enumerate(self._alive) if alive]

    def wanted(self, is_wanted: Callable[[int], bool]) -> list[int] | None:
        """Rows of the samples that are wanted, None if all are."""
        rows = [row for row, index in enumerate(self.active) if is_wanted(index)]
        return None if len(rows) == len(self.active) else rows

    def keep(self, kept: Sequence[int], rows: Tensor) -> None:
        """Goes on with some rows only, given on both sides; within a block or at its end."""
        self._canvas.keep(rows)
        self._lengths, self._last, self._working = self._lengths[rows], self._last[rows], self._working[rows]
        self._places, self._open, self._masks = self._places[rows], self._open[rows], self._masks[rows]
        self._sizes, self._full_steps = self._sizes[rows], self._full_steps[rows]
        self.active = [self.active[row] for row in kept]
        self._starts = [self._starts[row] for row in kept]
        self._reach = [self._reach[row] for row in kept]
        self._own = [self._own[row] for row in kept]
        self._generators = [self._generators[row] for row in kept]
        self._alive = [self._alive[row] for row in kept]
        self._works = [self._works[row] for row in kept]
        self._masked = self._masked[rows]
        self._given = {place: self._given[row] for place, row in enumerate(kept) if row in self._given}
        self.busy, self.complete = any(self._works), bool(self._given)

    def _read(self, masked: Tensor, unfinished: Tensor, chosen: Tensor) -> None:
        """Finds out who is done and who goes on, from the positions that are still masked and the samples that want
        more steps; the only time that a step waits for the device.
        """
        self._masked = masked
        tokens = self._canvas.samples()[:, self._columns]
        width = tokens.shape[1]
        order = torch.arange(width, device=self._device)
        stops = torch.isin(tokens, self._stop_ids) & (self._places >= 0)
        first_stop = torch.where(stops, order, width).amin(dim=1)
        first_mask = torch.where(masked, order, width).amin(dim=1)
        stopped = first_stop < width
        wants = masked.any(dim=1) | unfinished
        wanted_filled = ~(masked & (self._places < self._lengths[:, None])).any(dim=1)
        done = (stopped & ~wants) | (self._last & wanted_filled & ~unfinished)
        if self._options.eos_early_stop:
            done = done | (stopped & (first_stop < first_mask))
        done = done & self._working
        self._working = self._working & wants & ~done
        stop_place = self._places[:, 0] + first_stop + 1
        ends = torch.where(stopped, torch.minimum(stop_place, self._lengths), self._lengths)
        facts = torch.stack([done.long(), self._working.long(), chosen.any(dim=1).long(), ends]).tolist()
        self._done = [bool(value) for value in facts[0]]
        self._works = [bool(value) for value in facts[1]]
        self._ends = facts[3]
        self.busy, self.changed = any(self._works), any(facts[2])

    def _written(
        self, rows: Sequence[int], ends: Mapping[int, int], committed: Tensor, replaced: Tensor, confidence: Tensor
    ) -> Written:
        """States of some rows, from what a step wrote [N, B], and the results of those that end, at `ends`."""
        tokens, places = self._canvas.samples().clone(), self._places
        indices, starts, lengths = list(self.active), list(self._starts), self._lengths
        results = {}
        for row, end in ends.items():
            self._alive[row] = False
            results[indices[row]] = tokens[row, starts[row] : starts[row] + end].cpu()

        def states() -> list[SampleState]:
            at, values, limits = places.cpu(), confidence.cpu(), lengths.tolist()
            # What lies behind the end of a result is not part of it.
            inside = at < torch.tensor([ends.get(row, limit) for row, limit in enumerate(limits)])[:, None]
            filled, changed, written = committed.cpu() & inside, replaced.cpu() & inside, tokens.cpu()
            return [
                SampleState(
                    index=indices[row],
                    tokens=results[indices[row]]
                    if row in ends
                    else written[row, starts[row] : starts[row] + limits[row]],
                    committed=at[row][filled[row]],
                    confidence=values[row][filled[row]],
                    replaced=at[row][changed[row]],
                    replaced_confidence=values[row][changed[row]],
                    done=row in ends,
                )
                for row in rows
            ]

        return LazySamples(states), results
