"""SPRINT: pruning worked by hand, against a twin that masks instead of gathering, and exact where nothing is pruned."""

import itertools

import pytest
import torch
from small_backbone import EOS, MASK, PICTURES, SIZE, WORDS, is_picture, locate, small_backbone
from torch import Tensor

from unimodal.backbone import MaskedDiffusionTransformer, PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import CachedDenoiser
from unimodal.diffusion.guidance import Guidance, NoGuidance, edit_guidance, prompt_guidance
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample
from unimodal.diffusion.sprint import (
    PAPER_SETTINGS,
    SprintDenoiser,
    SprintOptions,
    best,
    confidences,
    kinds,
    prune,
    quota,
    scores,
)

BLOCK = 8


@pytest.fixture(scope="module", params=[0, 2], ids=["flat", "rows-and-columns"])
def model(request: pytest.FixtureRequest) -> MaskedDiffusionTransformer:
    model = small_backbone(head_dim=16, grid_rotary_dim=request.param)
    draws = torch.Generator().manual_seed(0)
    for layer in model.layers:
        # Else all keys are nearly as long.
        torch.nn.init.uniform_(layer.get_parameter("attention.key_norm.weight"), 0.2, 3.0, draws)
    return model


class ForcedOptions(SprintOptions):
    """Goes through all of pruning, even when everything is kept."""

    @property
    def keeps_everything(self) -> bool:
        return False


def prompt_of(seed: int, *lengths: int) -> list[int]:
    """Text and picture codes in turn, of these lengths."""
    source = torch.Generator().manual_seed(seed)
    ranges = itertools.cycle([WORDS, PICTURES])
    parts = zip(lengths, ranges, strict=False)
    return [token for length, span in parts for token in torch.randint(*span, (length,), generator=source).tolist()]


PROMPTS = [prompt_of(1, 3, 24, 9), prompt_of(2, 5), prompt_of(3, 2, 16, 4, 9, 3), prompt_of(4, 21)]


def tasks_for(guidance: Guidance, length: int = 22) -> list[SamplingTask]:
    """Ragged prompts with branches of other lengths, so that rows are padded by blocks and within blocks."""
    others = [prompt_of(5, 2, 11, 4), prompt_of(6, 9), prompt_of(7, 1, 1, 1), prompt_of(8, 30)]
    return [
        SamplingTask(
            prompt=prompt, length=length + 3 * place, others=(other, other[2:] or other)[: guidance.num_branches - 1]
        )
        for place, (prompt, other) in enumerate(zip(PROMPTS, others, strict=True))
    ]


def run(model, tasks, *, options: SprintOptions | None = None, make=None, threshold=0.7, **settings) -> list[list[int]]:
    if options is not None:
        kind = make or SprintDenoiser
        settings["denoiser"] = lambda *made: kind(*made, options=options, is_picture=is_picture)
    if model.config.grid_rotary_dim:
        settings["locate"] = locate
    sampling = SamplingOptions(block_length=BLOCK, num_inference_steps=5, threshold=threshold, policy="adaptive")
    result = sample(model, tasks, sampling, mask_id=MASK, stop_ids=[EOS], **settings)
    return [tokens.tolist() for tokens in result.tokens]


GUIDANCES = [
    pytest.param(NoGuidance(), id="alone"),
    pytest.param(prompt_guidance(3.0), id="two-way"),
    pytest.param(prompt_guidance(3.0, rescale=0.0), id="two-way-in-range"),
    pytest.param(edit_guidance(3.0, 1.5), id="three-way"),
]


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_with_everything_kept_it_is_a_full_recompute(model, guidance):
    tasks = tasks_for(guidance)
    settings = {"guidance": guidance, "vocab_range": PICTURES}
    plain = run(model, tasks, use_cache=False, **settings)
    assert run(model, tasks, options=SprintOptions(text_keep_ratio=1.0, image_keep_ratio=1.0), **settings) == plain
    for warmup in (1, 2):
        forced = ForcedOptions(text_keep_ratio=1.0, image_keep_ratio=1.0, cache_warmup_steps=warmup)
        assert run(model, tasks, options=forced, **settings) == plain


