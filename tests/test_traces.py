"""Traces: what was recorded plays again without a model, and what is damaged is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unimodal.diffusion.sampler import SamplingOptions, SamplingTask, StepState, drain, stream
from unimodal.diffusion.traces import Trace, TraceRecorder

MASK, EOS, SIZE = 30, 29, 32


def model(tokens, position_ids, attention_mask=None, logits_for=slice(None), vocab_range=None):
    """Says something else for every position, and for every number of tokens that it sees."""
    known = (tokens != MASK).sum(dim=1, keepdim=True)
    phase = (position_ids[:, logits_for] * 7 + known * 3)[..., None] + torch.arange(SIZE) * 5
    return SimpleNamespace(logits=3 * torch.sin(phase.float()))


def states(policy: str = "quota", **values: Any) -> list[StepState]:
    samples = [
        SamplingTask(prompt=[1, 2, 3], length=14, generator=torch.Generator().manual_seed(0)),
        SamplingTask(prompt=[4], length=4, given=[5, MASK, MASK, 6], generator=torch.Generator().manual_seed(1)),
    ]
    choices = SamplingOptions(policy=policy, block_length=8, **values)
    return list(stream(model, samples, choices, mask_id=MASK, stop_ids=[EOS], use_cache=False))


def recorded(*runs: list[StepState], **values: Any) -> Trace:
    recorder = TraceRecorder(facts={"prompt": "a cat", "seed": 7})
    for stage, run in zip(("thinking", "picture"), runs, strict=False):
        for state in run:
            recorder.add(state, stage=stage, sizes=[(2, 7), (2, 2)] if stage == "picture" else None)
    return recorder.trace(**values)


def told(state: StepState) -> list[Any]:
    """Everything that a state says, comparable."""
    samples = [
        [
            sample.index,
            sample.tokens.tolist(),
            sample.committed.tolist(),
            sample.confidence.tolist(),
            sample.replaced.tolist(),
            sample.replaced_confidence.tolist(),
            sample.done,
        ]
        for sample in state.samples
    ]
    results = {index: tokens.tolist() for index, tokens in state.results.items()}
    return [state.block, state.step, state.forwards, state.computed, state.seconds, samples, results]


RUNS = [
    ("quota", {"num_inference_steps": 3}),
    ("remasking", {"remasking": "random", "temperature": 1.0}),
    ("ancestral", {"num_inference_steps": 12}),
    ("editing", {"threshold": 0.1, "editing_threshold": 0.05}),
    ("threshold", {"span": "sequence"}),
]


@pytest.mark.parametrize(("policy", "values"), RUNS)
def test_a_trace_plays_what_was_recorded(tmp_path: Path, policy: str, values: dict[str, Any]) -> None:
    run = states(policy, **values)
    recorded(run).save(tmp_path / "run.json")
    trace = Trace.load(tmp_path / "run.json")
    assert [told(state) for state in trace.states()] == [told(state) for state in run]
    expected = [tokens.tolist() for tokens in drain(run).tokens]
    assert [tokens.tolist() for tokens in trace.parts[0].tokens()] == expected
    assert list(trace.parts[0].plan.prompts) == [[1, 2, 3], [4]]
    assert trace.parts[0].plan.settings["policy"] == policy


def test_edited_tokens_are_in_a_trace() -> None:
    run = states(**dict(RUNS)["editing"], policy="editing")
    assert sum(len(sample.replaced) for state in run for sample in state.samples) > 0


def test_parts_codes_and_facts_come_back(tmp_path: Path) -> None:
    codes = [torch.arange(4).reshape(2, 2)]
    recorded(states(), states(threshold=0.1), codes=codes).save(tmp_path / "new" / "run.json")
    trace = Trace.load(tmp_path / "new" / "run.json")
    assert [part.stage for part in trace.parts] == ["thinking", "picture"]
    assert trace.parts[0].sizes is None and trace.parts[1].sizes == [(2, 7), (2, 2)]
    assert trace.facts == {"prompt": "a cat", "seed": 7}
    assert [grid.tolist() for grid in trace.codes] == [[[0, 1], [2, 3]]]
    assert len(list(trace.states())) == sum(len(list(part.states())) for part in trace.parts)


def test_a_recorder_is_a_callback_of_the_pipeline() -> None:
    recorder, run = TraceRecorder(), states()
    for step, state in enumerate(run):
        grids = [torch.zeros(2, 7), torch.zeros(2, 2)][: len(state.samples)]
        recorder(None, step, state.step, {"stage": "picture", "state": state, "grids": grids})
    recorder(None, len(run), 0, {"stage": "decode", "state": object()})
    [part] = recorder.trace().parts
    assert part.stage == "picture" and part.sizes == [(2, 7), (2, 2)]
    assert [told(state) for state in part.states()] == [told(state) for state in run]


def test_a_run_that_was_ended_plays_as_far_as_it_went(tmp_path: Path) -> None:
    run = states()[:2]
    recorded(run).save(tmp_path / "run.json")
    trace = Trace.load(tmp_path / "run.json")
    assert [told(state) for state in trace.states()] == [told(state) for state in run]
    with pytest.raises(ValueError, match="of 2 samples were done"):
        trace.parts[0].tokens()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    trace = recorded(states())
    trace.save(tmp_path / "run.json")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="facts"):
        Trace(parts=trace.parts, facts={"model": object()}).save(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def damaged(change: Any) -> str:
    content = json.loads(recorded(states(num_inference_steps=4)).parts[0].record.model_dump_json())
    file = {"format": "unimodal trace 1", "parts": [content]}
    change(file, content["steps"])
    return json.dumps(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, steps: file.update(format="film"), "format"),
        (lambda file, steps: file.pop("parts"), "parts"),
        (lambda file, steps: file["parts"][0].pop("mask_id"), "mask_id"),
        (lambda file, steps: file["parts"][0]["lengths"].pop(), "2 prompts, 1 lengths"),
        (lambda file, steps: steps[0].update(speed=1), "speed"),
        (lambda file, steps: steps[0]["samples"][0]["committed"].append(3), "positions"),
        (lambda file, steps: steps[0]["samples"][0]["tokens"].__setitem__(0, "cat"), "tokens"),
        (lambda file, steps: steps[0]["samples"][0]["committed"].__setitem__(0, 99), "step 0, sample 0: positions are"),
        (lambda file, steps: steps[0]["samples"][0]["committed"].__setitem__(0, -1), "step 0, sample 0: positions are"),
        (
            lambda file, steps: steps[1].update(samples=steps[0]["samples"]),
            "step 1, sample 0: a position is filled twice",
        ),
        (lambda file, steps: steps[0]["samples"][0].update(index=5), "no sample 5 at work"),
        (lambda file, steps: steps[1].update(step=0), "comes after"),
        (lambda file, steps: steps[0]["samples"][0].update(done=True, length=14), "positions that no step fills"),
        (lambda file, steps: steps[0]["samples"][0].update(done=True, length=15), "its result has 15 of 14 tokens"),
    ],
)
def test_a_damaged_trace_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(damaged(change), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"path: .*run.json.*{message}"):
        Trace.load(path)


def test_an_undamaged_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(damaged(lambda file, steps: None), encoding="utf-8")
    assert len(Trace.load(tmp_path / "run.json").parts) == 1


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path: there is no file"):
        Trace.load(tmp_path / "none.json")
    whole = damaged(lambda file, steps: None)
    for content in ("", whole[: len(whole) // 2], "[]", "\x00"):
        (tmp_path / "run.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="is no whole trace"):
            Trace.load(tmp_path / "run.json")
