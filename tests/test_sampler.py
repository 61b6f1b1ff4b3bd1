"""The sampler against answers worked by hand, and its fast paths against their slow twins."""

from types import SimpleNamespace

import pytest
import torch
from small_backbone import EOS, MASK, PICTURES, SIZE, WORDS, small_backbone

from unimodal.backbone import MaskedDiffusionTransformer
from unimodal.diffusion.canvas import Canvas
from unimodal.diffusion.draws import uniform
from unimodal.diffusion.filtering import keep_top_k, keep_top_p, propose
from unimodal.diffusion.guidance import (
    EditGuidance,
    NoGuidance,
    PromptGuidance,
    edit_guidance,
    prompt_guidance,
    rescaled,
)
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, drain, sample, stream


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone()


class Oracle:
    """Knows what stands at every position, and how sure to seem: a model whose answers can be worked out by hand."""

    def __init__(self, answer: list[int], certainty: list[float]):
        self.answer, self.certainty = torch.tensor(answer), torch.tensor(certainty)

    def __call__(self, tokens, position_ids, attention_mask, logits_for, vocab_range=None):
        places = position_ids[:, logits_for]
        certain = self.certainty[places]
        rest = (1 - certain) / (SIZE - 1)
        probability = rest[..., None].repeat(1, 1, SIZE).scatter(-1, self.answer[places][..., None], certain[..., None])
        return SimpleNamespace(logits=probability.log())


def fill(oracle, prompt: int, length: int, **options):
    states = list(
        stream(
            oracle,
            [SamplingTask(prompt=oracle.answer[:prompt].tolist(), length=length)],
            SamplingOptions(**options),
            mask_id=MASK,
            stop_ids=[EOS],
            use_cache=False,
        )
    )
    return [state.samples[0] for state in states]


def random_prompts(*lengths: int) -> list[list[int]]:
    source = torch.Generator().manual_seed(1)
    return [torch.randint(*WORDS, (length,), generator=source).tolist() for length in lengths]


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert keep_top_k(logits, 2).isfinite().tolist() == [False, True, False, True]
    assert keep_top_k(logits, 9).isfinite().all()
    assert keep_top_p(logits, 0.4).isfinite().tolist() == [False, True, False, False]
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [False, True, False, True]
    assert keep_top_p(logits, 0.01).isfinite().sum() == 1
    assert keep_top_p(logits, 1.0).isfinite().all()


def test_the_most_probable_token_is_proposed_but_never_the_mask():
    logits = torch.tensor([[[0.1, 0.2, 0.7], [0.3, 0.5, 0.2]]]).log()
    proposal = propose(logits, mask_id=2)
    assert proposal.tokens.tolist() == [[1, 1]]
    torch.testing.assert_close(proposal.confidence, torch.tensor([[0.2, 0.5]]))
    in_a_range = propose(logits, first_id=10, mask_id=10)
    assert in_a_range.tokens.tolist() == [[12, 11]]
    assert propose(logits, first_id=10, mask_id=12).tokens.tolist() == [[11, 11]]
    assert propose(logits, mask_id=7).tokens.tolist() == [[2, 1]]


def test_drawn_tokens_follow_the_filtered_distribution():
    probability = torch.tensor([0.1, 0.4, 0.2, 0.3])
    logits = probability.log().expand(1, 20000, 4)

    def draw():
        return uniform([torch.Generator().manual_seed(0)], 20000, "cpu")

    proposal = propose(logits, temperature=1.0, top_k=3, mask_id=1, draw=draw)
    share = torch.bincount(proposal.tokens[0], minlength=4) / 20000
    torch.testing.assert_close(share, torch.tensor([1 / 6, 0, 2 / 6, 3 / 6]), atol=0.015, rtol=0)
    torch.testing.assert_close(proposal.confidence[proposal.tokens == 3].mean(), torch.tensor(0.5))
    assert (propose(logits, temperature=0.01, draw=draw).tokens == 1).all()
    with pytest.raises(ValueError, match="draw: got None"):
        propose(logits, temperature=1.0)


