"""Where the tokens of a batch lie: prompts of different lengths and their guidance branches, in one tensor.

Blocks are anchored at the start of each sample's own sequence, so a prompt usually ends inside the first block that
is filled. A batch must not move those boundaries: a sample whose prompt has fewer whole blocks gets whole blocks of
padding on its left, and then the block that is being filled is at the same columns in every row.

    block_length 4, p prompt, M mask, . padding      a guidance branch of sample 1, its prompt one token shorter
    sample 0   pppp pppp pMMM MMMM
    sample 1   .... pppp ppMM MMMM                   .... .ppp ppMM MMMM

What is to be filled can also be one long block, from `first_block` to the end, for masks that must see what stands far
to their right; or the whole sequence is one block, and padding on the left makes all sequences equally long.

A branch prompt that is shorter than that of its sample is padded on the left up to its length, one that is longer
loses its first tokens. No token sees padding, and positions count from the first real token of each row.

Legend: N samples, G branches, R = G·N rows (row g·N + n), L columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Locate = Callable[[Tensor], Tensor]
"""Rows and columns of picture codes, int64 [..., L, 2], from tokens, int [..., L]."""


@dataclass
class Canvas:
    """The tokens of a batch and their layout. Only `tokens` and, by `keep`, the set of samples change."""

    tokens: Tensor  # int64 [R, L]
    padding: Tensor  # int64 [R], columns of padding on the left of each row
    starts: Tensor  # int64 [N], the first column after each sample's prompt
    num_branches: int
    block_length: int
    first_block: int  # the block in which the first generated token of every sample lies
    locate: Locate | None = None  # rows and columns of picture codes, for a model that wants them
    joined: bool = False  # all from `first_block` on is one block
    ends: Tensor = field(init=False)  # int64 [R], the first column after what each row has of its own
    ragged: bool = field(init=False)  # some rows have padding, or columns after their end

    def __post_init__(self) -> None:
        self.ends = torch.full_like(self.padding, self.tokens.shape[1])
        self.ragged = bool((self.padding > 0).any())

    @classmethod
    def lay_out(
        cls,
        prompts: Sequence[Sequence[Sequence[int]]],
        lengths: Sequence[int],
        *,
        block_length: int,
        mask_id: int,
        device: torch.device | str = "cpu",
        locate: Locate | None = None,
        given: Sequence[Sequence[int] | None] | None = None,
        joined: bool = False,
        whole: bool = False,
    ) -> "Canvas":
        """Lays out prompts and as many masks as fill the blocks of what is to be generated.

        Args:
            prompts: for each sample its G branches, the conditional one first.
            lengths: tokens to generate, per sample.
            locate: rows and columns of picture codes, for a model that wants them (`SequenceBuilder.coordinates`).
            given: for each sample tokens that stand already behind its prompt, the mask id where one is to be found;
                None = all of its `lengths` are masks.
            joined: all from the block in which the longest prompt ends is one block.
            whole: the whole sequence is one block, of whatever length.

        Raises:
            ValueError: nothing to lay out, an empty prompt with nothing given, a length below 1, given tokens of
                another length, or samples with different numbers of branches.
        """
        num_branches = len(prompts[0]) if prompts else 0
        if num_branches == 0 or any(len(branches) != num_branches for branches in prompts):
            raise ValueError(
                f"prompts: got {[len(branches) for branches in prompts]} branches, "
                "each sample needs the same number, at least one"
            )
        if len(lengths) != len(prompts) or min(lengths) < 1:
            raise ValueError(
                f"gen_length: got {list(lengths)}, each of {len(prompts)} samples needs a number of at least 1"
            )
        given = given or [None] * len(prompts)
        if any(not branches[0] and known is None for branches, known in zip(prompts, given, strict=True)):
            raise ValueError("prompts: one is empty, at least one token is needed")
        for known, length in zip(given, lengths, strict=True):
            if known is not None and len(known) != length:
                raise ValueError(f"given: got {len(known)} tokens, the sample has {length}")
        if whole:
            block_length = max(len(branches[0]) + length for branches, length in zip(prompts, lengths, strict=True))
        first_block = max(len(branches[0]) // block_length for branches in prompts)
        shifts = [(first_block - len(branches[0]) // block_length) * block_length for branches in prompts]
        starts = [shift + len(branches[0]) for shift, branches in zip(shifts, prompts, strict=True)]
        if whole:
            starts = [block_length - length for length in lengths]
        ends = [
            -(-(start + length) // block_length) * block_length for start, length in zip(starts, lengths, strict=True)
        ]
        shape = num_branches * len(prompts), max(ends)
        tokens = torch.full(shape, mask_id, dtype=torch.long)
        padding = torch.zeros(shape[0], dtype=torch.long)
        for sample, (branches, start) in enumerate(zip(prompts, starts, strict=True)):
            for branch, prompt in enumerate(branches):
                row = branch * len(prompts) + sample
                kept = list(prompt)[-len(branches[0]) :]
                padding[row] = start - len(kept)
                tokens[row, start - len(kept) : start] = torch.tensor(kept, dtype=torch.long)
                if (known := given[sample]) is not None:
                    tokens[row, start : start + len(known)] = torch.tensor(list(known), dtype=torch.long)
        canvas = cls(
            tokens=tokens.to(device),
            padding=padding.to(device),
            starts=torch.tensor(starts, device=device),
            num_branches=num_branches,
            block_length=block_length,
            first_block=first_block,
            locate=locate,
            joined=joined,
        )
        canvas.ends = torch.tensor(ends * num_branches, device=device)
        # Blocks after a sample's last are never looked at, unless they are part of one long block.
        canvas.ragged |= joined and min(ends) < max(ends)
        return canvas

    @property
    def num_blocks(self) -> int:
        return self.first_block + 1 if self.joined else self.tokens.shape[1] // self.block_length

    @property
    def num_samples(self) -> int:
        return self.starts.shape[0]

    def columns(self, block: int) -> slice:
        stop = self.tokens.shape[1] if self.joined and block == self.first_block else (block + 1) * self.block_length
        return slice(block * self.block_length, stop)

    def samples(self) -> Tensor:
        """The conditional branch of every sample, a view [N, L]."""
        return self.tokens[: self.num_samples]

    def fill(self, block: int, tokens: Tensor, chosen: Tensor) -> None:
        """Writes `tokens` [N, B] of a block into all branches of each sample, where `chosen` [N, B]."""
        part = self.tokens[:, self.columns(block)]
        part.copy_(torch.where(chosen.repeat(self.num_branches, 1), tokens.repeat(self.num_branches, 1), part))

    def positions(self, start: int, stop: int) -> Tensor:
        """Position ids of columns `start` to `stop`, int64 [R, stop - start]; 0 on padding.

        With `locate`, int64 [R, stop - start, 3]: position, and row and column as far as headers are known.
        """
        columns = torch.arange(start, stop, device=self.tokens.device)
        positions = (columns - self.padding[:, None]).clamp(min=0)
        if self.locate is None:
            return positions
        return torch.cat([positions[..., None], self.locate(self.tokens[:, :stop])[:, start:]], dim=-1)

    def visible(self, start: int, stop: int) -> Tensor | None:
        """Which of the columns 0 to `stop` the columns from `start` on see; None if every one sees all.

        A column sees the blocks before its own and its own, as far as they hold what is its row's. Padding sees itself,
        which no one reads, so that its softmax has a term.

        Returns:
            bool [R, 1, stop - start, stop], or [1, 1, stop - start, stop] for all rows alike.
        """
        if not self.ragged and stop - start <= self.block_length:
            return None
        keys = torch.arange(stop, device=self.tokens.device)
        blocks = keys // self.block_length
        if self.joined:
            blocks = blocks.clamp(max=self.first_block)
        queries = keys[start:]
        seen = (blocks <= blocks[start:, None])[None]
        if self.ragged:
            own = (keys >= self.padding[:, None]) & (keys < self.ends[:, None])
            seen = seen & own[:, None] | (keys == queries[:, None])
        return seen[:, None]

    def rows(self, samples: Tensor) -> Tensor:
        """The rows of all branches of some samples, in the order that `keep` leaves them in."""
        branches = torch.arange(self.num_branches, device=samples.device)
        return (branches[:, None] * self.num_samples + samples).flatten()

    def keep(self, samples: Tensor) -> None:
        """Goes on with some of the samples only, by their index."""
        rows = self.rows(samples)
        self.tokens, self.padding, self.ends = self.tokens[rows], self.padding[rows], self.ends[rows]
        self.starts = self.starts[samples]
