"""What holds for every unmasking policy: positions are filled once; batches, spans and seeds keep their promises."""

from collections.abc import Iterator

import pytest
import torch
from bag_model import MASK, Bag, fill, options, tasks

from unimodal.diffusion.policies import POLICIES
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, StepState, drain, stream

CASES = [
    pytest.param(options("quota"), id="quota"),
    pytest.param(options("quota", threshold=0.3), id="quota with a low threshold"),
    pytest.param(options("adaptive", threshold=0.4, remasking="neg_entropy"), id="adaptive"),
    pytest.param(options("remasking"), id="low confidence"),
    pytest.param(options("remasking", remasking="random"), id="random"),
    pytest.param(options("remasking", remasking="top_k_margin", temperature=0.7), id="margin, drawn"),
    pytest.param(options("threshold", threshold=0.5), id="threshold"),
    pytest.param(options("cosine"), id="cosine"),
    pytest.param(options("cosine", choice_temperature=3.0, temperature=1.0), id="cosine with noise"),
    pytest.param(options("ancestral", temperature=1.0), id="ancestral"),
    pytest.param(options("editing", threshold=0.2, editing_threshold=0.2), id="editing"),
]


def states_of(samples: list[SamplingTask], choices: SamplingOptions) -> Iterator[StepState]:
    return stream(Bag(), samples, choices, mask_id=MASK, use_cache=False)


@pytest.mark.parametrize("choices", CASES)
def test_every_position_is_filled_once(choices):
    samples = tasks((3, 20), (9, 13))
    filled: dict[int, list[int]] = {0: [], 1: []}
    written: dict[int, dict[int, int]] = {0: {}, 1: {}}
    blocks = []
    for state in states_of(samples, choices):
        blocks.append(state.block)
        assert state.step < {"threshold": 8, "editing": 4 + 16}.get(choices.policy, 4)
        for part in state.samples:
            assert len(part.committed) == len(part.confidence) and len(part.replaced) == len(part.replaced_confidence)
            assert set(part.replaced.tolist()) <= set(filled[part.index])
            assert choices.policy == "editing" or not len(part.replaced)
            filled[part.index] += part.committed.tolist()
            for place in [*part.committed.tolist(), *part.replaced.tolist()]:
                assert written[part.index].get(place) != int(part.tokens[place])
                written[part.index][place] = int(part.tokens[place])
            shown = {place: token for place, token in enumerate(part.tokens.tolist()) if token != MASK}
            assert shown == written[part.index]
    assert blocks == sorted(blocks)
    for index, task in enumerate(samples):
        assert sorted(filled[index]) == list(range(task.length))


@pytest.mark.parametrize("span", ["block", "answer", "sequence"])
@pytest.mark.parametrize("choices", CASES)
def test_neighbours_change_nothing(choices, span):
    choices = SamplingOptions(**{**choices.stated(), "span": span})
    lengths = (3, 20), (19, 9), (8, 13)
    together = fill(tasks(*lengths), choices).tokens
    for place in range(len(lengths)):
        [alone] = fill([tasks(*lengths)[place]], choices).tokens
        assert together[place].tolist() == alone.tolist()


@pytest.mark.parametrize("choices", CASES)
def test_a_sequence_is_a_block_of_its_length(choices):
    whole = SamplingOptions(**{**choices.stated(), "span": "sequence"})
    one_block = SamplingOptions(**{**choices.stated(), "block_length": 17})
    assert fill(tasks((5, 12)), whole).tokens[0].tolist() == fill(tasks((5, 12)), one_block).tokens[0].tolist()


@pytest.mark.parametrize("choices", CASES)
def test_draining_equals_the_call_and_seeds_repeat(choices):
    states = list(states_of(tasks((3, 12), (9, 13)), choices))
    drained, whole = drain(iter(states)), fill(tasks((3, 12), (9, 13)), choices)
    assert [tokens.tolist() for tokens in drained.tokens] == [tokens.tolist() for tokens in whole.tokens]
    assert drained.forwards == whole.forwards
    ended = {part.index: part.tokens.tolist() for state in states for part in state.samples if part.done}
    assert ended == {index: tokens.tolist() for index, tokens in enumerate(whole.tokens)}


@pytest.mark.parametrize("choices", [case for case in CASES if case.id in ("random", "cosine with noise", "ancestral")])
def test_other_seeds_give_other_answers(choices):
    answers = set()
    for seed in range(3):
        task = SamplingTask(prompt=[1, 2], length=22, generator=torch.Generator().manual_seed(seed))
        answers.add(tuple(fill([task], choices).tokens[0].tolist()))
    assert len(answers) > 1


def test_closing_a_stream_leaves_nothing_behind():
    model = Bag()
    expected = fill(tasks((5, 20)), options("quota"), model).tokens[0].tolist()
    states = stream(model, tasks((5, 20)), options("quota"), mask_id=MASK, use_cache=False)
    seen = next(states)
    next(states)
    states.close()  # type: ignore[attr-defined]
    assert torch.is_grad_enabled()
    assert list(states) == []
    # A state that was not looked at before still says what it was.
    assert len(seen.samples[0].committed) == 2
    assert fill(tasks((5, 20)), options("quota"), model).tokens[0].tolist() == expected


def test_given_blocks_and_answers_need_no_step():
    given = [*range(1, 10), MASK, *range(11, 20)]
    task = SamplingTask(prompt=[1, 2], length=len(given), given=given)
    done = SamplingTask(prompt=[1, 2], length=4, given=[5, 6, 7, 8])
    states = list(states_of([task, done], options("quota")))
    assert drain(states).tokens[1].tolist() == [5, 6, 7, 8]
    answer = drain(states).tokens[0].tolist()
    assert answer[9] != MASK and answer[:9] == given[:9] and answer[10:] == given[10:]
    assert states[-1].forwards == 1


def test_every_policy_is_tried_here():
    assert {case.values[0].policy for case in CASES} == set(POLICIES)  # type: ignore[union-attr]