def test_guidance_formulas_by_hand():
    full, other, third = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    logits = torch.stack([full, other, third])[:, None, None]
    two_way = PromptGuidance(scale=3.0, rescale=0.0).combine(logits[:2])
    assert two_way.flatten().tolist() == [3.0, 4.0, 10.0]
    three_way = EditGuidance(text_scale=2.0, image_scale=1.0, rescale=0.0).combine(logits)
    assert three_way.flatten().tolist() == [1.0, 3.0, 7.0]
    guided = torch.tensor([3.0, 4.0, 10.0])
    spread = (7 / 3) ** 0.5 / ((43 / 3) ** 0.5 + 1e-6)
    torch.testing.assert_close(rescaled(guided, full, 0.7), 0.7 * guided * spread + 0.3 * guided)


def test_guidance_that_is_off_runs_one_branch():
    assert prompt_guidance(1.0).num_branches == 1
    assert prompt_guidance(0.0).num_branches == 2
    assert edit_guidance(0.0, 0.0).num_branches == 1
    assert edit_guidance(4.0, 0.0).num_branches == 2
    assert edit_guidance(4.0, 1.5).num_branches == 3
    with pytest.raises(ValueError, match="guidance_scale: got -1"):
        prompt_guidance(-1.0)
    with pytest.raises(ValueError, match="image_guidance_scale: got -2"):
        edit_guidance(1.0, -2.0)


def test_blocks_of_ragged_rows_stay_where_they_are():
    canvas = Canvas.lay_out([[[1] * 9, [2] * 8], [[3] * 6, [4] * 7]], [5, 2], block_length=4, mask_id=0)
    assert canvas.first_block == 2
    assert canvas.starts.tolist() == [9, 10]
    assert canvas.tokens.shape == (4, 16)
    assert canvas.tokens[0].tolist() == [1] * 9 + [0] * 7
    assert canvas.tokens[1].tolist() == [0] * 4 + [3] * 6 + [0] * 6
    assert canvas.tokens[2].tolist() == [0] + [2] * 8 + [0] * 7
    assert canvas.tokens[3].tolist() == [0] * 4 + [4] * 6 + [0] * 6
    assert canvas.positions(3, 7).tolist() == [[3, 4, 5, 6], [0, 0, 1, 2], [2, 3, 4, 5], [0, 0, 1, 2]]
    visible = canvas.visible(0, 12)
    assert visible is not None
    assert visible[1, 0, 6].tolist() == [False] * 4 + [True] * 4 + [False] * 4
    assert visible[0, 0, 3].tolist() == [True] * 4 + [False] * 8
    assert visible[1, 0, 0].nonzero().flatten().tolist() == [0]


def test_the_surest_position_comes_first():
    states = fill(
        Oracle([1, 2, 3, 4, 5, 6, 7, 8], [0.9, 0.9, 0.9, 0.3, 0.5, 0.4, 0.97, 0.6]),
        prompt=3,
        length=5,
        block_length=4,
        num_inference_steps=4,
    )
    assert [state.committed.tolist() for state in states] == [[0], [3], [4], [1], [2]]
    assert states[-1].done and states[-1].tokens.tolist() == [4, 5, 6, 7, 8]
    assert states[0].tokens.tolist() == [4, MASK, MASK, MASK, MASK]


def test_positions_beyond_the_length_are_filled_but_not_returned():
    states = fill(Oracle(list(range(8)), [0.5] * 8), prompt=2, length=3, block_length=4, num_inference_steps=2)
    assert states[-1].tokens.tolist() == [2, 3, 4]
    assert all((state.committed < 3).all() for state in states)


