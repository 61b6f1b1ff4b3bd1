"""The nodes: a loader, and one per job. Widgets at 0 or "default" leave it to the checkpoint."""

from typing import Any

from torch import Tensor

import unimodal
from unimodal import Pipeline
from unimodal.checkpoint import embedded_names
from unimodal_apps.comfyui.host import blocked, watcher
from unimodal_apps.comfyui.tensors import to_images, to_masks, to_pictures
from unimodal_apps.session import seeded

CATEGORY = "Unimodal"
DEFAULT = "default"

Inputs = dict[str, dict[str, tuple[Any, ...]]]

MODEL = ("UNIMODAL",)
TEXT = ("STRING", {"multiline": True, "default": ""})
SEED = ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True})
SIDE = ("INT", {"default": 0, "min": 0, "max": 4096, "step": 8, "tooltip": "Pixels; 0 leaves it to the model."})
STEPS = ("INT", {"default": 0, "min": 0, "max": 1024, "tooltip": "Steps per block; 0 leaves it to the model."})
DECODER = ([DEFAULT, "turbo", "normal"], {"tooltip": "What turns codes into pixels: few steps, or many."})
GUIDANCE = {"min": -1.0, "max": 30.0, "step": 0.1, "tooltip": "-1 leaves it to the model."}
SCALE = ("FLOAT", {"default": -1.0, **GUIDANCE})