class Masked(CachedDenoiser):
    """The slow twin: reads the whole prefix in every step, and hides from each layer what it is not to see."""

    def __init__(self, model, vocab_range, *, options, is_picture):
        super().__init__(model, vocab_range)
        self.options, self.is_picture, self.steps = options, is_picture, {}

    def logits(self, canvas: Canvas, block: int, places: Tensor | None = None) -> Tensor:
        self.steps[block] = self.steps.get(block, 0) + 1
        if self.steps[block] <= self.options.cache_warmup_steps or not canvas.columns(block).start:
            return super().logits(canvas, block, places)
        start = canvas.columns(block).start
        full = self._model(
            canvas.tokens[:, :start], position_ids=canvas.positions(0, start), attention_mask=canvas.visible(0, start)
        )
        sure = full.logits.softmax(dim=-1).amax(dim=-1)
        assert self._cache is not None
        kept = [self.kept(self._cache.keys(layer), canvas, sure) for layer in range(self._cache.num_layers)]
        hooks = [
            layer.attention.register_forward_pre_hook(self.hiding(kept[place]))
            for place, layer in enumerate(self._model.layers)
        ]
        try:
            columns = canvas.columns(block)
            visible = canvas.visible(columns.start, columns.stop)
            if visible is None:
                visible = torch.ones(len(sure), 1, BLOCK, columns.stop, dtype=torch.bool)
            return self._model(
                canvas.tokens[:, columns],
                position_ids=canvas.positions(columns.start, columns.stop),
                attention_mask=visible,
                cache=self._cache,
                logits_for=places,
                vocab_range=self._vocab_range,
            ).logits
        finally:
            for hook in hooks:
                hook.remove()

    @staticmethod
    def hiding(kept: Tensor):
        def hide(_, arguments):
            x, rotary, mask, *rest = arguments
            hidden = torch.nn.functional.pad(~kept, (0, mask.shape[-1] - kept.shape[1]))
            return x, rotary, mask.masked_fill(hidden[:, None, None], float("-inf")), *rest

        return hide

    def kept(self, keys: Tensor, canvas: Canvas, sure: Tensor) -> Tensor:
        alpha, start = self.options.confidence_alpha, keys.shape[2]
        kept = torch.zeros(len(keys), start, dtype=torch.bool)
        for row in range(len(keys)):
            places = range(min(int(canvas.padding[row]), start), start)
            norm = {place: float(keys[row, :, place].norm(dim=-1).mean()) for place in places}
            mean = sum(norm.values()) / max(1, len(norm))
            for ratio, wanted in ((self.options.text_keep_ratio, False), (self.options.image_keep_ratio, True)):
                own = [place for place in places if bool(self.is_picture(canvas.tokens[row, place])) == wanted]
                score = {place: alpha * norm[place] / mean + (1 - alpha) * float(sure[row, place]) for place in own}
                own.sort(key=lambda place, score=score: -round(score[place] * 2**13))
                kept[row, own[: int(ratio * len(own) + 1e-9)]] = True
        return kept


PRUNED = [
    pytest.param(SprintOptions(), id="selective"),
    pytest.param(SprintOptions(text_keep_ratio=0.5, image_keep_ratio=0.5), id="half"),
    pytest.param(SprintOptions(text_keep_ratio=0.3, image_keep_ratio=1.0, cache_warmup_steps=2), id="text-only"),
    pytest.param(SprintOptions(text_keep_ratio=0.4, image_keep_ratio=0.2, confidence_alpha=0.0), id="by-confidence"),
    pytest.param(SprintOptions(text_keep_ratio=0.4, image_keep_ratio=0.2, confidence_alpha=1.0), id="by-norm"),
    pytest.param(SprintOptions(text_keep_ratio=0.0, image_keep_ratio=0.0), id="nothing"),
]


@pytest.mark.parametrize("options", PRUNED)
@pytest.mark.parametrize("guidance", GUIDANCES[-1:])
def test_pruning_equals_hiding(model, options, guidance):
    settings = {"guidance": guidance, "vocab_range": PICTURES}
    tasks = tasks_for(guidance, 12)
    pruned = run(model, tasks, options=options, **settings)
    assert pruned == run(model, tasks, options=options, make=Masked, **settings)


@pytest.mark.parametrize("options", PRUNED[:2])
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_batch_gives_what_its_samples_give_alone(model, options, guidance):
    settings = {"guidance": guidance, "options": options}
    tasks = tasks_for(guidance)
    together = run(model, tasks, **settings)
    assert together == [run(model, [task], **settings)[0] for task in tasks]


def test_pruning_matters(model):
    tasks = tasks_for(NoGuidance(), 40)
    exact = run(model, tasks, use_cache=False)
    assert run(model, tasks, options=SprintOptions(text_keep_ratio=0.0, image_keep_ratio=0.0)) != exact
    by_norm = SprintOptions(text_keep_ratio=0.4, image_keep_ratio=0.2, confidence_alpha=1.0)
    by_confidence = SprintOptions(text_keep_ratio=0.4, image_keep_ratio=0.2, confidence_alpha=0.0)
    assert run(model, tasks, options=by_norm) != run(model, tasks, options=by_confidence)


def test_the_prefix_is_pruned_once_per_block(model, monkeypatch):
    from unimodal.diffusion import sprint

    lengths = []

    def watched(cache, *given, **named):
        lengths.append(cache.length)
        return prune(cache, *given, **named)

    monkeypatch.setattr(sprint, "prune", watched)
    task = SamplingTask(prompt=prompt_of(1, 3, 13), length=24)
    run(model, [task], options=SprintOptions(), threshold=1.0, vocab_range=PICTURES)
    assert lengths == [16, 24, 32]