@pytest.mark.parametrize(("early", "steps"), [(True, 2), (False, 3)])
def test_eos_ends_the_answer(early, steps):
    oracle = Oracle([1, 5, EOS, 7, 8, 9, 9, 9], [0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5])
    states = fill(oracle, prompt=1, length=7, block_length=4, num_inference_steps=4, eos_early_stop=early)
    assert states[-1].tokens.tolist() == [5, EOS]
    assert len(states) == steps


def test_eos_behind_a_mask_does_not_end_the_answer():
    oracle = Oracle([1, 5, EOS, 7, 7, 7, 7, 7], [0.9, 0.2, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5])
    states = fill(oracle, prompt=1, length=7, block_length=4, num_inference_steps=4)
    assert [state.done for state in states] == [False, False, True]
    assert states[-1].tokens.tolist() == [5, EOS]


def test_eos_in_the_prompt_is_ignored():
    states = fill(Oracle([EOS, 1, 2, 3], [0.9] * 4), prompt=2, length=2, block_length=4)
    assert states[-1].tokens.tolist() == [2, 3]


def test_a_full_block_with_eos_is_the_last():
    oracle = Oracle([1, 5, 6, EOS, 7, 8, 9, 9], [0.5] * 8)
    states = fill(oracle, prompt=1, length=7, block_length=4, eos_early_stop=False)
    assert len(states) == 3
    assert states[-1].tokens.tolist() == [5, 6, EOS]


SETTINGS = [
    pytest.param({}, id="plain"),
    pytest.param({"threshold": 0.2, "num_inference_steps": 3}, id="threshold"),
    pytest.param({"temperature": 0.8, "top_k": 20, "top_p": 0.9}, id="drawn"),
    pytest.param({"policy": "adaptive", "num_inference_steps": 4}, id="adaptive"),
]


def run(model, tasks, options, **settings):
    return sample(model, tasks, SamplingOptions(block_length=8, **options), mask_id=MASK, stop_ids=[EOS], **settings)


