"""Scores a checkpoint on held-out scenes of the picture-book world: answers, drawings, edits and the pixel decoders.

Drawn and edited pictures are judged as they come out of the pipeline, read back from their pixels alone by
`unimodal.world.reader`. The same samples and seed give the same questions, pictures and noise, whatever the batch size.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from unimodal.evaluation import prompts
from unimodal.world.reader import SceneReader
from unimodal.world.render import render
from unimodal.world.sampling import sample_scene
from unimodal.world.scene import Level, Scene, load_level
from unimodal_tokenizers.images import to_images, to_pixels

if TYPE_CHECKING:
    from unimodal.pipeline import Pipeline

Scores = dict[str, Any]
Item = TypeVar("Item")

MOST_PICTURES_OF_THE_NORMAL_DECODER = 16
"""Its many steps are slow, and its mean error hardly varies with the pictures."""

_HIGHEST_PSNR = 100.0
_LIBRARIES = ("unimodal", "torch", "transformers", "diffusers", "accelerate")


@dataclass(frozen=True)
class _Evaluation:
    pipe: Pipeline
    samples: int
    seed: int
    level: Level
    reader: SceneReader
    batch_size: int
    progress: bool

    def batches(self, task: str, items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], list[torch.Generator]]]:
        """Items in batches, with one generator for each that does not depend on the batch."""
        with tqdm(total=len(items), desc=task, unit="sample", disable=not self.progress) as bar:
            for start in range(0, len(items), self.batch_size):
                chosen = items[start : start + self.batch_size]
                places = range(start, start + len(chosen))
                yield chosen, [torch.Generator().manual_seed(self._noise_seed(task, place)) for place in places]
                bar.update(len(chosen))

    def _noise_seed(self, task: str, place: int) -> int:
        return Random(f"{self.seed} {task} {place}").getrandbits(62)


def evaluate(
    pipe: Pipeline,
    samples: int,
    seed: int,
    level: str = "standard",
    tasks: Sequence[str] = ("understand", "generate", "edit", "decode"),
    batch_size: int = 32,
    progress: bool = True,
) -> Scores:
    """Scores in [0, 1] (`decode.psnr` in dB) per task, as a tree that can be written as JSON.

    - `understand`: `accuracy` (exact match over all questions) and that of each kind of question; `baseline` and
      `baselines` (per kind): always giving the kind's commonest answer in training.
    - `generate`: GenEval's six tasks (arXiv 2310.11513) and `overall`, their mean; `strict` the same where the picture
      must also have all places, sizes, words and the background that the prompt states, and nothing else.
    - `edit`: `success` (the requested change is there), `preserved` (all else is kept), `both`; the same per kind.
    - `decode`: held-out pictures encoded and decoded again: `psnr` and `scene` (the whole scene is read rightly), each
      for the decoders `normal` and `turbo`; `pictures` says how many, at most 16 of the slow `normal` decoder.
    - `settings`: all that the scores depend on, and the seconds of each task.

    Args:
        pipe: how it samples is left as its checkpoint says; its own progress bars are switched off.
        samples: held-out samples of each task.
        level: the level of the world.
        tasks: which of the four to run.
        batch_size: samples that go through the pipeline together.

    Raises:
        ValueError: an argument out of range, or an unknown task or level.
    """
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, it must be a whole number of at least 1")
    if not tasks or set(tasks) - set(_TASKS):
        raise ValueError(f"tasks: got {', '.join(tasks) or 'none'}, allowed are {', '.join(_TASKS)}")
    world = load_level(level)
    evaluation = _Evaluation(pipe, samples, seed, world, SceneReader(world), batch_size, progress)
    pipe.set_progress_bar_config(disable=True)
    scores: Scores = {}
    seconds: dict[str, float] = {}
    for task in dict.fromkeys(tasks):
        started = time.perf_counter()
        scores[task] = _TASKS[task](evaluation)
        seconds[task] = round(time.perf_counter() - started, 2)
    return {**scores, "settings": _describe(pipe, samples, seed, level, batch_size, seconds)}


def _understand(evaluation: _Evaluation) -> Scores:
    level, seed = evaluation.level, evaluation.seed
    examples = prompts.sample_questions(level, evaluation.samples, seed)
    results = []
    for batch, generators in evaluation.batches("understand", examples):
        pictures = [[render(scene, level) for scene in one.scenes] for one in batch]
        answers = evaluation.pipe.understand(pictures, [one.question for one in batch], generator=generators).texts
        results += [
            (one.kind, prompts.is_right_answer(answer, one.answer)) for one, answer in zip(batch, answers, strict=True)
        ]
    shares = prompts.accuracies(results)
    baselines = prompts.baseline_accuracy(examples, prompts.commonest_answers(level, seed))
    return {
        "accuracy": shares.pop("overall"),
        "baseline": baselines.pop("overall"),
        **shares,
        "baselines": baselines,
    }


def _generate(evaluation: _Evaluation) -> Scores:
    level = evaluation.level
    plain, strict = [], []
    for batch, generators in evaluation.batches(
        "generate", prompts.sample_prompts(level, evaluation.samples, evaluation.seed)
    ):
        images = evaluation.pipe.generate([one.prompt for one in batch], generator=generators).images
        for one, image in zip(batch, images, strict=True):
            scene, wanted = evaluation.reader.read(image), one.requirement
            plain.append((wanted.task, prompts.satisfies(wanted, scene, level)))
            strict.append((wanted.task, prompts.satisfies(wanted, scene, level, strict=True)))
    return {**_with_mean_of_kinds(plain), "strict": _with_mean_of_kinds(strict)}


def _with_mean_of_kinds(results: list[tuple[str, bool]]) -> Scores:
    shares = prompts.accuracies(results)
    return {**shares, "overall": prompts.mean_of_kinds(shares)}


def _edit(evaluation: _Evaluation) -> Scores:
    level = evaluation.level
    results: dict[str, list[tuple[str, bool]]] = {"success": [], "preserved": [], "both": []}
    for batch, generators in evaluation.batches(
        "edit", prompts.sample_edits(level, evaluation.samples, evaluation.seed)
    ):
        pictures = [[render(scene, level) for scene in one.sources] for one in batch]
        images = evaluation.pipe.edit(pictures, [one.instruction for one in batch], generator=generators).images
        for one, image in zip(batch, images, strict=True):
            scene = evaluation.reader.read(image)
            is_done = prompts.edit_success(one, scene, level)
            is_kept = prompts.edit_preserved(one, scene, level)
            for name, value in (("success", is_done), ("preserved", is_kept), ("both", is_done and is_kept)):
                results[name].append((one.kind, value))
    shares = {name: prompts.accuracies(values) for name, values in results.items()}
    kinds = dict.fromkeys(kind for kind, _ in results["both"])
    return {
        **{name: values["overall"] for name, values in shares.items()},
        **{kind: {name: values[kind] for name, values in shares.items()} for kind in kinds},
    }


def _decode(evaluation: _Evaluation) -> Scores:
    level, random = evaluation.level, Random(evaluation.seed)
    scenes = [sample_scene(level, random, "test") for _ in range(evaluation.samples)]
    counts = {"normal": min(len(scenes), MOST_PICTURES_OF_THE_NORMAL_DECODER), "turbo": len(scenes)}
    measured = {name: _decoded(evaluation, name, scenes[:count]) for name, count in counts.items()}
    return {
        "psnr": {name: psnr for name, (psnr, _) in measured.items()},
        "scene": {name: share for name, (_, share) in measured.items()},
        "pictures": counts,
    }


def _decoded(evaluation: _Evaluation, decoder: str, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Mean PSNR in dB, and the share of scenes that are read rightly, after encoding and decoding."""
    pipe, level = evaluation.pipe, evaluation.level
    drawing = pipe.settings.decoder.choose(decoder, None)
    weight = pipe.image_tokenizer.codebook
    ratios, right = [], []
    for batch, generators in evaluation.batches(f"decode {decoder}", scenes):
        pictures = [render(scene, level) for scene in batch]
        small = [pipe.sizes.for_understanding([picture])[0] for picture in pictures]
        codes = pipe.image_tokenizer.encode(to_pixels(small).to(weight.device, weight.dtype))
        pixels = pipe.decoder.decode(
            codes,
            decoder=drawing.decoder,
            num_steps=drawing.steps,
            generator=generators,
            guidance_scale=drawing.guidance_scale,
        )
        for scene, picture, image in zip(batch, pictures, to_images(pixels), strict=True):
            ratios.append(peak_signal_to_noise(image, picture))
            right.append(_shows(scene, evaluation.reader.read(image), level))
    return sum(ratios) / len(ratios), sum(right) / len(right)


