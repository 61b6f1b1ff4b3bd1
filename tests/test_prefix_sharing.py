"""Beginnings that rows or calls share are computed once, and nothing else changes."""

import pytest
import torch
from quick_pipeline import gradient, quiet_pipeline
from small_backbone import EOS, MASK, PICTURES, is_picture, locate, small_backbone, words
from torch import nn

from unimodal.backbone import MaskedDiffusionTransformer, PrefixCache
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.denoiser import CachedDenoiser
from unimodal.diffusion.guidance import edit_guidance, prompt_guidance
from unimodal.diffusion.prefixes import FinishedBlock, PrefixStore, block_names
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample
from unimodal.diffusion.shared_prefill import PASS_IN_COLUMNS, plan_cuts
from unimodal.diffusion.sprint import SprintDenoiser, SprintOptions

BLOCK, STEPS = 8, 4
OPTIONS = SamplingOptions(block_length=BLOCK, num_inference_steps=STEPS, threshold=0.6, eos_early_stop=False)


class Counted(nn.Module):
    """A model that counts the tokens it computes."""

    def __init__(self, inner: MaskedDiffusionTransformer):
        super().__init__()
        self.inner = inner
        self.new_cache, self.head = inner.new_cache, inner.head
        self.tokens = 0

    def forward(self, tokens, **settings):
        self.tokens += tokens.numel()
        return self.inner(tokens, **settings)

    def hidden(self, tokens, **settings):
        self.tokens += tokens.numel()
        return self.inner.hidden(tokens, **settings)


@pytest.fixture(params=[0, 2], ids=["flat", "rows-and-columns"])
def model(request: pytest.FixtureRequest) -> Counted:
    return Counted(small_backbone(head_dim=16, grid_rotary_dim=request.param))


def picture(seed: int, length: int = 80) -> list[int]:
    return [3, *torch.randint(*PICTURES, (length,), generator=torch.Generator().manual_seed(seed)).tolist()]


def task(prompt: list[int], length: int = 20, others: tuple[list[int], ...] = ()) -> SamplingTask:
    return SamplingTask(prompt=prompt, length=length, others=others)


def run(model: Counted, tasks: list[SamplingTask], **settings):
    """The tokens of each sample, and how many tokens the model computed."""
    if model.inner.config.grid_rotary_dim:
        settings["locate"] = locate
    before = model.tokens
    result = sample(model, tasks, OPTIONS, mask_id=MASK, stop_ids=[EOS], **settings)
    return [tokens.tolist() for tokens in result.tokens], model.tokens - before


def each_alone(model: Counted, tasks: list[SamplingTask], **settings) -> list[list[int]]:
    return [run(model, [one], use_cache=False, **settings)[0][0] for one in tasks]


QUESTIONS = {
    "one picture": [[*picture(1), *words(place, 3 + 7 * place)] for place in range(4)],
    "two pictures": [[*picture(1 + place % 2), *words(place, 3 + 7 * place)] for place in range(4)],
    "the same prompt": [[*picture(1), *words(5, 6)]] * 3,
    "one begins another": [picture(1), [*picture(1), *words(5, 40)], [*picture(1), *words(5, 60)]],
    "nothing in common": [words(place, 30 + place) for place in range(3)],
    "one without a whole block": [words(1, 5), [*picture(1), *words(2, 9)], [*picture(1), *words(3, 9)]],
}


