"""Picture geometry: hand-worked sizes, transparency, orientation, and the way back to 8 bits."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unimodal_tokenizers import images

ONE, SEVERAL = images.ONE_PICTURE_PIXELS, images.SEVERAL_PICTURES_PIXELS


def gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    levels = np.stack((rows % 256, columns % 256, (rows + columns) % 256), axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "limits", "expected"),
    [
        (1080, 1920, ONE, (576, 1056)),
        (600, 800, ONE, (608, 800)),
        (64, 64, ONE, (128, 128)),
        (100, 50, ONE, (192, 96)),
        (3000, 500, ONE, (1952, 320)),
        (1080, 1920, SEVERAL, (320, 576)),
        (600, 800, SEVERAL, (384, 512)),
        (1, 1, ONE, (128, 128)),
    ],
)
def test_understanding_sizes(height: int, width: int, limits: tuple[int, int], expected: tuple[int, int]) -> None:
    minimum, maximum = limits
    assert images.understanding_size(height, width, factor=32, min_pixels=minimum, max_pixels=maximum) == expected


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (800, 600), (50, 100), (500, 3000), (7, 5), (33, 31)])
@pytest.mark.parametrize("factor", [12, 32])
def test_understood_pictures_divide_by_the_factor(width: int, height: int, factor: int) -> None:
    options = {"factor": factor, "min_pixels": 4 * factor**2, "max_pixels": 150 * factor**2}
    rows, columns = images.understanding_size(height, width, **options)
    fitted = images.fit_for_understanding(gradient(width, height), **options)
    assert fitted.width % factor == fitted.height % factor == 0
    assert fitted.width >= columns and fitted.height >= rows
    assert options["min_pixels"] <= rows * columns <= options["max_pixels"]


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = gradient(160, 96)
    fitted = images.fit_for_understanding(picture, factor=32, min_pixels=1024, max_pixels=10**6)
    assert fitted.tobytes() == picture.tobytes()


@pytest.mark.parametrize("bad", [{"factor": 0}, {"min_pixels": 0}, {"max_pixels": 3}, {"height": 0}])
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    options = {"height": 9, "width": 9, "factor": 4, "min_pixels": 4, "max_pixels": 400} | bad
    with pytest.raises(ValueError, match=next(iter(bad))):
        images.understanding_size(**options)


def test_editing_sizes() -> None:
    sizes = images.editing_sizes(256, 32)
    assert len(sizes) == 49
    assert sizes[0] == (1024, 256) and (512, 512) in sizes and sizes[-1] == (256, 1024)
    assert images.editing_sizes(1, 7) == [(7, 7)]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (512, 512, (512, 512)),
        (1024, 1024, (512, 512)),
        (1024, 768, (576, 448)),
        (1920, 1080, (672, 384)),
        (300, 900, (288, 864)),
    ],
)
def test_closest_editing_size(width: int, height: int, expected: tuple[int, int]) -> None:
    assert images.closest_size(width, height, images.editing_sizes(256, 32)) == expected


def test_the_crop_rule_keeps_scale_and_pads_black() -> None:
    picture = gradient(200, 200)
    cut = images.fit_for_editing(picture, num_patches=9, factor=32, rule="crop")
    assert cut.size == (96, 96) and cut.tobytes() == picture.crop((52, 52, 148, 148)).tobytes()
    small = images.fit_for_editing(Image.new("RGB", (60, 60), "red"), num_patches=9, factor=32, rule="crop")
    assert small.size == (96, 96)
    assert small.getpixel((59, 59)) == (255, 0, 0) and small.getpixel((60, 59)) == (0, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (20, 20), (640, 300), (3, 400)])
def test_the_cover_rule_shows_the_whole_height_or_width(width: int, height: int) -> None:
    covered = images.fit_for_editing(Image.new("RGB", (width, height), "white"), num_patches=16, factor=16)
    assert covered.size in images.editing_sizes(16, 16)
    assert covered.getextrema() == ((255, 255),) * 3


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule"):
        images.fit_for_editing(gradient(9, 9), num_patches=4, factor=4, rule="stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_patches"):
        images.fit_for_editing(gradient(9, 9), num_patches=0, factor=4)
    with pytest.raises(ValueError, match="sizes"):
        images.closest_size(3, 4, [])


def test_transparency_is_laid_on_white() -> None:
    layer = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (200, 10, 20, 255))
    layer.putpixel((2, 0), (0, 0, 0, 128))
    flat = images.to_rgb(layer)
    assert [flat.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (200, 10, 20), (127, 127, 127)]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert images.to_rgb(grey).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 255, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 1
    assert [images.to_rgb(palette).getpixel((x, 0)) for x in range(2)] == [(0, 0, 255), (255, 255, 255)]


def test_sixteen_bit_greys_are_scaled() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    assert [images.to_rgb(deep).getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (100,) * 3, (255,) * 3]


def test_camera_orientation_is_applied() -> None:
    picture = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "jpeg", exif=exif)
    assert images.to_rgb(Image.open(file)).size == (2, 4)


def test_pixels_span_minus_one_to_one() -> None:
    pixels = images.to_pixels([Image.new("RGB", (5, 4), "black"), Image.new("RGB", (5, 4), (255, 255, 0))])
    assert pixels.shape == (2, 3, 4, 5) and pixels.dtype == torch.float32
    assert pixels[0].unique().tolist() == [-1.0]
    torch.testing.assert_close(pixels[1, :, 0, 0], torch.tensor([1.0, 1.0, -1.0]))
    for sizes in ([], [(4, 4), (4, 5)]):
        with pytest.raises(ValueError, match="images"):
            images.to_pixels([Image.new("RGB", size) for size in sizes])


def test_images_truncate_and_clamp() -> None:
    levels = torch.tensor([-3.0, -1.0, 0.0, 0.9999, 1.0, 7.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    picture = images.to_images(levels)[0]
    assert [picture.getpixel((x, 0)) for x in range(6)] == [(v,) * 3 for v in (0, 0, 127, 254, 255, 255)]
    with pytest.raises(ValueError, match="pixels"):
        images.to_images(torch.zeros(3, 4, 4))


def test_there_and_back_loses_at_most_one_level() -> None:
    picture = gradient(40, 30)
    back = images.to_images(images.to_pixels([picture]))[0]
    difference = np.asarray(picture).astype(int) - np.asarray(back)
    assert difference.min() >= 0 and difference.max() <= 1