def test_scores_by_hand():
    # Two key heads; norms 5 and 1, mean 3; 0 and 0; then padding that would count for much. The mean is 1.5.
    keys = torch.tensor([[[[3.0, 4.0], [0.0, 0.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 0.0], [9.0, 9.0]]]])
    real = torch.tensor([[True, True, False]])
    sure = torch.tensor([[0.5, 0.9, 1.0]])
    score = scores(keys, sure, real, 0.25)
    torch.testing.assert_close(score[:, :2], torch.tensor([[0.25 * 2 + 0.75 * 0.5, 0.75 * 0.9]]))
    torch.testing.assert_close(scores(keys, None, real, 1.0)[:, :2], torch.tensor([[2.0, 0.0]]))
    assert scores(torch.zeros(1, 2, 3, 2), sure, real & False, 0.5).isfinite().all()


def test_quotas_are_whole_numbers_rounded_down():
    assert quota(0.8, torch.tensor([0, 1, 4, 5, 10])).tolist() == [0, 0, 3, 4, 8]
    assert quota(0.29, torch.tensor([100])).tolist() == [29]  # 0.29 · 100 is a little less than 29 in binary
    assert quota(1.0, torch.tensor([7])).tolist() == [7]


def test_the_best_of_each_kind_by_hand():
    score = torch.tensor([[0.9, 0.1, 0.5, 0.5, 0.7]])
    among = torch.tensor([[False, True, True, True, True]])
    assert best(score, among, torch.tensor([2])).tolist() == [[False, False, True, False, True]]
    assert best(score, among, torch.tensor([9])).tolist() == among.tolist()
    assert not best(score, among, torch.tensor([0])).any()
    nearly = score + torch.tensor([0.0, 0.0, -1e-6, 1e-6, 0.0])
    assert best(nearly, among, torch.tensor([2])).tolist() == [[False, False, True, False, True]]


def test_what_is_kept_by_hand():
    # One layer, one head, keys of the lengths below; text, text, code, code, code in the first row and padding, then
    # text and codes in the second.
    lengths = torch.tensor([[1.0, 2.0, 5.0, 3.0, 4.0], [9.0, 2.0, 1.0, 2.0, 3.0]])
    cache = PrefixCache(1)
    cache.extend(0, lengths[:, None, :, None], 10 * lengths[:, None, :, None])
    cache.append(5)
    text = torch.tensor([[True, True, False, False, False], [False, True, False, False, False]])
    codes = torch.tensor([[False, False, True, True, True], [False, False, True, True, True]])
    pruned, filled = prune(cache, None, [(text, 0.5), (codes, 0.7)], alpha=1.0, room=4)
    assert filled.tolist() == [[True, True, True], [True, True, False]]
    assert pruned.keys(0)[0].flatten().tolist() == [2.0, 5.0, 4.0]
    assert pruned.values(0)[0].flatten().tolist() == [20.0, 50.0, 40.0]
    assert pruned.keys(0)[1].flatten().tolist()[:2] == [2.0, 3.0]


def test_kinds_leave_padding_out():
    canvas = Canvas.lay_out([[[1, 33, 34, 2]], [[35, 3]]], [2, 2], block_length=2, mask_id=MASK)
    text, codes = kinds(canvas, 4, is_picture)
    assert text.int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 1]]
    assert codes.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]


@torch.no_grad()
def test_confidences_are_found_in_parts_of_any_size(model, monkeypatch):
    hidden = torch.randn(2, 5, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    expected = model.head(hidden).softmax(dim=-1).amax(dim=-1)
    for at_once in (1, 3 * SIZE, 2**26):
        monkeypatch.setattr("unimodal.diffusion.sprint.LOGITS_AT_ONCE", at_once)
        torch.testing.assert_close(confidences(model.head, hidden), expected)
    assert confidences(model.head, hidden[:, :0]).shape == (2, 0)


def test_settings_of_the_paper_and_of_the_published_code():
    selective, whole, half = PAPER_SETTINGS["selective"], PAPER_SETTINGS["whole"], PAPER_SETTINGS["half"]
    assert (selective.text_keep_ratio, selective.image_keep_ratio, selective.confidence_alpha) == (1.0, 0.8, 0.5)
    assert whole.keeps_everything and not selective.keeps_everything and not half.keeps_everything
    assert SprintOptions.from_published() == SprintOptions(
        text_keep_ratio=0.7, image_keep_ratio=0.7, cache_warmup_steps=2
    )
    assert SprintOptions.from_published(keep_ratio=0.5, image_keep_ratio=1.0, cache_warmup_steps=1) == SprintOptions(
        text_keep_ratio=0.5, image_keep_ratio=1.0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_keep_ratio": 1.1}, "text_keep_ratio: got 1.1"),
        ({"image_keep_ratio": -0.1}, "image_keep_ratio: got -0.1"),
        ({"image_keep_ratio": float("nan")}, "image_keep_ratio: got nan"),
        ({"image_keep_ratio": True}, "image_keep_ratio: got True"),
        ({"confidence_alpha": 2}, "confidence_alpha: got 2"),
        ({"cache_warmup_steps": 0}, "cache_warmup_steps: got 0"),
        ({"cache_warmup_steps": 1.5}, "cache_warmup_steps: got 1.5"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SprintOptions(**options)
