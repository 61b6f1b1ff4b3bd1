"""Steps of one shape give what steps of their own shapes give, and what is recorded is replayed with new inputs."""

from copy import deepcopy

import pytest
import torch
from small_backbone import EOS, MASK, SIZE, small_backbone, words

from unimodal.backbone import CacheWindow, MaskedDiffusionTransformer, PrefixCache
from unimodal.diffusion import static_steps
from unimodal.diffusion.guidance import NoGuidance, edit_guidance, prompt_guidance
from unimodal.diffusion.prefixes import PrefixStore
from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, sample
from unimodal.diffusion.static_steps import RecordedSteps, StaticDenoiser

BLOCK = 8
OPTIONS = SamplingOptions(block_length=BLOCK, num_inference_steps=3, threshold=0.7)


@pytest.fixture(scope="module")
def model() -> MaskedDiffusionTransformer:
    return small_backbone()


def run(model, guidance, make=None, **settings) -> list[list[int]]:
    tasks = [
        SamplingTask(
            prompt=words(place, length),
            length=12 + 9 * place,
            others=[words(9 + place, 3), words(19 + place, 30)][: guidance.num_branches - 1],
        )
        for place, length in enumerate((19, 3, 40))
    ]
    result = sample(
        model, tasks, OPTIONS, mask_id=MASK, stop_ids=[EOS], guidance=guidance, denoiser=make, vocab_range=(0, SIZE)
    )
    return [tokens.tolist() for tokens in result.tokens]


def recorded_on_the_cpu(step, inputs):
    """As the recording of a graph: the function as it is now, on inputs and an output that stay where they are."""
    own = {key: value.clone() for key, value in inputs.items()}
    output = step(**own)
    return static_steps._Recorded(inputs=own, replay=lambda: output.copy_(step(**own)), output=output)


GUIDANCES = [NoGuidance(), prompt_guidance(3.0), edit_guidance(3.0, 1.5)]


@pytest.mark.parametrize("guidance", GUIDANCES, ids=["alone", "two-way", "three-way"])
@pytest.mark.parametrize("width", [1, 16, 256])
def test_steps_of_one_shape_change_nothing(model, guidance, width):
    def static(*made):
        return StaticDenoiser(*made, width_multiple=width, prefixes=PrefixStore())

    assert run(model, guidance, static) == run(model, guidance)


@pytest.mark.parametrize("guidance", GUIDANCES, ids=["alone", "two-way", "three-way"])
def test_recorded_steps_change_nothing_and_are_recorded_once_per_width(model, guidance, monkeypatch):
    names = []

    def record(step, inputs):
        names.append({key: tuple(value.shape) for key, value in inputs.items()}["visible"])
        return recorded_on_the_cpu(step, inputs)

    monkeypatch.setattr(RecordedSteps, "_record", staticmethod(record))
    static = run(model, guidance, lambda *made: StaticDenoiser(*made, width_multiple=16, record=True))
    assert static == run(model, guidance)
    # Samples leave the batch, so that a width may come once for each number of rows.
    assert len(names) == len(set(names))


def test_inputs_are_copied_into_place(monkeypatch):
    monkeypatch.setattr(RecordedSteps, "_record", staticmethod(recorded_on_the_cpu))
    steps = RecordedSteps(record=True)
    first = steps("double", lambda x: 2 * x, {"x": torch.tensor([1.0])})
    assert first.tolist() == [2.0]
    # What the name stands for was recorded: another function under it is not looked at.
    second = steps("double", lambda x: 3 * x, {"x": torch.tensor([5.0])})
    assert second.tolist() == [10.0] and second.data_ptr() == first.data_ptr()
    steps.clear()
    assert steps("double", lambda x: 3 * x, {"x": torch.tensor([5.0])}).tolist() == [15.0]


def test_without_a_gpu_nothing_is_recorded(model, monkeypatch):
    monkeypatch.setattr(RecordedSteps, "_record", staticmethod(lambda *given: pytest.fail("recorded")))
    assert run(model, NoGuidance(), StaticDenoiser) == run(model, NoGuidance())


@torch.no_grad()
def test_a_window_reads_and_writes_where_it_is_told(model):
    tokens = torch.tensor([words(1, 20), words(2, 20)])
    cache = model.new_cache(capacity=32)
    model(tokens[:, :12], cache=cache, update_cache=True)
    expected = model(tokens[:, 12:], cache=cache).logits
    for layer in range(cache.num_layers):
        cache.buffer(layer)[:, :, :, 12:] = 7.0  # what lies behind the prefix is hidden or written over
    visible = (torch.arange(24) < 20).expand(1, 1, 8, -1)
    positions = torch.arange(12, 20)[None]
    window = CacheWindow(cache, 24, torch.arange(12, 20))
    found = model(tokens[:, 12:], position_ids=positions, attention_mask=visible, cache=window).logits
    torch.testing.assert_close(found, expected)
    assert cache.length == 12
    with pytest.raises(ValueError, match="update_cache"):
        model(
            tokens[:, 12:],
            position_ids=positions,
            attention_mask=visible,
            cache=CacheWindow(cache, 24, torch.arange(12, 20)),
            update_cache=True,
        )


@torch.no_grad()
@pytest.mark.parametrize("packs", [False, True])
def test_a_step_is_one_graph_for_the_compiler_and_stays_one(model, packs):
    """No step waits for the device or changes shape: a compiler finds no break, and need not look again."""
    if packs:
        model = deepcopy(model)
        model.pack_weights()
    cache = model.new_cache(capacity=32)
    tokens = torch.tensor([words(1, 32)])
    model(tokens[:, :8], cache=cache, update_cache=True)
    seen = []

    def counting(graph, inputs):
        seen.append(graph)
        return graph.forward

    def step(tokens, positions, visible, places):
        window = CacheWindow(cache, 32, places)
        return model(tokens, position_ids=positions, attention_mask=visible, cache=window).logits

    torch._dynamo.reset()
    compiled = torch.compile(step, backend=counting, fullgraph=True)
    for start in (8, 16, 24):
        places = torch.arange(start, start + 8)
        given = {
            "tokens": tokens[:, start : start + 8],
            "positions": places[None],
            "visible": (torch.arange(32) < start + 8).expand(1, 1, 8, -1),
            "places": places,
        }
        torch.testing.assert_close(compiled(**given), step(**given))
        model(tokens[:, start : start + 8], cache=cache, update_cache=True)
    assert len(seen) == 1
    torch._dynamo.reset()


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="width_multiple: got 0"):
        StaticDenoiser(model, width_multiple=0)
    with pytest.raises(ValueError, match="width: got 8, the cache has reserved 0"):
        CacheWindow(PrefixCache(1), 8, torch.arange(2))