def seeded(prompts, length=24, others=None):
    return [
        SamplingTask(
            prompt=prompt,
            length=length + 3 * place,
            others=others[place] if others else (),
            generator=torch.Generator().manual_seed(place),
        )
        for place, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("length", [1, 21])
def test_the_cache_changes_nothing(model, options, length):
    cached = run(model, seeded(random_prompts(length)), options)
    plain = run(model, seeded(random_prompts(length)), options, use_cache=False)
    assert cached.tokens[0].tolist() == plain.tokens[0].tolist()
    assert cached.forwards == plain.forwards
    assert cached.computed < plain.computed or length == 1


def test_a_finished_block_is_computed_once_more_and_never_again(model):
    result = run(
        model, seeded(random_prompts(16)), {"num_inference_steps": 4, "threshold": 1.0, "eos_early_stop": False}
    )
    if len(result.tokens[0]) == 24:
        # The prompt's 16, then 4 steps in each of 3 blocks, then the first and second block once more as final.
        assert (result.forwards, result.computed) == (12, 16 + 12 * 8 + 2 * 8)


@pytest.mark.parametrize("options", SETTINGS)
def test_a_batch_gives_what_its_samples_give_alone(model, options):
    prompts = random_prompts(3, 26, 8)
    together = run(model, seeded(prompts), options)
    for place in range(len(prompts)):
        alone = run(model, [seeded(prompts)[place]], options)
        assert together.tokens[place].tolist() == alone.tokens[0].tolist()


@pytest.mark.parametrize(
    "guidance",
    [
        NoGuidance(),
        prompt_guidance(3.0),
        prompt_guidance(3.0, rescale=0.0),
        edit_guidance(3.0, 1.5),
        edit_guidance(2.0, 0.0),
    ],
)
def test_guided_pictures_are_the_same_cached_batched_and_plain(model, guidance):
    prompts, others = random_prompts(9, 22, 16), random_prompts(12, 22, 5)
    branches = [tuple([other, other[: 2 + place]][: guidance.num_branches - 1]) for place, other in enumerate(others)]
    settings = {"guidance": guidance, "vocab_range": PICTURES}
    together = run(model, seeded(prompts, others=branches), {"num_inference_steps": 4}, **settings)
    for place in range(3):
        task = seeded(prompts, others=branches)[place]
        alone = run(model, [task], {"num_inference_steps": 4}, use_cache=False, **settings)
        assert together.tokens[place].tolist() == alone.tokens[0].tolist()
        assert len(together.tokens[place]) == task.length
        assert all(PICTURES[0] <= token < PICTURES[1] for token in together.tokens[place].tolist())


def test_a_branch_that_no_one_weighs_is_not_needed(model):
    prompt, text, picture = random_prompts(9, 12, 5)
    two = run(
        model,
        [SamplingTask(prompt=prompt, length=16, others=(text,))],
        {},
        guidance=EditGuidance(text_scale=3.0, image_scale=0.0),
    )
    nearly = EditGuidance(text_scale=3.0, image_scale=1e-12)
    three = run(model, [SamplingTask(prompt=prompt, length=16, others=(text, picture))], {}, guidance=nearly)
    assert two.tokens[0].tolist() == three.tokens[0].tolist()


def test_logits_of_a_range_are_those_of_the_whole_vocabulary(model):
    class Whole:
        new_cache = model.new_cache

        def __call__(self, tokens, vocab_range=(0, SIZE), **settings):
            output = model(tokens, **settings)
            return SimpleNamespace(logits=output.logits[..., slice(*vocab_range)])

    part = run(model, seeded(random_prompts(13)), {}, vocab_range=PICTURES)
    whole = run(Whole(), seeded(random_prompts(13)), {}, vocab_range=PICTURES)
    assert part.tokens[0].tolist() == whole.tokens[0].tolist()


@pytest.mark.parametrize("options", SETTINGS)
def test_a_stream_drains_to_the_result_and_never_unsays_a_token(model, options):
    prompts = random_prompts(5, 19)
    settings = {"mask_id": MASK, "stop_ids": [EOS]}
    states = list(stream(model, seeded(prompts), SamplingOptions(block_length=8, **options), **settings))
    known: dict[int, dict[int, int]] = {0: {}, 1: {}}
    for state in states:
        for part in state.samples:
            assert not set(part.committed.tolist()) & set(known[part.index])
            if not part.done:
                known[part.index] |= {place: int(part.tokens[place]) for place in part.committed.tolist()}
                written = {place: token for place, token in enumerate(part.tokens.tolist()) if token != MASK}
                assert written == known[part.index]
    whole = sample(model, seeded(prompts), SamplingOptions(block_length=8, **options), **settings)
    drained = drain(iter(states))
    assert [tokens.tolist() for tokens in drained.tokens] == [tokens.tolist() for tokens in whole.tokens]
    assert drained.forwards == whole.forwards == len(states)


def test_seeds_repeat_and_differ(model):
    def draw(seed):
        task = SamplingTask(prompt=[1, 2, 3], length=16, generator=torch.Generator().manual_seed(seed))
        return run(model, [task], {"temperature": 1.0}).tokens[0].tolist()

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: got 0"),
        ({"block_length": -1}, "block_length: got -1"),
        ({"threshold": 1.5}, "threshold: got 1.5"),
        ({"temperature": -0.1}, "temperature: got -0.1"),
        ({"top_k": 0}, "top_k: got 0"),
        ({"top_p": 0.0}, "top_p: got 0.0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**options)


def test_tasks_that_make_no_sense_are_refused(model):
    with pytest.raises(ValueError, match="tasks: got none"):
        run(model, [], {})
    with pytest.raises(ValueError, match="prompts: one is empty"):
        run(model, [SamplingTask(prompt=[], length=4)], {})
    with pytest.raises(ValueError, match="gen_length: got"):
        run(model, [SamplingTask(prompt=[1], length=0)], {})
    with pytest.raises(ValueError, match="others: got 0 prompts"):
        run(model, [SamplingTask(prompt=[1], length=4)], {}, guidance=prompt_guidance(2.0))
