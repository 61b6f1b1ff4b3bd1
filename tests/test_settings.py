"""Settings of the tasks: presets, policies, and what does not go together."""

from typing import Any

import pytest

import unimodal_configs
from unimodal.settings import Settings, preset_names

PUBLISHED = Settings.published()
TASKS = ("understand", "thinking", "generate", "edit", "interleave")


def test_presets_are_data_for_every_task():
    assert preset_names() == ("fast", "balanced", "best")
    for name, tasks in unimodal_configs.read("sampling", "presets").items():
        assert set(tasks) == set(TASKS), name


@pytest.mark.parametrize("task", TASKS)
def test_faster_presets_take_fewer_steps(task: str):
    settings = [getattr(PUBLISHED.with_preset(name), task) for name in preset_names()]
    steps = [(each.num_inference_steps, each.threshold) for each in settings]
    assert steps == sorted(steps) and len(set(steps)) == 3
    assert [getattr(PUBLISHED, task).but(preset=name) for name in preset_names()] == settings


def test_a_preset_keeps_what_it_does_not_name():
    fast = PUBLISHED.with_preset("fast")
    assert fast.generate.guidance_scale == PUBLISHED.generate.guidance_scale
    assert (fast.decoder, fast.images) == (PUBLISHED.decoder, PUBLISHED.images)
    assert PUBLISHED.with_preset(None) is PUBLISHED
    other = PUBLISHED.generate.but(policy="cosine").but(preset="fast")
    assert (other.policy, other.num_inference_steps) == ("cosine", 8)
    sure = PUBLISHED.understand.but(policy="threshold").but(preset="fast")
    assert sure.sampling().stated()["threshold"] == 0.85


def test_values_count_more_than_a_preset():
    settings = PUBLISHED.generate.but(preset="fast", num_inference_steps=5, threshold=None)
    assert (settings.num_inference_steps, settings.threshold) == (5, 0.95)


def test_a_policy_gets_the_options_that_it_takes():
    settings = PUBLISHED.understand.but(policy="editing", editing_threshold=0.4)
    stated = settings.sampling().stated()
    assert (stated["threshold"], stated["editing_threshold"], stated["num_inference_steps"]) == (0.95, 0.4, 32)
    assert "threshold" not in PUBLISHED.generate.but(policy="cosine").sampling().stated()
    as_many_as_needed = PUBLISHED.generate.but(policy="threshold").sampling(num_inference_steps=9)
    assert "num_inference_steps" not in as_many_as_needed.stated()
    assert settings.but(policy="quota").editing_threshold is None
    assert settings.but(policy="editing", threshold=0.5).editing_threshold == 0.4


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("understand", {"preset": "slow"}, "preset: got 'slow', it must be one of fast, balanced, best"),
        ("understand", {"policy": "luck"}, "policy: got 'luck', it must be one of quota"),
        ("understand", {"policy": "cosine"}, "policy: got 'cosine', it is for pictures; understand writes text"),
        ("interleave", {"policy": "cosine"}, "interleave writes text"),
        ("generate", {"editing_threshold": 0.5}, "editing_threshold: got 0.5, policy 'quota' has no such option"),
        ("generate", {"policy": "threshold", "remasking": "random"}, "remasking: got 'random', policy 'threshold'"),
        (
            "generate",
            {"policy": "threshold", "num_inference_steps": 3},
            "num_inference_steps: got 3, policy 'threshold'",
        ),
        ("generate", {"policy": "cosine", "threshold": 0.5}, "threshold: got 0.5, policy 'cosine' has no such option"),
        ("interleave", {"policy": "threshold", "image_num_inference_steps": 3}, "image_num_inference_steps: got 3"),
        (
            "generate",
            {"policy": "remasking", "reveal_length": 4},
            "reveal_length: got 4, pieces are for span 'sequence'",
        ),
        ("generate", {"span": "page"}, "span: got 'page'"),
    ],
)
def test_what_does_not_go_together_is_refused(task: str, values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        getattr(PUBLISHED, task).but(**values)


def test_messages_name_the_argument_of_the_caller():
    with pytest.raises(ValueError, match=r"^thinking_remasking: got 'x', policy 'quota'"):
        PUBLISHED.thinking.but("thinking_", remasking="x")


def test_a_checkpoint_may_state_a_policy(tmp_path):
    (tmp_path / "generation_config.json").write_text(
        '{"tasks": {"understand": {"policy": "editing", "threshold": 0.7, "max_post_steps": 4}}}', encoding="utf-8"
    )
    settings = Settings.of_checkpoint(tmp_path)
    assert settings.understand.sampling().stated()["max_post_steps"] == 4
    settings.save(tmp_path)
    assert Settings.of_checkpoint(tmp_path) == settings
    (tmp_path / "generation_config.json").write_text(
        '{"tasks": {"understand": {"policy": "cosine"}}}', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"generation_config.json: tasks\.understand\.policy: got 'cosine'"):
        Settings.of_checkpoint(tmp_path)
