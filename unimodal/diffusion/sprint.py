"""SPRINT: the steps of a block read only the part of the prefix that matters (arXiv 2604.20796, section 2.3).

The first step of a block is exact and reads the whole prefix. Then every layer ranks the prefix by

    score_i = α · ‖key_i‖ / mean_j ‖key_j‖ + (1 − α) · confidence_i

with the norm averaged over key heads, the mean taken over all tokens of the prefix, and the confidence being the
highest probability that the model gave at that place. Of text and of picture codes each the best ⌊ratio · number⌋
stay. They are what the other steps of the block read, in this layer, row and guidance branch. Padding is no part of
a prefix: it is never ranked and stays hidden.

The paper commits tokens by the policy `adaptive`, which goes with this and is chosen apart from it.

Legend: R rows, L columns of the prefix, B positions of a block, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from unimodal.backbone import PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import CachedDenoiser
from unimodal.diffusion.prefixes import PrefixStore

# Logits that are computed at once to find confidences: 2^26 of them take 256 MB.
LOGITS_AT_ONCE = 2**26

IsPicture = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class SprintOptions:
    """How the prefix is pruned; the defaults are the paper's selective setting.

    Args:
        text_keep_ratio, image_keep_ratio: share of the text tokens and of the picture codes of a prefix that stays.
        confidence_alpha: α above; 1 ranks by the norms of the keys alone, 0 by confidence alone.
        cache_warmup_steps: steps of each block that read the whole prefix.

    Raises:
        ValueError: a value out of its range.
    """

    text_keep_ratio: float = 1.0
    image_keep_ratio: float = 0.8
    confidence_alpha: float = 0.5
    cache_warmup_steps: int = 1

    def __post_init__(self) -> None:
        for name in ("text_keep_ratio", "image_keep_ratio", "confidence_alpha"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value!r}, it must be a number between 0 and 1")
        steps = self.cache_warmup_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"cache_warmup_steps: got {steps!r}, it must be a whole number of at least 1")

    @classmethod
    def from_published(
        cls,
        *,
        keep_ratio: float = 0.7,
        text_keep_ratio: float | None = None,
        image_keep_ratio: float | None = None,
        confidence_alpha: float = 0.5,
        cache_warmup_steps: int = 2,
    ) -> Self:
        """From the arguments of the published code, where `keep_ratio` is that of a kind which has none of its own."""
        return cls(
            text_keep_ratio=keep_ratio if text_keep_ratio is None else text_keep_ratio,
            image_keep_ratio=keep_ratio if image_keep_ratio is None else image_keep_ratio,
            confidence_alpha=confidence_alpha,
            cache_warmup_steps=cache_warmup_steps,
        )

    @property
    def keeps_everything(self) -> bool:
        return self.text_keep_ratio == 1 and self.image_keep_ratio == 1


PAPER_SETTINGS = {
    "selective": SprintOptions(),
    "whole": SprintOptions(image_keep_ratio=1.0),
    "half": SprintOptions(text_keep_ratio=0.5, image_keep_ratio=0.5),
}
"""Settings that the paper reports: pictures pruned, nothing pruned, and half of everything."""


class SprintDenoiser(CachedDenoiser):
    """Reads the whole prefix in the first steps of a block and what was kept of it in the others.

    With everything kept it is a `CachedDenoiser`, and so gives the tokens of a `PlainDenoiser`.

    Args:
        model: a `MaskedDiffusionTransformer`.
        is_picture: int [...] -> bool [...], which tokens are picture codes (`UnifiedVocab.is_code`).
    """

    def __init__(
        self,
        model: Any,
        vocab_range: tuple[int, int] | None = None,
        *,
        options: SprintOptions,
        is_picture: IsPicture,
        prefixes: PrefixStore | None = None,
    ):
        super().__init__(model, vocab_range, prefixes=prefixes)
        self._options = options
        self._is_picture = is_picture
        self._wants_confidence = not options.keeps_everything and options.confidence_alpha < 1
        self._confidence: Tensor | None = None  # of the tokens in the cache, [R, L]
        self._block, self._step = -1, 0
        self._pruned: tuple[PrefixCache, Tensor] | None = None

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        if block != self._block:
            self._block, self._step, self._pruned = block, 0, None
        self._step += 1
        if self._pruned is not None:
            return self._logits_after_pruning(canvas, block, places, *self._pruned)
        logits = super().logits(canvas, block, places)
        options, columns = self._options, canvas.columns(block)
        if self._step == options.cache_warmup_steps and columns.start > 0 and not options.keeps_everything:
            assert self._cache is not None
            is_text, is_code = kinds(canvas, columns.start, self._is_picture)
            cache, kept = prune(
                self._cache,
                self._confidence,
                [(is_text, options.text_keep_ratio), (is_code, options.image_keep_ratio)],
                alpha=options.confidence_alpha,
                room=columns.stop - columns.start,
            )
            own = canvas.visible(columns.start, columns.stop)
            if own is None:
                own = kept.new_ones(len(kept), 1, columns.stop - columns.start, columns.stop)
            before = kept[:, None, None].expand(-1, -1, own.shape[2], -1)
            self._pruned = cache, torch.cat([before, own[..., columns.start :].expand(len(kept), -1, -1, -1)], dim=-1)
        return logits

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._confidence = None if self._confidence is None else self._confidence[rows]
        if self._pruned is not None:
            cache, visible = self._pruned
            self._pruned = cache.select(rows), visible[rows]

    def _logits_after_pruning(
        self, canvas: Canvas, block: int, places: Tensor | None, cache: PrefixCache, visible: Tensor
    ) -> Tensor:
        columns = canvas.columns(block)
        self.forwards += 1
        self.computed += columns.stop - columns.start
        return self._model(
            canvas.tokens[:, columns],
            position_ids=canvas.positions(columns.start, columns.stop),
            attention_mask=visible,
            cache=cache,
            logits_for=places,
            vocab_range=self._vocab_range,
        ).logits

    def _run(
        self, canvas: Canvas, start: int, stop: int, cache: PrefixCache, wanted: slice | Tensor, *, update: bool
    ) -> tuple[Tensor, Tensor | None]:
        if not (update and self._wants_confidence):
            return super()._run(canvas, start, stop, cache, wanted, update=update)
        self.forwards += 1
        self.computed += stop - start
        hidden = self._model.hidden(
            canvas.tokens[:, start:stop],
            position_ids=canvas.positions(start, stop),
            attention_mask=canvas.visible(start, stop),
            cache=cache,
            update_cache=True,
        )
        # The columns that are wanted belong to the block in work, which is no prefix yet.
        assert isinstance(wanted, slice)
        final = hidden if wanted.start == wanted.stop else hidden[:, : wanted.start]
        return self._model.head(hidden[:, wanted], self._vocab_range), confidences(self._model.head, final)

    def _finished(self, canvas: Canvas, start: int, stop: int, confidence: Tensor | None) -> None:
        super()._finished(canvas, start, stop, confidence)
        if confidence is not None:
            parts = [confidence] if self._confidence is None else [self._confidence, confidence]
            self._confidence = torch.cat(parts, dim=1)


def kinds(canvas: Canvas, stop: int, is_picture: IsPicture) -> tuple[Tensor, Tensor]:
    """Which of the columns below `stop` hold text and which hold picture codes, two times bool [R, stop]."""
    tokens = canvas.tokens[:, :stop]
    real = torch.arange(stop, device=tokens.device) >= canvas.padding[:, None]
    codes = is_picture(tokens)
    return real & ~codes, real & codes


def confidences(head: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """The highest probability at each place, float32 [R, L], from hidden states [R, L, H] and the whole vocabulary."""
    rows = hidden.flatten(0, 1)
    if not len(rows):
        return rows.new_zeros(hidden.shape[:2], dtype=torch.float32)
    size = head(rows[:1]).shape[-1]
    parts = [head(part) for part in rows.split(max(1, LOGITS_AT_ONCE // size))]
    return torch.cat([(part.amax(dim=-1) - part.logsumexp(dim=-1)).exp() for part in parts]).view(hidden.shape[:2])


def scores(keys: Tensor, confidence: Tensor | None, real: Tensor, alpha: float) -> Tensor:
    """How much each place of a prefix matters in one layer, float32 [R, L].

    Args:
        keys: [R, kv_heads, L, head_dim].
        confidence: [R, L]; not needed if `alpha` is 1.
        real: bool [R, L], False on padding, which does not count in the mean.
    """
    norms = keys.float().norm(dim=-1).mean(dim=1)
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (norms * real).sum(dim=1, keepdim=True) / count
    importance = norms / mean.clamp(min=torch.finfo(norms.dtype).tiny)
    if confidence is None:
        return importance
    return alpha * importance + (1 - alpha) * confidence


def quota(ratio: float, count: Tensor) -> Tensor:
    """⌊ratio · count⌋, int64; a product that is a whole number but for rounding counts as that number."""
    return (count.double() * ratio + 1e-9).floor().long()


def best(score: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count` [R] highest-scoring places among those allowed, bool [R, L]; the earlier of equals.

    Equal are scores that agree to 2^-13: those of two equal tokens differ in the last digits, which depend on the size
    of the batch.
    """
    score = (score * 2**13).round()
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return among & (rank < count[:, None])


