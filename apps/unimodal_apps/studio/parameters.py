"""What can be set beside the prompt: a table, and the closed accordion made of it, presets first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from unimodal.settings import BlockSettings, preset_names

OWN = "As the checkpoint says"
_LABELS = {"fast": "Fast", "balanced": "Balanced", "best": "Best"}


@dataclass(frozen=True)
class Parameter:
    """A number that users may set.

    Args:
        name: of the pipeline's argument.
        hint: one line.
        low, high, step: of the slider; a field without slider where `high` is None, which may be left empty.
    """

    name: str
    label: str
    hint: str
    low: float = 0
    high: float | None = None
    step: float = 1


@dataclass(frozen=True)
class Choice:
    """One of several words that users may choose."""

    name: str
    label: str
    hint: str
    choices: tuple[str, ...]


STEPS = Parameter("num_inference_steps", "Steps per block", "Fewer are faster, more are more careful.", 1, 64)
IMAGE_STEPS = Parameter("image_num_inference_steps", "Steps per block of a picture", "As above, for codes.", 1, 64)
BLOCK = Parameter("block_length", "Block length", "Tokens that are filled in together.", 1, 128)
THRESHOLD = Parameter("threshold", "Threshold", "A token surer than this is accepted at once.", 0, 1, 0.01)
TEMPERATURE = Parameter("temperature", "Temperature", "0 takes the likeliest token; more is more varied.", 0, 2, 0.05)
TOP_K = Parameter("top_k", "Top k", "Draw among the k likeliest; empty is all.", 1)
TOP_P = Parameter("top_p", "Top p", "Draw among the likeliest of this mass; empty is all.", 0, None, 0.01)
LENGTH = Parameter("gen_length", "Length", "Tokens of a text at most.", 1, 2048)
GUIDANCE = Parameter("guidance_scale", "Guidance", "How much the prompt weighs; 1 is none.", 0, 15, 0.1)
TEXT_GUIDANCE = Parameter("text_guidance_scale", "Guidance by text", "How much the instruction weighs.", 0, 15, 0.1)
PICTURE_GUIDANCE = Parameter("image_guidance_scale", "Guidance by picture", "How much the picture weighs.", 0, 15, 0.1)
RESCALE = Parameter("guidance_rescale", "Guidance rescale", "Tames strong guidance.", 0, 1, 0.05)
DECODER = Choice("decoder", "Decoder", "Turbo takes few steps, normal many.", ("turbo", "normal"))

SAMPLING = (STEPS, BLOCK, THRESHOLD, TEMPERATURE, TOP_K, TOP_P)


class Parameters:
    """The accordion of one tab.

    Args:
        fields: what it holds, in order.
        settings: what the checkpoint says about the task.
        more: values of fields that are no settings of the task.
    """

    def __init__(
        self, fields: Sequence[Parameter | Choice], settings: BlockSettings, more: Mapping[str, Any] | None = None
    ):
        def chosen(stated: BlockSettings) -> dict[str, Any]:
            values = {**stated.model_dump(), **(more or {})}
            return {field.name: values[field.name] for field in fields}

        self._values = chosen(settings)
        self._presets = {OWN: self._values}
        self._presets |= {_LABELS.get(name, name): chosen(settings.but(preset=name)) for name in preset_names()}
        with gr.Accordion("Parameters", open=False, elem_classes="uni-parameters"):
            preset = gr.Dropdown(list(self._presets), value=OWN, label="Preset", info="Sets the fields below.")
            self.components = [_component(field, self._values[field.name]) for field in fields]
        preset.input(
            self.preset, preset, self.components, queue=False, show_progress="hidden", api_visibility="private"
        )

    def stated(self, values: Sequence[Any]) -> dict[str, Any]:
        """The arguments that are not what the checkpoint says anyway, from the values of `components`."""
        found = {}
        for (name, own), value in zip(self._values.items(), values, strict=True):
            if isinstance(own, int) and isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is not None and value != own:
                found[name] = value
        return found

    def preset(self, name: str) -> list[Any]:
        """The values of `components` under a preset."""
        return list(self._presets[name].values())


def _component(field: Parameter | Choice, value: Any) -> Any:
    words: dict[str, Any] = {"label": field.label, "info": field.hint, "value": value}
    if isinstance(field, Choice):
        return gr.Radio(list(field.choices), **words)
    if field.high is None:
        return gr.Number(minimum=field.low, step=field.step, precision=0 if field.step == 1 else None, **words)
    return gr.Slider(field.low, max(field.high, value), step=field.step, **words)
