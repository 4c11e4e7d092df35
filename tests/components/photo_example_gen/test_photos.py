"""Every picture file becomes an upright JPEG, or is rejected with a reason."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from components.photo_example_gen import jpeg, photos
from components.photo_example_gen.photos import Photo
from components.photo_example_gen.rejects import Reason, Rejected
from components.transform import decode_photo
from tests.components.photo_example_gen.pictures import noise, smooth
from tests.pictures import ORIENTATION, as_stored, encoded, exif, lossless_jpeg, png

# These tests also decode damaged pictures themselves.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MAX_PIXELS = 1_000_000
PLANTED = b"Lange Str. 7"  # what no photo may tell


@pytest.fixture
def read(tmp_path):
    def read(data: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
        path = tmp_path / "picture"
        path.write_bytes(data)
        return photos.read(str(path), max_pixels)

    return read


def pixels(photo: Photo) -> np.ndarray:
    image = Image.open(BytesIO(photo.jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert image.getexif().get(ORIENTATION, 1) == 1
    return np.asarray(image).astype(int)


def assert_shows(photo: Photo, expected: Image.Image | np.ndarray, tolerance: int = 12) -> None:
    difference = np.abs(pixels(photo) - np.asarray(expected).astype(int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise()),
        encoded(noise(), quality=30, progressive=True),
    ],
)
def test_an_upright_rgb_jpeg_keeps_its_bytes(read, data):
    assert read(data).jpeg == data


@pytest.mark.parametrize("trailer", [b"\0" * 20, b"\xff\xd9", encoded(noise())])
def test_data_after_a_jpeg_is_dropped(read, trailer):
    data = encoded(smooth())
    assert read(data + trailer) == read(data)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"comment": PLANTED}),
        ("JPEG", {"comment": PLANTED, "progressive": True}),
        ("MPO", {"save_all": True, "append_images": [noise()]}),
        *[(format, {}) for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")],
        ("GIF", {"comment": PLANTED}),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_metadata_is_dropped(read, format, options, orientation):
    tags = exif(orientation)
    tags[ExifTags.Base.BodySerialNumber] = PLANTED.decode()
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSAreaInformation] = PLANTED
    known = {"exif": tags, "xmp": b"<x:xmpmeta>" + PLANTED, "icc_profile": PLANTED}
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", PLANTED)
        options = {"pnginfo": text}
    if format == "GIF":
        known = {}
    data = encoded(noise(), format, **known, **options)
    kept = read(data + PLANTED).jpeg
    assert PLANTED in data and PLANTED not in kept
    image = Image.open(BytesIO(kept))
    assert image.size == ((8, 12) if known and orientation == 6 else (12, 8))
    assert not image.info.keys() & {"exif", "xmp", "icc_profile", "comment", "photoshop", "mp"}


@pytest.mark.parametrize("orientation", [1, 6])
def test_metadata_does_not_change_the_picture(read, orientation):
    plain = read(encoded(smooth(), exif=exif(orientation)))
    told = encoded(smooth(), exif=exif(orientation), comment=PLANTED, icc_profile=PLANTED)
    assert read(told) == plain


def test_a_lossless_jpeg_is_encoded_again(read, monkeypatch):
    """Transform can't read it, and does not know its name."""
    data = lossless_jpeg(smooth())
    photo = read(data)
    assert photo.photo_id == read(encoded(smooth(), "BMP")).photo_id
    assert_shows(photo, smooth())
    assert_shows(photo, decode_photo(tf.constant(photo.jpeg)))
    monkeypatch.setattr(jpeg, "without_metadata", lambda data: data)
    assert read(data) == photo  # because Transform's decoder was tried
    assert rejected(read, data[: len(data) // 2]).reason == Reason.UNREADABLE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(read, orientation, format):
    stored = as_stored(smooth(), orientation)
    photo = read(encoded(stored, format, exif=exif(orientation)))
    assert_shows(photo, smooth(), tolerance=24)
    if format != "TIFF":  # for a TIFF, Pillow itself gives the upright size
        assert (photo.width, photo.height) == stored.size


def test_damaged_exif_does_not_reject_a_picture(read):
    data = encoded(smooth(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff damaged")
    assert_shows(read(data), smooth())


def grey_ramp(levels: int, dtype: type) -> np.ndarray:
    return np.linspace(0, levels, 64 * 16).astype(dtype).reshape(16, 64)


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (Image.fromarray(grey_ramp(255, np.uint8)), "PNG"),
        (Image.fromarray(grey_ramp(255, np.uint8)), "JPEG"),
        (Image.fromarray(grey_ramp(255, np.uint8)).convert("P"), "GIF"),
        (Image.fromarray(grey_ramp(255, np.uint8)).convert("LA"), "PNG"),
        (Image.fromarray(grey_ramp(255, np.uint8)).convert("RGBA"), "PNG"),
        (Image.fromarray(grey_ramp(255, np.uint8)).convert("RGB"), "BMP"),
        (Image.fromarray(grey_ramp(255, np.uint8)).convert("RGB"), "PPM"),
        (Image.fromarray(grey_ramp(65535, np.uint16)), "PNG"),
        (Image.fromarray(grey_ramp(65535, np.uint16)), "TIFF"),
        (Image.fromarray(grey_ramp(65535, np.int32)), "TIFF"),
        (Image.fromarray(grey_ramp(1, np.float32)), "TIFF"),
        (Image.fromarray(grey_ramp(255, np.float32)), "TIFF"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_grey_of_any_depth_keeps_its_shades(read, image, format):
    photo = read(encoded(image, format))
    assert_shows(photo, np.repeat(grey_ramp(255, np.uint8)[..., None], 3, -1), tolerance=4)
    assert photo.format == format
    assert photo.brightness == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_colours_of_16_bits_keep_their_shades(read, color, channels):
    grey = np.repeat(grey_ramp(65535, np.uint16)[..., None], channels, -1)
    if channels in (2, 4):
        grey[..., -1] = 65535  # opaque
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in grey)
    photo = read(png(64, 16, 16, color, zlib.compress(rows)))
    assert_shows(photo, np.repeat(grey_ramp(255, np.uint8)[..., None], 3, -1), tolerance=4)


def test_bilevel(read):
    image = Image.new("1", (16, 16), 1)
    assert_shows(read(encoded(image, "PNG")), np.full((16, 16, 3), 255))


def test_cmyk(read):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    photo = read(encoded(image))
    assert_shows(photo, np.full((16, 16, 3), (255, 0, 0)))
    assert photo.mode == "CMYK"


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (32, 16), (200, 0, 0, 255))
    image.paste((0, 0, 200, 0), (16, 0, 32, 16))
    return image


@pytest.mark.parametrize(
    ("image", "format", "options"),
    [
        (half_transparent(), "PNG", {}),
        (half_transparent(), "WEBP", {"lossless": True}),
        (half_transparent().quantize(), "PNG", {}),
        (half_transparent(), "GIF", {}),
        (half_transparent().convert("RGB"), "PNG", {"transparency": (0, 0, 200)}),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_transparency_shows_white(read, image, format, options):
    shown = pixels(read(encoded(image, format, **options)))
    assert np.abs(shown[:, :12] - (200, 0, 0)).max() <= 8
    assert np.abs(shown[:, 20:] - 255).max() <= 8


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_read(read, format):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert_shows(read(data), frames[0])


def test_mpo_and_avif(read):
    assert_shows(read(encoded(smooth(), "MPO", save_all=True, append_images=[noise()])), smooth())
    assert_shows(read(encoded(smooth(), "AVIF", quality=95)), smooth(), tolerance=40)


def test_photo_id_depends_on_the_upright_pixels_only(read):
    data = encoded(noise(), "PNG")
    photo = read(data)
    assert photo.photo_id == read(encoded(noise(), "BMP")).photo_id
    turned = noise().transpose(Image.Transpose.ROTATE_90)
    assert photo.photo_id == read(encoded(turned, "PNG", exif=exif(6))).photo_id
    assert photo.photo_id != read(encoded(noise().resize((8, 12)), "PNG")).photo_id
    # 12 × 8 and 8 × 12 black pixels are the same bytes, but not the same picture.
    wide, high = (encoded(Image.new("RGB", size), "PNG") for size in ((12, 8), (8, 12)))
    assert read(wide).photo_id != read(high).photo_id


def test_measures(read, monkeypatch):
    photo = read(encoded(noise(0, 100, 80), "PNG"))
    luma = np.asarray(noise(0, 100, 80).convert("L")).astype(float)
    laplacian = (
        4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    )
    assert photo.sharpness == pytest.approx(laplacian.var())
    assert photo.brightness == pytest.approx(luma.mean() / 255)
    assert (photo.width, photo.height, photo.format, photo.mode) == (100, 80, "PNG", "RGB")
    monkeypatch.setattr(photos, "_STRIP_PIXELS", 700)
    assert read(encoded(noise(0, 100, 80), "PNG")) == photo  # strips give the same measures
    assert read(encoded(noise(0, 2, 80), "PNG")).sharpness == 0


def test_a_checkerboard_has_the_highest_sharpness(read):
    checkers = np.indices((80, 100)).sum(0) % 2 * 255
    photo = read(encoded(Image.fromarray(checkers.astype(np.uint8)), "PNG"))
    assert photo.sharpness == 1020**2
    assert photo.brightness == 0.5


def test_the_same_picture_gives_the_same_bytes(read):
    data = encoded(smooth(), "PNG", exif=exif(3))
    assert read(data) == read(data)


def rejected(read, data: bytes, max_pixels: int = MAX_PIXELS) -> Rejected:
    with pytest.raises(Rejected) as info:
        read(data, max_pixels)
    assert "\n" not in info.value.detail
    return info.value


def test_too_many_pixels_are_refused_before_decoding(read):
    # The pixels of this picture would fill the memory.
    bomb = png(30_000, 30_000, 8, 2, zlib.compress(bytes(1000)))
    rejection = rejected(read, bomb)
    assert rejection.reason == Reason.TOO_MANY_PIXELS
    assert "900000000 pixels" in rejection.detail  # this is above Pillow's own limit
    rejection = rejected(read, png(2000, 1000, 8, 2, zlib.compress(bytes(1000))))
    assert rejection.reason == Reason.TOO_MANY_PIXELS
    assert "2000 × 1000" in rejection.detail
    huge = encoded(Image.new("L", (30_000, 30_000 // 600)), "PNG")
    assert rejected(read, huge).reason == Reason.TOO_MANY_PIXELS
    assert rejected(read, encoded(noise()), max_pixels=95).reason == Reason.TOO_MANY_PIXELS
    assert read(encoded(noise()), max_pixels=96)


def test_a_zip_bomb_does_no_harm(read):
    flood = zlib.compress(bytes(200_000_000), 9)  # 200 kB that would become 200 MB
    assert read(png(8, 8, 8, 2, flood)).width == 8  # only the announced pixels are unpacked
    text = png(8, 8, 8, 2, zlib.compress(bytes(8 * 25)))
    note = b"zTXtnote\0\0" + flood
    chunk = struct.pack(">I", len(note) - 4) + note + struct.pack(">I", zlib.crc32(note))
    assert rejected(read, text[:33] + chunk + text[33:]).reason == Reason.UNREADABLE


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_pictures_are_rejected(read, format, share):
    data = encoded(noise(0, 60, 40), format)
    assert rejected(read, data[: int(share * len(data))]).reason == Reason.UNREADABLE


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"<html>not found</html>", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
def test_other_files_are_rejected(read, data):
    assert rejected(read, data).reason == Reason.UNREADABLE


def test_a_file_too_large_for_any_photo_is_not_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(Rejected, match="unreadable"):
        photos.read(str(path), MAX_PIXELS)


@pytest.mark.parametrize("name", ["absent", "absent/too", "n" * 300, "nul\0nul", "", "folder"])
def test_names_without_a_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(Rejected) as info:
        photos.read(os.path.join(tmp_path, name), MAX_PIXELS)
    assert info.value.reason is Reason.MISSING


def test_a_named_pipe_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Rejected, match="missing file"):
        photos.read(str(tmp_path / "pipe"), MAX_PIXELS)


def test_links_are_followed(tmp_path):
    """Data farms and caches hold the photos elsewhere."""
    (tmp_path / "cache").write_bytes(encoded(noise()))
    for name, target in {"good.jpg": "cache", "lost.jpg": "gone", "loop.jpg": "loop.jpg"}.items():
        (tmp_path / name).symlink_to(target)
    assert photos.read(str(tmp_path / "good.jpg"), MAX_PIXELS)
    for name in ("lost.jpg", "loop.jpg"):
        with pytest.raises(Rejected, match="missing"):
            photos.read(str(tmp_path / name), MAX_PIXELS)


SEEDS = [
    encoded(noise(), format)
    for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "MPO", "AVIF")
] + [lossless_jpeg(noise())]


@st.composite
def damaged_pictures(draw) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)
    ):
        data[place] = value
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(
    max_examples=400,
    deadline=5000,  # ms
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.one_of(st.binary(max_size=200), damaged_pictures()))
def test_any_bytes_give_a_photo_or_a_reason(read, data):
    try:
        photo = read(data)
    except Rejected as rejection:
        assert rejection.reason in (Reason.UNREADABLE, Reason.TOO_MANY_PIXELS)
    else:
        assert pixels(photo).size == photo.width * photo.height * 3
        assert decode_photo(tf.constant(photo.jpeg)).shape == pixels(photo).shape


def test_pillow_warnings_are_not_shown(read):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        # Above the size from which Pillow warns, and below the size that it refuses.
        rejected(read, png(15_000, 10_000, 8, 0, b""), max_pixels=10**9)
        read(encoded(half_transparent().quantize(), "PNG"))
        read(encoded(noise(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff damaged"))
        assert warnings.filters == filters
    assert not shown
    assert Image.MAX_IMAGE_PIXELS is not None
