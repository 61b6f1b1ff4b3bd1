"""Reference cases of the image tokenizer: picture geometry, features and codes of a checkpoint folder."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from unimodal_tokenizers import images
from unimodal_tokenizers.siglip_vq import ImageTokenizer

NAME = "cases_image_tokenizer"
TABLES = ("smart_resize", "crop_size_list")
# The tables were made with the published factor and with sides of the tokenised picture in place of patch counts.
TABLE_FACTOR = 32


def cases(folder: Path) -> list[str]:
    """The names `run` takes: one per case of the folder, and its tables; none without such a file."""
    if not (folder / f"{NAME}.json").is_file():
        return []
    description = _description(folder)
    return [case["name"] for case in description.get("cases", [])] + [t for t in TABLES if t in description]


def run(folder: Path, case: str) -> None:
    """Fails unless the case's resized pixels and codes are exact and its features within 2e-5."""
    description = _description(folder)
    if case in TABLES:
        _check_table(case, description[case])
    else:
        _check_case(folder, next(entry for entry in description["cases"] if entry["name"] == case))


def _description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))


def _check_table(table: str, rows: Any) -> None:
    if table == "crop_size_list":
        for side, sizes in rows.items():
            num_patches = (int(side) // TABLE_FACTOR) ** 2
            assert images.editing_sizes(num_patches, TABLE_FACTOR) == [tuple(size) for size in sizes]
        return
    for row in rows:
        for name, limits in (("single", images.ONE_PICTURE_PIXELS), ("multi", images.SEVERAL_PICTURES_PIXELS)):
            size = images.understanding_size(
                row["height"], row["width"], factor=TABLE_FACTOR, min_pixels=limits[0], max_pixels=limits[1]
            )
            assert size == tuple(row[name]), (row, name)


def _check_case(folder: Path, case: dict[str, Any]) -> None:
    name, rule = case["name"], case["preprocessing"]
    tensors = load_file(folder / f"{NAME}.safetensors")
    tokenizer = ImageTokenizer.from_pretrained(folder / "image_tokenizer", dtype=torch.float32)
    with Image.open(folder / rule["source"]) as source:
        resized = _resize(source, rule)
    with Image.open(folder / "images" / f"{name}.png") as expected:
        pixels = images.to_pixels([resized])
        assert torch.equal(pixels, images.to_pixels([expected]))

    height, width = case["grid_thw"][1:]
    assert resized.size == tuple(case["image_size"])
    torch.testing.assert_close(_patches(pixels, tokenizer.patch_size), tensors[f"{name}.pixel_values"], rtol=0, atol=0)
    with torch.no_grad():
        features = tokenizer.features(pixels)
    assert features.shape[:3] == (1, height, width)
    torch.testing.assert_close(features.flatten(0, 2), tensors[f"{name}.features"], rtol=0, atol=2e-5)
    assert torch.equal(tokenizer.encode(pixels).flatten(), tensors[f"{name}.token_ids"])


def _resize(source: Image.Image, rule: dict[str, Any]) -> Image.Image:
    if rule["kind"] == "smart_resize":
        factor = rule["patch_size"] * rule["merge_size"]
        limits = {"min_pixels": rule["min_pixels"], "max_pixels": rule["max_pixels"]}
        return images.fit_for_understanding(source, factor=factor, **limits)
    assert rule["kind"] == "bucket_center_crop", rule
    return images.fit_for_editing(source, num_patches=rule["num_patches"], factor=rule["patch_size"], rule="crop")


def _patches(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """[1, 3, Y, X] to rows of patches, each flattened channel first."""
    grid = pixels.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
