"""Edits inside a mask: what lies outside stays, bit for bit, as codes and as pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from quick_pipeline import QUICK, noise, quick_pipeline, seeded

import unimodal
from unimodal.masked_edit import EditMask, read_masks
from unimodal.picture_input import EditingFrame
from unimodal.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return quick_pipeline()


def mask_of(width: int, height: int, left: int = 0, upper: int = 0, right: int = 0, lower: int = 0) -> Image.Image:
    """White in a box."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (left, upper, right, lower))
    return mask


def source_codes(pipe: Pipeline, picture: Image.Image) -> torch.Tensor:
    return pipe._encode(pipe.sizes.for_editing(picture), unimodal.Stats())


@pytest.mark.parametrize("scales", [(3.0, 0.0), (3.0, 1.5), (0.0, 0.0)])
def test_codes_and_pixels_outside_stay(pipe, scales):
    picture, box = noise(256, 256), (64, 96, 160, 192)
    result = pipe.edit(
        picture,
        "make it green",
        mask_image=mask_of(256, 256, *box),
        mask_feather=5,
        text_guidance_scale=scales[0],
        image_guidance_scale=scales[1],
        generator=seeded(0),
        temperature=1.0,
        **QUICK,
    )
    before, after = source_codes(pipe, picture), result.codes[0]
    changeable = torch.zeros(8, 8, dtype=torch.bool)
    changeable[3:6, 2:5] = True
    assert after[~changeable].equal(before[~changeable])
    assert not after[changeable].equal(before[changeable])
    assert result.stats.tokens == int(changeable.sum())
    near = np.zeros((256, 256), dtype=bool)
    near[96 - 5 : 192 + 5, 64 - 5 : 160 + 5] = True
    old, new = np.asarray(picture), np.asarray(result.images[0])
    assert new.shape == old.shape
    assert (new[~near] == old[~near]).all()
    assert (new[96:192, 64:160] != old[96:192, 64:160]).mean() > 0.5


def test_a_white_mask_is_none_and_a_black_one_changes_nothing(pipe):
    picture = noise(200, 300)
    plain, white, black = (
        pipe.edit(
            picture,
            "make it green",
            mask_image=mask,
            generator=seeded(1),
            **QUICK,
        )
        for mask in (None, Image.new("L", (200, 300), "white"), mask_of(200, 300))
    )
    assert white.codes[0].equal(plain.codes[0])
    assert white.images[0].tobytes() == plain.images[0].tobytes()
    assert black.codes[0].equal(source_codes(pipe, picture))
    assert black.images[0].size == picture.size and black.images[0].tobytes() == picture.tobytes()
    assert black.stats.forwards == black.stats.tokens == 0


def test_each_of_several_edits_has_its_own_mask(pipe):
    first, second, other = noise(256, 256), noise(256, 256, 1), noise(256, 256, 2)
    masks = [mask_of(256, 256, 0, 0, 64, 64), None]
    together = pipe.edit([[first, other], second], ["a", "make it green"], mask_image=masks, **QUICK)
    alone = pipe.edit([first, other], "a", mask_image=masks[0], **QUICK)
    assert together.codes[0].equal(alone.codes[0])
    assert together.codes[1].equal(pipe.edit(second, "make it green", **QUICK).codes[0])
    assert np.asarray(together.images[0])[100:].tobytes() == np.asarray(first)[100:].tobytes()
    repeated = pipe.edit(first, "a", mask_image=masks[0], num_images_per_prompt=2, **QUICK)
    assert [codes.tolist() for codes in repeated.codes] == [repeated.codes[0].tolist()] * 2


def test_the_frame_says_what_the_codes_show(pipe):
    """A white square moves through a picture; the codes' picture shows it where the frame says."""
    for rule in ("cover", "crop"):
        images = pipe.settings.images.model_copy(update={"edit_rule": rule})
        sizes = type(pipe.sizes)(images, pipe.patch_size, pipe.vocab.size_ids)
        for width, height in ((300, 200), (90, 260), (64, 64), (128, 128)):
            frame = sizes.editing_frame(Image.new("RGB", (width, height)))
            for column, row in ((0.3, 0.4), (0.5, 0.5), (0.7, 0.45)):
                x, y = int(column * width), int(row * height)
                picture = Image.new("RGB", (width, height))
                picture.paste("white", (x, y, x + 8, y + 8))
                fitted = sizes.for_editing(picture)
                assert fitted.size == frame.size
                rows, columns = np.nonzero(np.asarray(fitted.convert("L")) > 200)
                centre = (columns.mean() + 0.5, rows.mean() + 0.5)
                expected = [((x, y)[a] + 4) * frame.scale[a] - frame.offset[a] for a in (0, 1)]
                assert centre == pytest.approx(expected, abs=1.0)


