"""What can be set beside the prompt: a table, and the closed accordion made of it, presets first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from unimodal.diffusion.options import POLICY_OPTIONS
from unimodal.diffusion.policies import POLICIES, options_of
from unimodal.diffusion.sprint import PAPER_SETTINGS
from unimodal.settings import BlockSettings, preset_names

OWN = "As the checkpoint says"
_LABELS = {"fast": "Fast", "balanced": "Balanced", "best": "Best"}


@dataclass(frozen=True)
class Parameter:
    """A number that users may set.

    Args:
        name: of the pipeline's argument.
        hint: one line.
        low, high, step: of the slider.
        nothing: its place where the checkpoint sets no limit.
        limitless: what is stated for that place where the checkpoint does.
    """

    name: str
    label: str
    hint: str
    low: float
    high: float
    step: float = 1
    nothing: float | None = None
    limitless: float | None = None


@dataclass(frozen=True)
class Choice:
    """One of several words that users may choose."""

    name: str
    label: str
    hint: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Switch:
    """Whether and how steps read less than everything; its values are words, what is stated is their meaning."""

    name: str
    label: str
    hint: str
    meanings: Mapping[str, Mapping[str, Any] | None]


POLICY = Choice("policy", "Policy", "Decides which positions a step fills.", tuple(POLICIES))
SPRINT = Switch(
    "sprint",
    "Sprint",
    "Steps read less of what came before: the likeliest 80 % of a picture, or half of everything.",
    {
        "off": None,
        "selective": asdict(PAPER_SETTINGS["selective"]),
        "half": asdict(PAPER_SETTINGS["half"]),
    },
)
STEPS = Parameter("num_inference_steps", "Steps per block", "Fewer are faster, more are more careful.", 1, 64)
IMAGE_STEPS = Parameter("image_num_inference_steps", "Steps per block of a picture", "As above, for codes.", 1, 64)
BLOCK = Parameter("block_length", "Block length", "Tokens that are filled in together.", 1, 128)
THRESHOLD = Parameter("threshold", "Threshold", "A token surer than this is accepted at once.", 0, 1, 0.01)
TEMPERATURE = Parameter("temperature", "Temperature", "0 takes the likeliest token; more is more varied.", 0, 2, 0.05)
TOP_K = Parameter("top_k", "Top k", "Draw among the k likeliest; 0 is all.", 0, 200, 1, 0, 2**31 - 1)
TOP_P = Parameter("top_p", "Top p", "Draw among the likeliest of this mass; 1 is all.", 0.01, 1, 0.01, 1, 1.0)
LENGTH = Parameter("gen_length", "Length", "Tokens of a text at most.", 1, 2048)
GUIDANCE = Parameter("guidance_scale", "Guidance", "How much the prompt weighs; 1 is none.", 0, 15, 0.1)
TEXT_GUIDANCE = Parameter("text_guidance_scale", "Guidance by text", "How much the instruction weighs.", 0, 15, 0.1)
PICTURE_GUIDANCE = Parameter("image_guidance_scale", "Guidance by picture", "How much the picture weighs.", 0, 15, 0.1)
RESCALE = Parameter("guidance_rescale", "Guidance rescale", "Tames strong guidance.", 0, 1, 0.05)
DECODER = Choice("decoder", "Decoder", "Turbo takes few steps, normal many.", ("turbo", "normal"))

SAMPLING = (POLICY, STEPS, BLOCK, THRESHOLD, TEMPERATURE, TOP_K, TOP_P)
_PICTURES_OWN = "image_"
"""Stands before options of a policy that a task states for its pictures apart."""

Field = Parameter | Choice | Switch


class Parameters:
    """The accordion of one tab.

    Args:
        fields: what it holds, in order.
        settings: what the checkpoint says about the task.
        more: values of fields that are no settings of the task.
    """

    def __init__(self, fields: Sequence[Field], settings: BlockSettings, more: Mapping[str, Any] | None = None):
        def chosen(stated: BlockSettings) -> dict[str, Any]:
            values = {**stated.model_dump(), **(more or {}), SPRINT.name: "off"}
            return {field.name: _shown(field, values[field.name]) for field in fields}

        self._fields = {field.name: field for field in fields}
        self._values = chosen(settings)
        self._presets = {OWN: self._values}
        self._presets |= {_LABELS.get(name, name): chosen(settings.but(preset=name)) for name in preset_names()}
        with gr.Accordion("Parameters", open=False, elem_classes="uni-parameters"):
            preset = gr.Dropdown(list(self._presets), value=OWN, label="Preset", info="Sets the fields below.")
            self.components = [_component(field, self._values[field.name], settings) for field in fields]
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        preset.input(self.preset, preset, self.components, **quiet)
        if POLICY.name in self._fields:
            self._bound = [name for name in self._fields if name.removeprefix(_PICTURES_OWN) in POLICY_OPTIONS]
            by_name = dict(zip(self._fields, self.components, strict=True))
            by_name[POLICY.name].change(
                self.fitting, by_name[POLICY.name], [by_name[name] for name in self._bound], **quiet
            )

    def stated(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """The arguments that are not what the checkpoint says anyway.

        Args:
            values: of the components, by component.
        """
        given = {name: values[component] for name, component in zip(self._fields, self.components, strict=True)}
        found = {}
        for name, value in given.items():
            own, field = self._values[name], self._fields[name]
            if isinstance(own, int) and isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is None or value == own or not _counts(name, given.get(POLICY.name)):
                continue
            if isinstance(field, Switch):
                value = dict(field.meanings[str(value)] or {})
            elif isinstance(field, Parameter) and value == field.nothing:
                value = field.limitless
            found[name] = value
        return found

    def preset(self, name: str) -> list[Any]:
        """The values of `components` under a preset."""
        return list(self._presets[name].values())

    def fitting(self, policy: str) -> Any:
        """Shows of the options of policies those that this one has."""
        updates = [gr.update(visible=_counts(name, policy)) for name in self._bound]
        return updates if len(updates) > 1 else updates[0]


def _shown(field: Field, value: Any) -> Any:
    return field.nothing if value is None and isinstance(field, Parameter) else value


def _counts(name: str, policy: str | None) -> bool:
    option = name.removeprefix(_PICTURES_OWN)
    return policy is None or option not in POLICY_OPTIONS or option in options_of(policy)


def _component(field: Field, value: Any, settings: BlockSettings) -> Any:
    words: dict[str, Any] = {"label": field.label, "info": field.hint, "value": value}
    words["visible"] = _counts(field.name, settings.policy)
    if field is POLICY:
        return gr.Dropdown([name for name in POLICY.choices if _suits(settings, name)], **words)
    if isinstance(field, Choice | Switch):
        return gr.Radio(list(field.choices if isinstance(field, Choice) else field.meanings), **words)
    return gr.Slider(field.low, max(field.high, value), step=field.step, **words)


def _suits(settings: BlockSettings, policy: str) -> bool:
    try:
        settings.but(policy=policy)
    except ValueError:
        return False
    return True