class Loader:
    """Loads a checkpoint once; ComfyUI keeps it while the inputs stay."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = MODEL, ("model",)
    DESCRIPTION = "Loads an embedded checkpoint, a folder, or a model of the Hugging Face Hub (owner/name)."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        names = ", ".join(embedded_names())
        return {
            "required": {
                "model": ("STRING", {"default": "tiny", "tooltip": f"{names}, a folder, or owner/name."}),
                "device": ([DEFAULT, "cuda", "mps", "cpu"],),
                "dtype": ([DEFAULT, "bfloat16", "float16", "float32"],),
            }
        }

    def load(self, model: str, device: str, dtype: str) -> tuple[Pipeline]:
        stated = _stated(device=device, dtype=dtype)
        return (unimodal.load(model, **stated),)


class Create:
    """Pictures from a prompt."""

    CATEGORY, FUNCTION = CATEGORY, "create"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("images", "thoughts")
    DESCRIPTION = "Draws pictures from a prompt; with thinking the model first writes what it will draw."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "model": MODEL,
                "prompt": TEXT,
                "seed": SEED,
                "width": SIDE,
                "height": SIDE,
                "num_images": ("INT", {"default": 1, "min": 1, "max": 64}),
                "thinking": ("BOOLEAN", {"default": False}),
            },
            "optional": {
                "negative_prompt": TEXT,
                "guidance_scale": SCALE,
                "steps": STEPS,
                "decoder": DECODER,
                "decoder_steps": STEPS,
            },
        }

    def create(
        self, model: Pipeline, prompt: str, seed: int, num_images: int, thinking: bool, steps: int = 0, **widgets: Any
    ) -> tuple[Tensor, str]:
        drawn = model.generate(
            prompt,
            num_images_per_prompt=num_images,
            thinking=thinking,
            generator=seeded(seed),
            callback_on_step_end=watcher(),
            **_stated(num_inference_steps=steps, **widgets),
        )
        return to_images(drawn.images), "\n".join(drawn.thinking or [])


class Understand:
    """An answer to a question about pictures."""

    CATEGORY, FUNCTION = CATEGORY, "understand"
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("answer",)
    DESCRIPTION = "Answers a question about a picture; several of a batch are looked at together."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {"model": MODEL, "images": ("IMAGE",), "question": TEXT, "seed": SEED},
            "optional": {"max_tokens": STEPS, "steps": STEPS},
        }

    def understand(
        self, model: Pipeline, images: Tensor, question: str, seed: int, max_tokens: int = 0, steps: int = 0
    ) -> tuple[str]:
        answer = model.understand(
            to_pictures(images),
            question,
            generator=seeded(seed),
            callback_on_step_end=watcher(),
            **_stated(gen_length=max_tokens, num_inference_steps=steps),
        )
        return (answer.text,)


class Edit:
    """Pictures changed by an instruction."""

    CATEGORY, FUNCTION = CATEGORY, "edit"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("images",)
    DESCRIPTION = (
        "Changes each picture of a batch by an instruction. References are further pictures that the instruction "
        "speaks of. Where the mask is 0 nothing changes."
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {"model": MODEL, "images": ("IMAGE",), "instruction": TEXT, "seed": SEED},
            "optional": {
                "references": ("IMAGE",),
                "mask": ("MASK",),
                "negative_prompt": TEXT,
                "text_guidance_scale": SCALE,
                "image_guidance_scale": SCALE,
                "steps": STEPS,
                "width": SIDE,
                "height": SIDE,
                "decoder": DECODER,
                "decoder_steps": STEPS,
            },
        }

    def edit(
        self,
        model: Pipeline,
        images: Tensor,
        instruction: str,
        seed: int,
        references: Tensor | None = None,
        mask: Tensor | None = None,
        steps: int = 0,
        **widgets: Any,
    ) -> tuple[Tensor]:
        pictures = to_pictures(images)
        others = [] if references is None else to_pictures(references)
        masks = [] if mask is None else to_masks(mask)
        if len(masks) not in (0, 1, len(pictures)):
            raise ValueError(f"mask: got {len(masks)} masks for {len(pictures)} pictures, give one or as many")
        if masks:
            widgets["mask_image"] = masks * len(pictures) if len(masks) == 1 else masks
        edited = model.edit(
            [[picture, *others] for picture in pictures],
            [instruction] * len(pictures),
            generator=seeded(seed),
            callback_on_step_end=watcher(),
            **_stated(num_inference_steps=steps, **widgets),
        )
        return (to_images(edited.images),)


class Interleave:
    """An answer of text and pictures."""

    CATEGORY, FUNCTION = CATEGORY, "interleave"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("images", "text")
    OUTPUT_IS_LIST = (True, False)
    DESCRIPTION = "Answers with text and pictures in turn; the pictures come as a list, as they may differ in size."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {"model": MODEL, "prompt": TEXT, "seed": SEED},
            "optional": {
                "images": ("IMAGE",),
                "max_images": STEPS,
                "max_tokens": STEPS,
                "steps": STEPS,
                "decoder": DECODER,
                "decoder_steps": STEPS,
            },
        }

    def interleave(
        self,
        model: Pipeline,
        prompt: str,
        seed: int,
        images: Tensor | None = None,
        max_tokens: int = 0,
        steps: int = 0,
        **widgets: Any,
    ) -> tuple[list[Any], str]:
        told = model.interleave(
            prompt,
            [] if images is None else to_pictures(images),
            generator=seeded(seed),
            callback_on_step_end=watcher(),
            **_stated(gen_length=max_tokens, num_inference_steps=steps, **widgets),
        )
        pictures: list[Any] = [to_images([picture]) for picture in told.images]
        return pictures or [blocked("The answer holds no picture.")], told.text


def _stated(**widgets: Any) -> dict[str, Any]:
    """The widgets that state something; of a scale 0 does."""
    return {
        name: value
        for name, value in widgets.items()
        if not isinstance(value, str | int | float | None)
        or value not in ((-1,) if name.endswith("_scale") else (0, "", DEFAULT, None))
    }


NODE_CLASS_MAPPINGS = {
    "UnimodalLoader": Loader,
    "UnimodalCreate": Create,
    "UnimodalUnderstand": Understand,
    "UnimodalEdit": Edit,
    "UnimodalInterleave": Interleave,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "UnimodalLoader": "Load Unimodal",
    "UnimodalCreate": "Create (Unimodal)",
    "UnimodalUnderstand": "Understand (Unimodal)",
    "UnimodalEdit": "Edit (Unimodal)",
    "UnimodalInterleave": "Interleave (Unimodal)",
}
