"""Raster formats and pixel layouts become the RGB picture they show."""

import io

import numpy as np
import pytest
from PIL import Image

from retr.retrieval.images import Picture, read_image, read_images

RNG = np.random.default_rng(7)
COLOUR = np.kron(RNG.integers(0, 256, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)  # 60 x 80, flat patches


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(picture: Picture) -> np.ndarray:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_formats_give_back_every_pixel(kind):
    picture = read_image(encoded(Image.fromarray(COLOUR), kind))
    assert (pixels(picture) == COLOUR).all()
    assert (picture.width, picture.height, picture.mode) == (80, 60, "RGB")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_compressed_formats_stay_close(kind, options):
    picture = read_image(encoded(Image.fromarray(COLOUR), kind, **options))
    assert np.abs(pixels(picture).astype(int) - COLOUR).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_8_bit_layouts_are_converted_as_pillow_converts_them(mode):
    image = Image.fromarray(COLOUR)
    if mode == "LA":
        image = image.convert("L")
        image.putalpha(128)
    elif mode == "LAB":
        image = Image.fromarray(COLOUR, mode="RGB").convert("RGB").convert("LAB")
    else:
        image = image.convert(mode)
    picture = read_image(encoded(image, "TIFF"))
    assert picture.mode == mode
    assert (pixels(picture) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 250, 10))])
def test_a_transparent_palette_keeps_its_colours(transparency):
    image = Image.fromarray(COLOUR).quantize(25)
    picture = read_image(encoded(image, "PNG", transparency=transparency))
    assert picture.mode == "P"
    assert (pixels(picture) == np.asarray(image.convert("RGB"))).all()


def test_alpha_is_dropped_not_blended():
    image = Image.fromarray(COLOUR)
    image.putalpha(0)
    assert (pixels(read_image(encoded(image, "PNG"))) == COLOUR).all()


def test_a_cmyk_jpeg_holds_inverted_inks_with_adobes_marker_and_without():
    white = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=95)
    at = white.index(b"\xff\xee")
    length = int.from_bytes(white[at + 2 : at + 4], "big")
    without = white[:at] + white[at + 2 + length :]
    assert b"Adobe" in white
    assert b"Adobe" not in without
    for data in (white, without):
        picture = read_image(data)
        assert picture.mode == "CMYK"
        assert pixels(picture).min() > 250


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    upright = Image.fromarray(COLOUR)
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = upright if stored is None else upright.transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    picture = read_image(encoded(image, kind, exif=exif, **(options if kind != "TIFF" else {})))
    assert (picture.width, picture.height) == (80, 60)
    assert np.abs(pixels(picture).astype(int) - COLOUR).mean() < 4


def test_a_draft_keeps_the_shorter_side_and_says_the_original_size():
    gradient = np.linspace(0, 255, 1600, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(gradient, (1200, 1600)).copy()).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", quality=95, exif=exif)
    picture = read_image(data, draft_size=448)
    assert picture.image.size == (600, 800)
    assert (picture.width, picture.height) == (1200, 1600)
    full = read_image(data).image.resize((600, 800), Image.Resampling.BOX)
    assert np.abs(pixels(picture).astype(int) - np.asarray(full)).max() <= 3


def test_a_draft_never_goes_below_what_was_asked():
    for side in (447, 448, 449, 895, 896, 897):
        data = encoded(Image.new("RGB", (side, 2 * side)), "JPEG")
        assert min(read_image(data, draft_size=448).image.size) >= min(side, 448)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF"])
def test_one_pixel_wide(size, kind):
    picture = read_image(encoded(Image.new("RGB", size, (255, 0, 0)), kind), draft_size=448)
    assert picture.image.size == size


def test_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(read_image(data))[0, 0].tolist() == [255, 0, 0]
    assert [suffix for suffix, _ in read_images(data)] == [""]


def test_sources_agree(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR), "PNG"))
    with path.open("rb") as stream:
        sources = [path, str(path), path.read_bytes(), stream, Image.open(path), COLOUR]
        for source in sources:
            assert (pixels(read_image(source)) == COLOUR).all()


def test_arrays():
    assert (pixels(read_image(COLOUR[..., 0])) == COLOUR[..., :1]).all()
    assert (pixels(read_image(np.dstack([COLOUR, COLOUR[..., 0]]))) == COLOUR).all()
    assert (pixels(read_image(COLOUR[::-1, ::-1])) == COLOUR[::-1, ::-1]).all()
    deep = COLOUR[..., 0].astype(np.uint16) * 100
    assert pixels(read_image(deep)).max() == 255
    assert read_image(deep).mode == "I;16"


def test_a_callers_pil_image_is_not_altered():
    image = Image.fromarray(COLOUR).quantize(25)
    image.info["transparency"] = bytes(25)
    read_image(image)
    assert image.mode == "P"
    assert image.info["transparency"] == bytes(25)


def test_tiff_pages_count_from_one_and_do_not_share_pixels():
    pages = [Image.new("RGB", (20, 10), (value, 0, 0)) for value in (10, 20, 30, 40, 50)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    given = [(suffix, pixels(picture)[0, 0, 0]) for suffix, picture in list(read_images(data, frames=2))]
    assert given == [("#1", 10), ("#3", 30), ("#5", 50)]


def test_tiff_thumbnails_are_not_pages():
    thumbnail = Image.new("RGB", (4, 2), (9, 9, 9))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    data = encoded(Image.fromarray(COLOUR), "TIFF", save_all=True, append_images=[thumbnail])
    assert [suffix for suffix, _ in read_images(data)] == [""]