@pytest.mark.parametrize("prompts", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_batch_that_shares_gives_what_each_gives_alone(model, prompts):
    tasks = [task(prompt, 12 + 5 * place) for place, prompt in enumerate(prompts)]
    assert run(model, tasks)[0] == each_alone(model, tasks)


@pytest.mark.parametrize("prompts", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_second_call_gives_the_same_from_what_the_first_left(model, prompts):
    store = PrefixStore()

    def stored(model, vocab_range):
        return CachedDenoiser(model, vocab_range, prefixes=store)

    tasks = [task(prompt, 12) for prompt in prompts]
    alone = each_alone(model, tasks)
    for one, expected in zip(tasks, alone, strict=True):
        assert run(model, [one], denoiser=stored)[0] == [expected]
    assert run(model, tasks, denoiser=stored)[0] == alone


@pytest.mark.parametrize("guidance", [prompt_guidance(3.0), edit_guidance(3.0, 1.5)], ids=["two-way", "three-way"])
def test_guidance_branches_share_with_their_like(model, guidance):
    branches = [
        ([*picture(1), *words(place, 9)], (picture(1), [3, *words(place, 9)])[: guidance.num_branches - 1])
        for place in (0, 0, 1, 2)
    ]
    tasks = [task(prompt, 24, others) for prompt, others in branches]
    settings = {"guidance": guidance, "vocab_range": PICTURES}
    alone = each_alone(model, tasks, **settings)
    tokens, computed = run(model, tasks, **settings)
    assert tokens == alone
    assert computed < sum(run(model, [one], **settings)[1] for one in tasks)
    store = PrefixStore()
    for _ in range(2):
        kept = run(model, tasks, denoiser=lambda *made: CachedDenoiser(*made, prefixes=store), **settings)
        assert kept[0] == alone


def test_a_picture_asked_about_by_several_is_computed_once(model):
    tasks = [task([*picture(1), *words(place, 6)], 1) for place in range(5)]
    _, computed = run(model, tasks)
    # 80 columns of the picture for one row, and for each row the last block, in at most all its steps.
    assert 80 < computed <= 80 + 5 * BLOCK * STEPS
    assert computed < sum(run(model, [one])[1] for one in tasks) - 4 * 80 + 1


def test_the_same_picture_again_is_not_computed_again(model):
    store = PrefixStore()

    def stored(model, vocab_range):
        return CachedDenoiser(model, vocab_range, prefixes=store)

    first = run(model, [task([*picture(1), *words(1, 30)], 1)], denoiser=stored)
    again = run(model, [task([*picture(1), *words(1, 30)], 1)], denoiser=stored)
    assert again[0] == first[0]
    assert again[1] == first[1] - (1 + 80 + 30) // BLOCK * BLOCK
    other = run(model, [task([*picture(1), *words(2, 30)], 1)], denoiser=stored)
    assert other[1] - again[1] in range(24, 24 + BLOCK * STEPS + 1)


def test_an_answer_is_known_when_it_comes_back_as_a_prompt(model):
    store = PrefixStore()

    def stored(model, vocab_range):
        return CachedDenoiser(model, vocab_range, prefixes=store)

    prompt = [*picture(1), *words(1, 30)]
    [[*answer]], _ = run(model, [task(prompt, 60)], denoiser=stored, vocab_range=(0, 28))
    longer = [*prompt, *answer, *words(9, 5)]
    expected = run(model, [task(longer, 4)], use_cache=False)[0]
    tokens, computed = run(model, [task(longer, 4)], denoiser=stored)
    assert tokens == expected
    assert computed < len(longer) // 2


def test_sprint_shares_too(model):
    options = SprintOptions(text_keep_ratio=0.6, image_keep_ratio=0.5)
    store = PrefixStore()
    tasks = [task([*picture(1), *words(place, 6 + 9 * place)]) for place in range(4)]

    def sprint(model, vocab_range):
        return SprintDenoiser(model, vocab_range, options=options, is_picture=is_picture)

    def stored(model, vocab_range):
        return SprintDenoiser(model, vocab_range, options=options, is_picture=is_picture, prefixes=store)

    alone = [run(model, [one], denoiser=sprint)[0][0] for one in tasks]
    tokens, computed = run(model, tasks, denoiser=sprint)
    assert tokens == alone
    # Blocks that an exact run left have no confidences; they are found again, and then known.
    run(model, tasks, denoiser=lambda *made: CachedDenoiser(*made, prefixes=store))
    assert run(model, tasks, denoiser=stored)[0] == alone
    again, saved = run(model, tasks, denoiser=stored)
    assert again == alone and saved < computed


def test_changed_weights_are_another_model(model):
    store = PrefixStore()

    def stored(model, vocab_range):
        return CachedDenoiser(model, vocab_range, prefixes=store)

    prompt = [*picture(1), *words(1, 30)]
    run(model, [task(prompt)], denoiser=stored)
    with torch.no_grad():
        model.inner.layers[0].attention.query_key_value.weight.mul_(1.5)
    assert run(model, [task(prompt)], denoiser=stored)[0] == run(model, [task(prompt)], use_cache=False)[0]


def test_names_tell_what_keys_and_values_depend_on():
    def names(prompts, *, block_length=4, where=None, identity=b""):
        canvas = Canvas.lay_out(prompts, [1] * len(prompts), block_length=block_length, mask_id=0, locate=where)
        return block_names(canvas, canvas.first_block, identity)

    long, short, other = names([[[1, 2, 3, 4, 5, 6, 7, 8]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7, 9]]])
    assert long[:1] == short == other[:1] and len(long) == 2 and long[1] != other[1]
    # A branch that starts within a block has its blocks at other tokens.
    _, inside = names([[[9, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]]])
    assert len(inside) == 2 and not set(inside) & set(long)
    [eight] = names([[[1, 2, 3, 4, 5, 6, 7, 8]]], block_length=8)
    [placed] = names([[[1, 2, 3, 4, 5, 6, 7, 8]]], where=lambda tokens: torch.ones(*tokens.shape, 2, dtype=torch.long))
    [of_another] = names([[[1, 2, 3, 4, 5, 6, 7, 8]]], identity=b"another")
    assert len({*long, *eight, *placed, *of_another}) == 7


def test_names_can_be_gone_on_with():
    canvas = Canvas.lay_out([[[1] * 9, [2] * 3]], [20], block_length=4, mask_id=0)
    assert block_names(canvas, 6, b"", block_names(canvas, 1)) == block_names(canvas, 6)


def test_cuts_by_hand():
    picture, question = [bytes([place]) for place in range(20)], [bytes([100 + place]) for place in range(4)]
    # Two rows share 20 blocks: cut there. One pass: 2 · 22 blocks; two: 20 + 2 · 2 blocks and one pass more.
    names = [[*picture, *question[:2]], [*picture, *question[2:]]]
    assert plan_cuts(names, set(), 8) == ([0, 20, 22], (20 + 4) * 8 + 2 * PASS_IN_COLUMNS)
    # What is known costs nothing; then only the questions are left.
    assert plan_cuts(names, set(picture), 8) == ([0, 20, 22], 4 * 8 + PASS_IN_COLUMNS)
    assert plan_cuts(names, {*picture, *question}, 8)[1] == 0
    # A block in common is not worth a pass.
    short = [[picture[0], *question[:2]], [picture[0], *question[2:]]]
    assert plan_cuts(short, set(), 8) == ([0, 3], 6 * 8 + PASS_IN_COLUMNS)
    # A row that is the beginning of another needs no pass of its own.
    assert plan_cuts([picture, picture[:5]], set(), 8) == ([0, 20], 20 * 8 + PASS_IN_COLUMNS)


def block_of(value: float, confidence: float | None = None) -> FinishedBlock:
    sure = None if confidence is None else torch.full((4,), confidence)
    return FinishedBlock(layers=(torch.full((2, 1, 4, 2), value),), confidence=sure)


def test_the_store_forgets_what_was_not_used_for_longest():
    size = block_of(0.0).num_bytes
    store = PrefixStore(max_bytes=4 * size)
    store.put([b"a0", b"a1"], [block_of(1.0), block_of(2.0)])
    store.put([b"b0", b"b1"], [block_of(3.0), block_of(4.0)])
    assert store.num_bytes == 4 * size
    assert len(store.known([b"a0", b"a1", b"a2"])) == 2
    store.put([b"c0"], [block_of(5.0)])
    # The end of the row that was used before the others goes first, for its beginning is of use without it.
    assert [len(store.known(row)) for row in ([b"a0", b"a1"], [b"b0", b"b1"], [b"c0"])] == [2, 1, 1]
    assert store.num_bytes == 4 * size
    store.clear()
    assert (len(store), store.num_bytes, store.known([b"a0"])) == (0, 0, [])


def test_the_store_keeps_within_its_bytes():
    store = PrefixStore(max_bytes=block_of(0.0).num_bytes * 2 - 1)
    store.put([b"a0", b"a1", b"a2"], [block_of(1.0), block_of(2.0), block_of(3.0)])
    assert len(store) == 1 and len(store.known([b"a0", b"a1"])) == 1
    nothing = PrefixStore(max_bytes=0)
    nothing.put([b"a0"], [block_of(1.0)])
    assert len(nothing) == 0 and nothing.num_bytes == 0
    with pytest.raises(ValueError, match="max_bytes: got -1"):
        PrefixStore(max_bytes=-1)


def test_the_store_owns_what_it_keeps_and_learns_confidences():
    store = PrefixStore()
    block = block_of(1.0)
    store.put([b"a"], [block])
    block.layers[0].zero_()
    assert store.known([b"a"])[0].layers[0].min() == 1
    assert store.known([b"a"], with_confidence=True) == []
    store.put([b"a"], [block_of(1.0, confidence=0.5)])
    assert len(store.known([b"a"], with_confidence=True)) == 1
    assert store.num_bytes == block_of(1.0, confidence=0.5).num_bytes


def test_joined_caches_start_with_zeros_where_a_row_is_shorter():
    part = torch.arange(2 * 1 * 3 * 2.0).view(2, 1, 3, 2) + 1
    cache = PrefixCache.joined([[[part], [part + 100]], [[part + 200]], []], 6, capacity=9)
    assert cache.length == 6 and cache.keys(0).shape == (3, 1, 6, 2)
    assert torch.equal(cache.pair(0)[:, 0, :, 3:], part + 100)
    assert torch.equal(cache.pair(0)[:, 1, :, 3:], part + 200) and not cache.pair(0)[:, 1, :, :3].any()
    assert not cache.pair(0)[:, 2].any()


def test_a_pipeline_reads_the_same_picture_once(monkeypatch):
    pipe = quiet_pipeline("tiny")
    shown = gradient()
    encoded = []
    encode = pipe.image_tokenizer.encode
    monkeypatch.setattr(pipe.image_tokenizer, "encode", lambda pixels: encoded.append(pixels) or encode(pixels))
    questions = ["what is it ?", "what color is it ?"]
    together = pipe.understand([shown, shown], questions, gen_length=8)
    assert len(encoded) == 1 and len(pipe.prefixes) > 0
    for question, expected in zip(questions, together.tokens, strict=True):
        fresh = PrefixStore()
        monkeypatch.setattr(pipe, "prefixes", fresh)
        assert pipe.understand(shown, question, gen_length=8).tokens[0].tolist() == expected.tolist()
        held = len(fresh)
        assert held > 0
        assert pipe.understand(shown, question, gen_length=8).tokens[0].tolist() == expected.tolist()
        assert len(fresh) == held
    assert len(encoded) == 1
