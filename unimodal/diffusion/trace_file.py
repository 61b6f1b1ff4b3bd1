"""The file of a trace: a strict schema, only what each step wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from unimodal.diffusion.options import Plan
from unimodal.diffusion.states import SampleState, StepState

FORMAT: Literal["unimodal trace 1"] = "unimodal trace 1"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SampleRecord(_Record):
    """What a step wrote for one sample; `length` is that of its result if it is done."""

    index: int
    committed: list[int] = []
    tokens: list[int] = []
    confidence: list[float] = []
    replaced: list[int] = []
    replaced_tokens: list[int] = []
    replaced_confidence: list[float] = []
    done: bool = False
    length: int | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        for places, tokens, shares in (
            (self.committed, self.tokens, self.confidence),
            (self.replaced, self.replaced_tokens, self.replaced_confidence),
        ):
            if not len(places) == len(tokens) == len(shares):
                raise ValueError(f"got {len(places)} positions, {len(tokens)} tokens and {len(shares)} confidences")
        return self

    @classmethod
    def of_state(cls, state: SampleState) -> Self:
        return cls(
            index=state.index,
            committed=state.committed.tolist(),
            tokens=state.tokens[state.committed].tolist(),
            confidence=state.confidence.tolist(),
            replaced=state.replaced.tolist(),
            replaced_tokens=state.tokens[state.replaced].tolist(),
            replaced_confidence=state.replaced_confidence.tolist(),
            done=state.done,
            length=len(state.tokens) if state.done else None,
        )


class StepRecord(_Record):
    block: int = Field(ge=0)
    step: int = Field(ge=0)
    forwards: int = Field(ge=0)
    computed: int = Field(ge=0)
    seconds: float = Field(ge=0)
    samples: list[SampleRecord]

    @classmethod
    def of_state(cls, state: StepState) -> Self:
        return cls(
            block=state.block,
            step=state.step,
            forwards=state.forwards,
            computed=state.computed,
            seconds=state.seconds,
            samples=[SampleRecord.of_state(sample) for sample in state.samples],
        )


class PartRecord(_Record):
    """One stream: what it was asked for, and its steps."""

    stage: str
    sizes: list[tuple[int, int]] | None = None
    mask_id: int
    prompts: list[list[int]]
    lengths: list[Annotated[int, Field(ge=1)]]
    given: list[list[int] | None]
    settings: dict[str, JsonValue]
    steps: list[StepRecord] = []

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if not len(self.prompts) == len(self.lengths) == len(self.given):
            raise ValueError(
                f"got {len(self.prompts)} prompts, {len(self.lengths)} lengths and {len(self.given)} given answers"
            )
        for known, length in zip(self.given, self.lengths, strict=True):
            if known is not None and len(known) != length:
                raise ValueError(f"got {len(known)} given tokens for a length of {length}")
        return self

    @classmethod
    def of_plan(cls, plan: Plan, *, stage: str, sizes: list[tuple[int, int]] | None) -> Self:
        return cls(
            stage=stage,
            sizes=sizes,
            mask_id=plan.mask_id,
            prompts=[list(prompt) for prompt in plan.prompts],
            lengths=list(plan.lengths),
            given=[None if known is None else list(known) for known in plan.given],
            settings=dict(plan.settings),
        )

    def plan(self) -> Plan:
        return Plan(
            prompts=self.prompts,
            lengths=self.lengths,
            given=self.given,
            mask_id=self.mask_id,
            settings=self.settings,
        )


class TraceRecord(_Record):
    """The whole file."""

    format: Literal["unimodal trace 1"]
    facts: dict[str, JsonValue] = {}
    codes: list[list[list[int]]] = []
    parts: list[PartRecord]

    @classmethod
    def of(cls, facts: Mapping[str, Any], codes: list[list[list[int]]], parts: list[PartRecord]) -> Self:
        """Raises: ValueError: facts that JSON cannot hold."""
        try:
            return cls(format=FORMAT, facts=dict(facts), codes=codes, parts=parts)
        except ValidationError as error:
            raise ValueError(_first(error)) from None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises: ValueError: no such file, or one that is no trace; the message names the first thing wrong."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"path: there is no file {str(path)!r}")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"path: {str(path)!r} is no whole trace ({_first(error)})") from None

    def to_json(self) -> str:
        return self.model_dump_json(exclude_defaults=True)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