def prune(
    cache: PrefixCache,
    confidence: Tensor | None,
    shares: list[tuple[Tensor, float]],
    *,
    alpha: float,
    room: int = 0,
) -> tuple[PrefixCache, Tensor]:
    """What is kept of a prefix, and which of its places are filled in each row.

    Args:
        cache: the prefix.
        confidence: of its tokens, float32 [R, L]; not needed if `alpha` is 1.
        shares: kinds of tokens, bool [R, L], each with the ratio that stays. No kind: gone, as padding is.
        room: positions to reserve behind the kept ones.

    Returns:
        a cache of K places, the most that a row keeps, in their order; bool [R, K], the same in all layers.
    """
    real = torch.stack([among for among, _ in shares]).any(dim=0)
    quotas = [quota(ratio, among.sum(dim=1)) for among, ratio in shares]
    counts = torch.stack(quotas).sum(dim=0)
    most = int(counts.max())
    places = []
    for layer in range(cache.num_layers):
        score = scores(cache.keys(layer), None if alpha == 1 else confidence, real, alpha)
        chosen = [best(score, among, count) for (among, _), count in zip(shares, quotas, strict=True)]
        kept = torch.stack(chosen).any(dim=0)
        places.append(kept.int().argsort(dim=1, descending=True, stable=True)[:, :most])
    return cache.gather(places, room), torch.arange(most, device=counts.device) < counts[:, None]