def peak_signal_to_noise(image: Image.Image, reference: Image.Image) -> float:
    """The ratio in dB between two 8-bit RGB pictures, at most 100; an image of another size is scaled first."""
    if image.size != reference.size:
        image = image.resize(reference.size, Image.Resampling.BOX)
    difference = np.asarray(image, np.float64) - np.asarray(reference, np.float64)
    error = float((difference**2).mean())
    return min(10 * math.log10(255**2 / error), _HIGHEST_PSNR) if error else _HIGHEST_PSNR


def _shows(scene: Scene, read: Scene, level: Level) -> bool:
    """Whether the scene that was read has the same background, and the same things in the same places."""

    def things(of: Scene) -> list[tuple[str, ...]]:
        return sorted((t.kind, t.color, t.size, level.place(t), t.text or "") for t in of.things)

    return read.background == scene.background and things(read) == things(scene)


def _describe(
    pipe: Pipeline, samples: int, seed: int, level: str, batch_size: int, seconds: dict[str, float]
) -> Scores:
    return {
        "model": pipe.folder.name if pipe.folder else None,
        "samples": samples,
        "seed": seed,
        "level": level,
        "batch_size": batch_size,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "sampling": pipe.settings.model_dump(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "seconds": seconds,
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


_TASKS: dict[str, Callable[[_Evaluation], Scores]] = {
    "understand": _understand,
    "generate": _generate,
    "edit": _edit,
    "decode": _decode,
}
