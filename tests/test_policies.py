"""Unmasking policies: answers worked by hand, published samplers as twins, and what is refused."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bag_model import EOS, MASK, SIZE, Bag, fill, options, tasks
from diffusers.schedulers.scheduling_block_refinement import BlockRefinementScheduler
from torch import Tensor

from unimodal.diffusion.draws import uniform
from unimodal.diffusion.filtering import Proposal, propose
from unimodal.diffusion.policies import Block, make_policy
from unimodal.diffusion.policies.scores import score
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, StepState, stream
from unimodal.diffusion.schedule import cosine_share, even_share, fixed_share


def seen_block(masked: list[list[bool]], **values: Any) -> Block:
    shown = torch.tensor(masked)
    count, width = shown.shape
    filled: dict[str, Any] = {
        "tokens": torch.where(shown, MASK, 1),
        "masked": shown,
        "open": torch.ones_like(shown),
        "places": torch.arange(width).expand(count, width),
        "sizes": torch.full((count,), width),
        "masks": shown.sum(dim=1),
        "lengths": torch.full((count,), 100),
        "full_steps": torch.zeros(count, dtype=torch.long),
        "step": 0,
    }
    return Block(**{**filled, **values})


def proposed(confidence: list[list[float]], tokens: int = 2) -> Proposal:
    """Token `tokens` everywhere, of three."""
    sure = torch.tensor(confidence)
    rest = ((1 - sure) / 2)[..., None].repeat(1, 1, 3)
    distribution = rest.scatter(-1, torch.full((*sure.shape, 1), tokens), sure[..., None])
    return Proposal(tokens=torch.full(sure.shape, tokens), confidence=sure, distribution=distribution)


def nothing_to_draw() -> Tensor:
    raise AssertionError("this policy draws")


def chosen(policy: Any, block: Block, proposal: Proposal, draw: Callable[[], Tensor] = nothing_to_draw) -> list[Any]:
    return (policy.decide(block, proposal, draw).chosen & block.masked).int().tolist()


def test_shares_by_hand():
    def fixed(size: int, steps: int) -> list[int]:
        return [int(fixed_share(torch.tensor([size]), torch.tensor([steps]), step)) for step in range(6)]

    assert fixed(32, 5) == [7, 7, 6, 6, 6, 0]
    assert fixed(4, 6) == [1, 1, 1, 1, 0, 0]
    left, even, cosine = 7, [], []
    for step in range(3):
        even.append(int(even_share(torch.tensor([left]), torch.tensor([3]), step)))
        left -= even[-1]
    assert even == [3, 2, 2]
    left = 16
    for step in range(4):
        cosine.append(int(cosine_share(torch.tensor([left]), torch.tensor([16]), torch.tensor([4]), step)))
        left -= cosine[-1]
    # cos of π/8, π/4 and 3π/8, times 16: 14.8, 11.3 and 6.1 stay.
    assert cosine == [2, 3, 5, 6]


def test_quota_takes_the_surest_and_all_above_the_threshold():
    proposal = proposed([[0.2, 0.9, 0.5, 0.4], [0.99, 0.97, 0.98, 0.1]])
    block = seen_block([[True, False, True, True], [True, True, True, True]])
    policy = make_policy("quota", num_inference_steps=2, threshold=0.95)
    assert chosen(policy, block, proposal) == [[0, 0, 1, 1], [1, 1, 1, 0]]
    even = proposed([[0.5] * 4])
    at_the_threshold = make_policy("quota", num_inference_steps=4, threshold=0.5)
    assert chosen(at_the_threshold, seen_block([[True] * 4]), even) == [[1, 0, 0, 0]]
    short = seen_block([[True] * 4], lengths=torch.tensor([6]))
    assert chosen(make_policy("quota", num_inference_steps=4, minimal_topk=3), short, even) == [[1, 1, 0, 0]]


def test_adaptive_shares_what_is_left_over_the_steps_left():
    sure = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]
    masked = [[True] * 7 + [False]]

    def count(step: int, **values: Any) -> int:
        return sum(chosen(make_policy("adaptive", **values), seen_block(masked, step=step), proposed(sure))[0])

    assert count(0, num_inference_steps=3) == 3
    assert count(2, num_inference_steps=3) == 7
    assert count(0, num_inference_steps=7, threshold=0.35) == 4
    assert count(0, num_inference_steps=7, minimal_topk=9) == 7


def test_threshold_takes_what_reaches_it_and_at_least_the_surest():
    block = seen_block([[True] * 4, [True] * 4, [False] * 4])
    proposal = proposed([[0.9, 0.91, 0.2, 0.89], [0.3, 0.2, 0.4, 0.1], [0.99] * 4])
    assert chosen(make_policy("threshold"), block, proposal) == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert chosen(make_policy("threshold", threshold=0.0), block, proposal)[1] == [1, 1, 1, 1]


def test_scores_by_hand():
    distribution = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.6, 0.2, 0.1, 0.1]]])
    proposal = Proposal(tokens=torch.tensor([[0, 1]]), confidence=torch.tensor([[0.5, 0.2]]), distribution=distribution)
    entropy = -(0.6 * math.log(0.6) + 0.2 * math.log(0.2) + 0.2 * math.log(0.1))
    expected = {
        "low_confidence": [0.5, 0.2],
        "top_k_margin": [0.0, 0.4],
        "neg_entropy": [1 - math.log(2) / math.log(4), 1 - entropy / math.log(4)],
    }
    for name, values in expected.items():
        torch.testing.assert_close(score(name, proposal, nothing_to_draw), torch.tensor([values]))
    numbers = torch.tensor([[0.3, 0.1]])
    assert score("random", proposal, lambda: numbers) is numbers


def test_pieces_are_filled_from_left_to_right():
    policy = make_policy("remasking", num_inference_steps=2, reveal_length=4)
    sure = proposed([[0.1, 0.2, 0.3, 0.4, 0.9, 0.9, 0.9, 0.9]])
    first = seen_block([[False] + [True] * 7], places=torch.arange(-1, 7)[None])
    assert chosen(policy, first, sure) == [[0, 0, 0, 1, 1, 0, 0, 0]]
    second = seen_block([[False] * 5 + [True] * 3], places=torch.arange(-1, 7)[None], step=2)
    assert chosen(policy, second, sure) == [[0, 0, 0, 0, 0, 1, 1, 0]]


def test_ancestral_reveals_by_chance_and_all_in_the_last_step():
    policy = make_policy("ancestral", num_inference_steps=4)
    numbers = torch.tensor([[0.24, 0.26, 0.1, 0.9]])
    block = seen_block([[True, True, False, True]])
    assert chosen(policy, block, proposed([[0.5] * 4]), lambda: numbers) == [[1, 0, 0, 0]]
    last = seen_block([[True, True, False, True]], step=3)
    assert chosen(policy, last, proposed([[0.5] * 4]), lambda: numbers) == [[1, 1, 0, 1]]


def test_ancestral_steps_reveal_the_share_of_the_process():
    """After t of T steps each of n positions is known with probability t/T, and all tokens are equally frequent."""
    count, steps = 4000, 5
    task = SamplingTask(prompt=[1], length=count, generator=torch.Generator().manual_seed(0))

    def no_idea(tokens, logits_for, **settings):
        return SimpleNamespace(logits=torch.zeros(*tokens[:, logits_for].shape, SIZE))

    states = list(
        stream(
            no_idea,
            [task],
            options("ancestral", num_inference_steps=steps, block_length=count + 1, temperature=1.0),
            mask_id=MASK,
            use_cache=False,
        )
    )
    known = 0
    for state in states:
        known += len(state.samples[0].committed)
        share = (state.step + 1) / steps
        assert abs(known - share * count) <= 4 * math.sqrt(share * (1 - share) * count)
    frequency = torch.bincount(states[-1].results[0], minlength=SIZE)
    assert frequency[MASK] == 0
    expected = count / (SIZE - 1)
    assert ((frequency - expected).abs()[torch.arange(SIZE) != MASK] < 5 * math.sqrt(expected)).all()


def test_a_step_that_reveals_nothing_costs_no_forward():
    task = SamplingTask(prompt=[1], length=7, generator=torch.Generator().manual_seed(0))
    states = list(stream(Bag(), [task], options("ancestral", num_inference_steps=64), mask_id=MASK, use_cache=False))
    writing = [state for state in states if len(state.samples[0].committed)]
    assert len(writing) <= 7 < len(states)
    # The logits of the first step serve until something is written, and so on.
    assert states[-1].forwards == len(writing)


class SecondThoughts:
    """Wants 5 everywhere, but 7 where the token on the left is 5, more surely."""

    def __call__(self, tokens, logits_for, **settings):
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
        better = before == 5
        choice, certain = torch.where(better, 7, 5), torch.where(better, 0.8, 0.6)
        rest = ((1 - certain) / (SIZE - 1))[..., None].repeat(1, 1, SIZE)
        probability = rest.scatter(-1, choice[..., None], certain[..., None])
        return SimpleNamespace(logits=probability[:, logits_for].log())


def edited(**values: Any) -> list[StepState]:
    choices = SamplingOptions(policy="editing", block_length=4, **values)
    task = SamplingTask(prompt=[0], length=3)
    return list(stream(SecondThoughts(), [task], choices, mask_id=MASK, use_cache=False))


def test_editing_replaces_until_nothing_changes():
    states = edited(num_inference_steps=1, threshold=1.0, editing_threshold=0.7)
    shown = [(state.samples[0].committed.tolist(), state.samples[0].replaced.tolist()) for state in states]
    # 5 5 5, then 7 where a 5 stands before; the last one has a 7 before it now, 5 is too unsure to come back.
    assert shown == [([0, 1, 2], []), ([], [1, 2]), ([], [])]
    assert [state.samples[0].tokens.tolist() for state in states] == [[5, 5, 5], [5, 7, 7], [5, 7, 7]]
    torch.testing.assert_close(states[1].samples[0].replaced_confidence, torch.tensor([0.8, 0.8]))
    assert [state.samples[0].done for state in states] == [False, False, True]
    lower = edited(num_inference_steps=1, threshold=1.0, editing_threshold=0.55)
    assert lower[-1].results[0].tolist() == [5, 7, 5]
    assert [len(state.samples[0].replaced) for state in lower] == [0, 2, 1, 0]


def test_editing_ends_with_its_steps_and_leaves_the_prompt_and_given_tokens():
    assert len(edited(num_inference_steps=1, threshold=1.0, editing_threshold=0.7, max_post_steps=0)) == 1
    assert edited(num_inference_steps=1, editing_threshold=0.55, max_post_steps=1)[-1].results[0].tolist() == [5, 7, 7]
    task = SamplingTask(prompt=[5, 1], length=4, given=[5, 5, MASK, 3])
    choices = SamplingOptions(policy="editing", block_length=8)
    [tokens] = fill([task], choices, SecondThoughts()).tokens
    assert tokens.tolist() == [5, 5, 7, 3]


def test_noise_changes_the_order_and_fades():
    policy = make_policy("cosine", num_inference_steps=2, choice_temperature=10.0)
    numbers = torch.tensor([[0.01, 0.99, 0.5, 0.5]])
    sure = proposed([[0.6, 0.5, 0.4, 0.3]])
    assert chosen(make_policy("cosine", num_inference_steps=2), seen_block([[True] * 4]), sure) == [[1, 1, 0, 0]]
    assert chosen(policy, seen_block([[True] * 4]), sure, lambda: numbers) == [[0, 1, 1, 0]]


# Published samplers, as they are written, for one sequence at temperature 0.


def llada(model: Bag, prompt: list[int], length: int, pieces: int, steps: int, remasking: str) -> list[int]:
    """The sampler of LLaDA: full attention, equal shares of the masks of a piece."""
    tokens = torch.tensor([[*prompt, *[MASK] * length]])
    size = length // pieces
    for piece in range(pieces):
        stop = len(prompt) + (piece + 1) * size
        masks = int((tokens[0, :stop] == MASK).sum())
        for step in range(steps):
            logits = model(tokens, torch.arange(tokens.shape[1])[None]).logits
            probability = logits.softmax(dim=-1)
            logits[..., MASK] = -torch.inf
            choice = logits.argmax(dim=-1)
            top = probability.topk(2, dim=-1).values
            sure = {
                "low_confidence": probability.gather(-1, choice[..., None]).squeeze(-1),
                "top_k_margin": top[..., 0] - top[..., 1],
                "neg_entropy": (probability * probability.log()).sum(dim=-1),
            }[remasking]
            sure = sure.masked_fill(tokens != MASK, -torch.inf)
            sure[:, stop:] = -torch.inf
            places = sure[0].topk(masks // steps + (step < masks % steps)).indices
            tokens[0, places] = choice[0, places]
    return tokens[0, len(prompt) :].tolist()


@pytest.mark.parametrize("remasking", ["low_confidence", "top_k_margin", "neg_entropy"])
@pytest.mark.parametrize(("pieces", "steps"), [(1, 5), (1, 12), (3, 2), (2, 6)])
def test_whole_sequences_and_pieces_are_those_of_llada(remasking, pieces, steps):
    [task] = tasks((5, 12))
    choices = options(
        "remasking",
        num_inference_steps=steps,
        remasking=remasking,
        span="sequence",
        reveal_length=None if pieces == 1 else 12 // pieces,
    )
    expected = llada(Bag(), list(task.prompt), 12, pieces, steps, remasking)
    assert fill([task], choices).tokens[0].tolist() == expected


@pytest.mark.parametrize("editing", [None, 0.2, 0.4])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_editing_and_quota_are_those_of_diffusers(threshold, editing):
    prompt, length, steps, block = [3, 1, 4, 1, 5], 19, 5, 8
    scheduler: Any = BlockRefinementScheduler(block_length=block, num_inference_steps=steps)
    scheduler.set_timesteps(steps, block_length=block)
    tokens = torch.tensor([[*prompt, *[MASK] * length]])
    columns = torch.arange(tokens.shape[1])
    mask = (columns // block <= (columns // block)[:, None])[None, None]
    model, replaced = Bag(), 0
    for start in range(0, tokens.shape[1], block):
        part = slice(start, start + block)
        step = post_steps = 0
        while True:
            masks_left = bool((tokens[:, part] == MASK).any())
            post_steps += not masks_left
            logits = model(tokens, columns[None], mask, part).logits
            logits[..., MASK] = -1e4
            output = scheduler.step(
                logits,
                step,
                tokens[:, part],
                mask_token_id=MASK,
                threshold=threshold,
                editing_threshold=editing,
                prompt_mask=columns[part] < len(prompt),
            )
            tokens[:, part] = output.prev_sample
            replaced += int(output.editing_transfer_index.sum())
            step += masks_left
            if not masks_left and (editing is None or post_steps >= 16 or not output.editing_transfer_index.any()):
                break
    policy = "quota" if editing is None else "editing"
    choices = options(policy, num_inference_steps=steps, threshold=threshold, editing_threshold=editing)
    states = list(
        stream(WithoutMask(), [SamplingTask(prompt=prompt, length=length)], choices, mask_id=MASK, use_cache=False)
    )
    assert states[-1].results[0].tolist() == tokens[0, len(prompt) :].tolist()
    assert sum(len(state.samples[0].replaced) for state in states) == replaced
    assert replaced > 0 or editing is None or threshold == 0.7


class WithoutMask(Bag):
    """Gives the mask no probability, as what it is compared with."""

    def __call__(self, *arguments, **settings):
        output = super().__call__(*arguments, **settings)
        output.logits[..., MASK] = -1e4
        return output


def test_own_numbers_are_drawn_for_own_positions():
    alone = uniform([torch.Generator().manual_seed(0)], 3, "cpu")
    [padded, waiting] = uniform([torch.Generator().manual_seed(0), None], 6, "cpu", [(2, 5), (0, 6)])
    assert padded.tolist() == [0, 0, *alone[0].tolist(), 0]
    assert not waiting.any()


def test_the_most_probable_token_of_a_range():
    proposal = propose(torch.tensor([[[0.1, 0.6, 0.3]]]).log(), first_id=10, mask_id=11)
    tokens, confidence = proposal.most_probable()
    assert tokens.tolist() == [[12]]
    torch.testing.assert_close(confidence, torch.tensor([[0.3]]))


# What is refused.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "best"}, "policy: got 'best', it must be one of quota, adaptive"),
        (
            {"policy": "threshold", "remasking": "random"},
            "remasking: got 'random', policy 'threshold' has no",
        ),
        ({"policy": "adaptive", "remasking": "random"}, "remasking: got 'random', it must be low_confidence"),
        ({"policy": "remasking", "remasking": "high"}, "remasking: got 'high'"),
        ({"policy": "remasking", "threshold": 0.5}, "threshold: got 0.5, policy 'remasking' has no such option"),
        ({"policy": "quota", "editing_threshold": 0.5}, "editing_threshold: got 0.5, policy 'quota' has no"),
        ({"policy": "editing", "editing_threshold": 1.5}, "editing_threshold: got 1.5"),
        ({"policy": "editing", "max_post_steps": -1}, "max_post_steps: got -1"),
        ({"policy": "cosine", "choice_temperature": -1.0}, "choice_temperature: got -1"),
        ({"policy": "cosine", "remasking": "random", "choice_temperature": 1.0}, "noise is for low_confidence"),
        ({"policy": "remasking", "reveal_length": 4}, "reveal_length: got 4, pieces are for span 'sequence'"),
        ({"policy": "ancestral", "num_inference_steps": 0}, "num_inference_steps: got 0"),
        ({"span": "page"}, "span: got 'page', it must be block, answer or sequence"),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**values)


def test_cosine_is_not_for_text():
    with pytest.raises(ValueError, match="policy: got 'cosine', it is for pictures"):
        fill(tasks((3, 8)), options("cosine"), stop_ids=[EOS])


def test_a_block_behind_a_prompt_is_no_whole_sequence():
    with pytest.raises(ValueError, match="span: got 'sequence'"):
        fill(tasks((3, 8)), options("quota", span="sequence"), joined=True)