def test_cells_are_those_the_mask_touches():
    frame = EditingFrame(scale=(2.0, 2.0), offset=(8, 0), size=(64, 32), patch_size=16)
    allowed = np.zeros((16, 36), dtype=bool)

    def cells(row: int, column: int) -> list[list[int]]:
        one = allowed.copy()
        one[row, column] = True
        mask = EditMask(source=Image.new("RGB", (36, 16)), allowed=one, frame=frame, feather=0)
        return mask.cells().nonzero().tolist()

    assert cells(0, 3) == []
    assert cells(0, 4) == [[0, 0]] == cells(7, 11)
    assert cells(8, 12) == [[1, 1]]
    assert cells(15, 35) == [[1, 3]]
    odd = EditingFrame(scale=(1.5, 1.5), offset=(0, 0), size=(48, 48), patch_size=16)
    mask = EditMask(source=Image.new("RGB", (32, 32)), allowed=np.eye(32, dtype=bool), frame=odd, feather=0)
    assert mask.cells().tolist() == [[True, True, False], [True, True, True], [False, True, True]]


@pytest.mark.parametrize("feather", [0, 1, 4, 9])
def test_the_feather_falls_from_the_mask_outwards(feather):
    allowed = np.zeros((40, 60), dtype=bool)
    allowed[15:20, 20:40] = True
    frame = EditingFrame(scale=(1.0, 1.0), offset=(0, 0), size=(60, 40), patch_size=4)
    source, drawn = Image.new("RGB", (60, 40), "black"), Image.new("RGB", (60, 40), "white")
    mask = EditMask(source=source, allowed=allowed, frame=frame, feather=feather)
    levels = np.asarray(mask.paste(drawn))[..., 0].astype(int)
    assert (levels[allowed] == 255).all()
    below = levels[20:, 30]
    assert (below[feather:] == 0).all()
    assert (np.diff(levels[19:, 30]) <= 0).all()
    if feather > 1:
        assert 0 < below[feather // 2] < 255


def test_what_is_drawn_is_scaled_back_to_where_it_belongs():
    """The part of the picture from 20 to 80 was drawn at twice its size."""
    frame = EditingFrame(scale=(0.8, 0.8), offset=(16, 0), size=(48, 32), patch_size=16)
    columns = np.tile((np.arange(96) * 2).astype(np.uint8), (64, 1))
    drawn = Image.fromarray(np.stack([columns] * 3, axis=-1))
    source = Image.new("RGB", (100, 40), (7, 7, 7))
    allowed = np.zeros((40, 100), dtype=bool)
    allowed[:, 10:70] = True
    pasted = np.asarray(EditMask(source=source, allowed=allowed, frame=frame, feather=0).paste(drawn))[..., 0]
    assert (pasted[:, :20] == 7).all() and (pasted[:, 70:] == 7).all()
    expected = (np.arange(20, 70) + 0.5 - 20) / 60 * 96 * 2 - 1
    assert pasted[20, 22:68] == pytest.approx(expected[2:48], abs=1.5)


def test_masks_are_read_as_white_or_opaque(pipe):
    picture = noise(64, 64)

    def allowed(mask: Image.Image) -> np.ndarray:
        [found] = read_masks(mask, [[picture]], pipe.sizes, None, single=True)
        assert found is not None
        return found.allowed

    expected = np.asarray(mask_of(64, 64, 0, 0, 32, 64)) > 0
    layer = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    layer.paste((10, 20, 30, 255), (0, 0, 32, 64))
    coloured = Image.new("RGB", (64, 64))
    coloured.paste("white", (0, 0, 32, 64))
    small = mask_of(16, 16, 0, 0, 8, 16)
    for mask in (mask_of(64, 64, 0, 0, 32, 64), layer, coloured, coloured.convert("RGBA"), small, small.convert("1")):
        assert (allowed(mask) == expected).all()


BAD = [
    ({"mask_image": 5}, "mask_image: got int"),
    ({"mask_image": "no.png"}, "mask_image: there is no file 'no.png'"),
    ({"mask_image": Image.new("L", (0, 4))}, "mask_image: got an empty picture of 0 × 4"),
    ({"mask_image": Image.new("L", (64, 32))}, "mask_image: got 64 × 32 pixels for a picture of 256 × 256"),
    ({"mask_image": mask_of(256, 256, 0, 0, 9, 9), "mask_feather": -1}, "mask_feather: got -1"),
    ({"mask_feather": 3}, "mask_feather: got 3 without a mask_image"),
    (
        {"mask_image": mask_of(256, 256, 0, 0, 9, 9), "height": 256, "width": 320},
        "height, width: got 256 and 320, with",
    ),
    ({"negative_prompt": "red", "text_guidance_scale": 0.0}, "negative_prompt: got 'red', it needs guidance"),
    ({"negative_prompt": "red", "text_guidance_scale": 1.0}, "negative_prompt: got 'red', it needs guidance"),
    ({"negative_prompt": ["red", "blue"]}, "negative_prompt: got 2, 1 prompts"),
    ({"negative_prompt": " "}, "negative_prompt: got ' '"),
]


@pytest.mark.parametrize(("options", "error"), BAD)
def test_bad_masks_and_negative_prompts_are_named(pipe, options, error):
    with pytest.raises(ValueError, match=error) as caught:
        pipe.edit(noise(256, 256), "make it green", **options)
    assert "\n" not in str(caught.value)


def test_masks_for_lists_are_as_many(pipe):
    with pytest.raises(ValueError, match="mask_image: got 1, one for each of 2"):
        pipe.edit([noise(64, 64)] * 2, ["a", "b"], mask_image=[mask_of(64, 64)])
    with pytest.raises(ValueError, match="mask_image: got list"):
        pipe.edit(noise(64, 64), "a", mask_image=[mask_of(64, 64)])


def test_a_mask_only_where_the_model_does_not_look_is_refused(pipe):
    # The widest size is four times as wide as high; of a wider picture the ends are cropped off.
    picture = noise(800, 40)
    with pytest.raises(ValueError, match="mask_image: it allows changes only at the border"):
        pipe.edit(picture, "a", mask_image=mask_of(800, 40, 0, 0, 8, 40))


def test_a_negative_prompt_stands_where_the_prompt_is_left_out(pipe):
    sequences, grid = pipe.sequences, torch.zeros(8, 8, dtype=torch.long)
    assert sequences.generation("a cat", 8, 8, negative="a dog").others == (sequences.generation("a dog", 8, 8).prompt,)
    assert sequences.editing([grid], "a cat", 8, 8, negative="a dog").others == (
        sequences.editing([grid], "a dog", 8, 8).prompt,
        sequences.editing([grid], "a cat", 8, 8).others[1],
    )
    thoughts = sequences.thoughts("so")
    after = sequences.generation_after_thinking("a cat", thoughts, 8, 8, negative="a dog")
    assert after.others == (sequences.generation_after_thinking("a dog", [], 8, 8).prompt,)


def test_negative_prompts_change_what_is_drawn(pipe):
    prompts = ["a cat on a tree", "a dog in the sun"]
    plain = pipe.generate(prompts, **QUICK)
    away = pipe.generate(prompts, negative_prompt=["a dog", "a cat"], **QUICK)
    assert not away.codes[0].equal(plain.codes[0])
    one = pipe.generate(prompts[1], negative_prompt="a cat", **QUICK)
    assert one.codes[0].equal(away.codes[1])
    same = pipe.generate(prompts[0], negative_prompt="<uncondition>", **QUICK)
    assert same.codes[0].equal(plain.codes[0])
    picture = noise(256, 256)
    assert (
        not pipe.edit(picture, "make it green", negative_prompt="a dog", **QUICK)
        .codes[0]
        .equal(pipe.edit(picture, "make it green", **QUICK).codes[0])
    )
    with pytest.raises(ValueError, match="negative_prompt: got 'a dog', it needs guidance: a guidance_scale"):
        pipe.generate("a cat", negative_prompt="a dog", guidance_scale=1.0)
