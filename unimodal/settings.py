"""How each job is sampled: a strict schema, filled from the checkpoint, with the published values where it is silent.

A checkpoint states its own in `generation_config.json` under the key `tasks`, with the keys of
`unimodal_configs/sampling/published.yaml`; it may state some of them only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import unimodal_configs
from unimodal.diffusion.options import POLICY_OPTIONS, SamplingOptions, Span
from unimodal.diffusion.policies import make_policy, options_of
from unimodal_configs.atomic import replacing

FILE_NAME = "generation_config.json"
KEY = "tasks"

# These always have a value in the settings of a task; policies that have no use for them leave them alone.
_SHARED = ("num_inference_steps", "threshold", "minimal_topk")

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def but(self, named: str = "", **values: Any) -> Self:
        """The same settings with the values that are not None.

        Args:
            named: what messages put before the name of a value.

        Raises:
            ValueError: a value of the wrong type or out of range; the message names it.
        """
        given = {name: value for name, value in values.items() if value is not None}
        return checked(type(self), {**self.model_dump(), **given}, named)


class BlockSettings(_Strict):
    """How the blocks of a task are filled, as `SamplingOptions`; options that only some policies have may be None."""

    task: ClassVar[str]
    ends_text: ClassVar[bool] = False

    policy: str = "quota"
    num_inference_steps: int = Field(ge=1)
    block_length: int = Field(ge=1)
    span: Span = "block"
    threshold: float = Field(ge=0, le=1)
    temperature: float = Field(ge=0, allow_inf_nan=False)
    top_k: int | None = Field(ge=1)
    top_p: float | None = Field(gt=0, le=1)
    minimal_topk: int = Field(ge=1)
    remasking: str | None = None
    reveal_length: int | None = None
    choice_temperature: float | None = None
    editing_threshold: float | None = None
    max_post_steps: int | None = None

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        make_policy(self.policy, **{name: getattr(self, name) for name in POLICY_OPTIONS if name not in _SHARED})
        suits_text = self.sampling().make_policy().ends_text
        if self.ends_text and not suits_text:
            raise ValueError(f"policy: got {self.policy!r}, it is for pictures; {self.task} writes text")
        return self

    def but(self, named: str = "", *, preset: str | None = None, **values: Any) -> Self:
        """The same settings with a preset, and with the values that are not None.

        A new policy starts with its own defaults for the options that only some policies have.

        Args:
            named: what messages put before the name of a value.
            preset: `fast`, `balanced` or `best`; values count more.

        Raises:
            ValueError: no such preset, a value of the wrong type or out of range, or one that the policy has no use
                for; the message names it.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if preset is not None:
            shorter_or_longer = read_preset(preset)[self.task]
            return checked(type(self), {**self.model_dump(), **shorter_or_longer}).but(named, **given)
        changed = self.policy != given.get("policy", self.policy)
        own = {name: None for name in POLICY_OPTIONS if name not in _SHARED} if changed else {}
        settings = checked(type(self), {**self.model_dump(), **own, **given}, named)
        taken = options_of(settings.policy)
        for name, value in given.items():
            # A task may state steps of its pictures apart; they are of the same policy.
            option = name.removeprefix("image_")
            if option in POLICY_OPTIONS and option not in taken:
                raise ValueError(
                    f"{named}{name}: got {value!r}, policy {settings.policy!r} has no such option, "
                    f"it takes {', '.join(taken)}"
                )
        return settings

    def sampling(self, **values: Any) -> SamplingOptions:
        """Options for the sampler without those that the policy does not take; `values` replace the settings' own."""
        names = set(SamplingOptions.__dataclass_fields__) - set(POLICY_OPTIONS) | set(options_of(self.policy))
        stated = {**self.model_dump(), **values}
        return SamplingOptions(**{name: value for name, value in stated.items() if name in names})


class TextSettings(BlockSettings):
    ends_text = True

    gen_length: int = Field(ge=1)
    eos_early_stop: bool


class UnderstandSettings(TextSettings):
    task = "understand"

    prompt_style: Literal["chat", "bare"]


class ThinkingSettings(TextSettings):
    task = "thinking"


class GenerateSettings(BlockSettings):
    task = "generate"

    guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    guidance_rescale: float = Field(ge=0, le=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class EditSettings(BlockSettings):
    task = "edit"

    text_guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    image_guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    guidance_rescale: float = Field(ge=0, le=1)


class InterleaveSettings(TextSettings):
    task = "interleave"

    image_num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    text_guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    image_guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    guidance_rescale: float = Field(ge=0, le=1)
    max_images: int = Field(ge=0)
    max_image_tokens: int = Field(ge=1)


class DecoderSettings(_Strict):
    decoder: Literal["turbo", "normal"]
    turbo_steps: int = Field(ge=1)
    normal_steps: int = Field(ge=2)
    guidance_scale: float = Field(ge=0, allow_inf_nan=False)

    @property
    def steps(self) -> int:
        return self.turbo_steps if self.decoder == "turbo" else self.normal_steps

    def choose(self, decoder: str | None, decoder_steps: int | None) -> "DecoderSettings":
        """The same settings for a decoder and its number of steps, where they are not None.

        Raises:
            ValueError: no such decoder, or a number of steps that it cannot take.
        """
        chosen = self.but(decoder=decoder)
        try:
            if chosen.decoder == "turbo":
                return chosen.but(turbo_steps=decoder_steps)
            return chosen.but(normal_steps=decoder_steps)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{chosen.decoder}_steps", "decoder_steps", 1)) from None


class ImageSettings(_Strict):
    grid_multiple: int = Field(ge=1)
    understand_min_pixels: int = Field(ge=1)
    understand_max_pixels: int = Field(ge=1)
    understand_max_pixels_each: int = Field(ge=1)
    edit_patches: int = Field(ge=1)
    edit_rule: Literal["cover", "crop"]


class Settings(_Strict):
    """The settings of all jobs."""

    understand: UnderstandSettings
    thinking: ThinkingSettings
    generate: GenerateSettings
    edit: EditSettings
    interleave: InterleaveSettings
    decoder: DecoderSettings
    images: ImageSettings

    @classmethod
    def published(cls) -> Self:
        """Those of the published model."""
        return cls.preset("published")

    @classmethod
    def preset(cls, name: str) -> Self:
        """Those of `unimodal_configs/sampling/<name>.yaml`, over the published ones.

        Raises:
            ValueError: no such preset.
        """
        return cls._over_published(unimodal_configs.read("sampling", name), f"{name}.yaml: ")

    @classmethod
    def of_checkpoint(cls, folder: str | Path) -> Self:
        """Those of a checkpoint folder, over the published ones.

        Raises:
            ValueError: the folder's `generation_config.json` is no JSON, or states something unknown or out of range.
        """
        stated = _read(folder).get(KEY, {})
        if not isinstance(stated, Mapping):
            raise ValueError(
                f"{Path(folder) / FILE_NAME}: {KEY} is {stated!r}, it must be an object of settings per task"
            )
        return cls._over_published(stated, f"{Path(folder) / FILE_NAME}: {KEY}.")

    def with_preset(self, name: str | None) -> Self:
        """These settings with all tasks sampled by a preset; None changes nothing.

        Args:
            name: one of `preset_names()`. For one task alone, `but(preset=name)` of its settings does the same.

        Raises:
            ValueError: no such preset.
        """
        if name is None:
            return self
        return self.model_copy(update={task: getattr(self, task).but(preset=name) for task in read_preset(name)})

    def save(self, folder: str | Path) -> None:
        """States all settings in a checkpoint folder; whatever else its `generation_config.json` says stays."""
        with replacing(Path(folder) / FILE_NAME) as path:
            content = {**_read(folder), KEY: self.model_dump()}
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def _over_published(cls, stated: Mapping[str, Any], place: str) -> Self:
        values = unimodal_configs.read("sampling", "published")
        for task, own in stated.items():
            known = values.get(task)
            values[task] = {**known, **own} if isinstance(known, Mapping) and isinstance(own, Mapping) else own
        return checked(cls, values, place)


def preset_names() -> tuple[str, ...]:
    """The presets that every task has, the fastest first."""
    return tuple(unimodal_configs.read("sampling", "presets"))


def read_preset(name: str) -> Mapping[str, Mapping[str, Any]]:
    """What a preset changes, per task.

    Raises:
        ValueError: no such preset.
    """
    presets = unimodal_configs.read("sampling", "presets")
    if name not in presets:
        raise ValueError(f"preset: got {name!r}, it must be one of {', '.join(presets)}")
    return presets[name]


def _read(folder: str | Path) -> dict[str, Any]:
    """The content of `generation_config.json`, nothing if there is none."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: it must hold an object, it holds {content!r}")
    return content


def checked(model: type[Model], values: Mapping[str, Any], place: str = "") -> Model:
    """Validates, with a message of one line that names the first wrong value.

    Raises:
        ValueError: a value is unknown, missing, of the wrong type or out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = place + ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            reason = "there is no such setting"
        elif first["type"] == "missing":
            reason = "it is missing"
        elif first["type"] == "value_error":
            # From a check of several values together: it names the one that is wrong.
            name += "." if first["loc"] else ""
            raise ValueError(name + first["msg"].removeprefix("Value error, ")) from None
        else:
            reason = f"got {first['input']!r}, {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise ValueError(f"{name}: {reason}") from None
