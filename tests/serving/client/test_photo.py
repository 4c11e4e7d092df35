"""Every photo becomes a small upright JPEG, or is refused with a reason."""

from __future__ import annotations

import contextlib
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from goodseed_client import Advice, AgeClient, Kind, Reason
from goodseed_client.advice import Failure
from goodseed_client.photo import FORMATS, MAX_BYTES, MAX_SIDE, MIN_SIDE, prepare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from tests.pictures import as_stored, encoded, exif, png
from tests.serving.client.photos import mutated, picture
from tests.serving.client.server import everybody_is, serving

BOMB_WARNING = "ignore::PIL.Image.DecompressionBombWarning"
DEGRADED = {
    Reason.DARK: lambda image: image.point(lambda value: value // 5),
    Reason.OVEREXPOSED: lambda image: image.point(lambda value: min(255, value * 4)),
    Reason.BLURRED: lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 20)),
    Reason.TINY: lambda image: image.resize((40, 40)),
}


def shown(jpeg: bytes) -> Image.Image:
    image = Image.open(BytesIO(jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


def difference(jpeg: bytes, expected: Image.Image) -> float:
    """Mean difference in luma between the JPEG and what it should show."""
    image = shown(jpeg)
    assert image.size == expected.size
    pixels = [np.asarray(i.convert("L"), float) for i in (image, expected)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def refused(photo: object) -> Failure:
    with pytest.raises(Failure) as error:
        prepare(photo)  # type: ignore[arg-type]
    return error.value


def test_every_type_of_photo(tmp_path: Path) -> None:
    image = picture()
    frame = np.asarray(image)
    data = encoded(image, "PNG")
    path = tmp_path / "photo"
    path.write_bytes(data)
    photos = [path, str(path), data, bytearray(data), memoryview(data), image, frame]
    photos.append(
        np.ascontiguousarray(frame[..., ::-1])[..., ::-1]
    )  # OpenCV's order of colours, flipped
    assert len({prepare(photo) for photo in photos}) == 1  # type: ignore[arg-type]
    assert difference(prepare(image), image) < 2
    assert difference(prepare(np.asarray(image.convert("L"))), image) < 2


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(format: str) -> None:
    assert difference(prepare(encoded(picture(), format)), picture()) < 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1"])
def test_every_mode(mode: str) -> None:
    assert difference(prepare(picture().convert(mode)), picture().convert(mode)) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_made_upright(orientation: int) -> None:
    stored, tags = as_stored(picture(), orientation), exif(orientation)
    data = encoded(stored, quality=95, exif=tags, comment=b"till 3, customer 1234")
    transparent = encoded(stored.convert("RGBA"), "PNG", exif=tags)
    for photo in (data, Image.open(BytesIO(data)), transparent):
        jpeg = prepare(photo)
        assert difference(jpeg, picture()) < 3
        assert not shown(jpeg).getexif()
        assert b"customer" not in jpeg and b"Exif" not in jpeg


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_metadata_is_ignored() -> None:
    data = encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff damaged")
    assert difference(prepare(data), picture()) < 3


@pytest.mark.parametrize("noise", [0, 20, 128])
def test_twelve_megapixels_become_small(noise: int) -> None:
    pixels = np.asarray(picture(4000, 3000)).astype(np.int16)
    pixels += np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape, np.int16)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for photo in (encoded(image, quality=90), np.asarray(image)):
        jpeg = prepare(photo)
        assert len(jpeg) <= MAX_BYTES
        assert max(shown(jpeg).size) == MAX_SIDE


def test_noise_becomes_small_enough() -> None:
    rng = np.random.default_rng(0)
    jpeg = prepare(rng.integers(0, 256, (MAX_SIDE, MAX_SIDE, 3), np.uint8))
    assert len(jpeg) <= MAX_BYTES and max(shown(jpeg).size) in (MAX_SIDE, MAX_SIDE // 2)


def test_the_bytes_of_a_png_are_no_scans() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "PNG", compress_level=0)
    assert data.count(b"\xff\xda") > 64  # a JPEG with so many would be refused
    assert len(prepare(data)) <= MAX_BYTES


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("longer", [400, 700, 1100])
def test_the_person_may_stand_anywhere(place: str, tall: bool, longer: int) -> None:
    """The rest of the photo is a blurred or dark wall."""
    at = {"first": 0, "middle": (longer - 300) // 2, "last": longer - 300}[place]
    for wall, reason in (("grey", Reason.BLURRED), ("black", Reason.DARK)):
        scene = Image.new("RGB", (300, longer) if tall else (longer, 300), wall)
        assert refused(scene).reason is reason
        scene.paste(picture(300, 300), (0, at) if tall else (at, 0))
        assert shown(prepare(scene)).size == scene.size


def test_the_reason_is_that_of_the_middle() -> None:
    scene = Image.new("RGB", (900, 300), "black")
    scene.paste("white", (300, 0, 600, 300))
    assert refused(scene).reason is Reason.OVEREXPOSED


def test_a_line_of_pixels_is_tiny() -> None:
    assert refused(picture(1, 5000)).reason is Reason.TINY
    assert refused(picture(5000, 200)).reason is Reason.TINY


def test_a_small_photo_keeps_its_size() -> None:
    assert shown(prepare(picture(MIN_SIDE, MAX_SIDE))).size == (MIN_SIDE, MAX_SIDE)


def test_the_callers_image_is_not_changed() -> None:
    image = Image.open(BytesIO(encoded(picture(1200, 900), comment=b"mine")))
    frame = np.asarray(picture(1200, 900)).copy()
    before = frame.copy()
    prepare(image)
    prepare(frame)
    assert image.size == (1200, 900) and image.info["comment"] == b"mine"
    assert (frame == before).all()


@pytest.mark.parametrize("reason", DEGRADED)
def test_unusable_photos_are_taken_again(reason: Reason) -> None:
    for size in ((240, 320), (3000, 4000)):
        failure = refused(DEGRADED[reason](picture(*size)))
        assert (failure.reason, failure.reason.kind) == (reason, Kind.RETAKE)
    assert refused(Image.new("RGB", (200, 200), "grey")).reason is Reason.BLURRED


JPEG = encoded(picture())


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        (b"", "cannot identify image file"),
        (b"text", "cannot identify image file"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (png(1000, 1000, 8, 2, b"x"), "OSError"),
        (png(8000, 8000, 8, 2, b"x"), "8000 × 8000 pixels are too many for a photo"),
        (png(60_000, 60_000, 8, 2, b"x"), "DecompressionBomb"),
        (np.broadcast_to(np.uint8(90), (9000, 9000, 3)), "9000 × 9000 pixels are too many"),
        (bytes(65 * 2**20), "68,157,440 bytes are too many"),
        (JPEG[:200] + b"\xff\xda" * 65 + JPEG[200:], "more than 64 scans"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n", "cannot identify"),
        (np.zeros((100, 100, 3), np.float32), "not float32 (100, 100, 3)"),
        (np.zeros((100, 100, 4), np.uint8), "not uint8 (100, 100, 4)"),
        (np.zeros((100,), np.uint8), "not uint8 (100,)"),
        (np.zeros((0, 100, 3), np.uint8), ""),
        (Image.new("I;16", (100, 100)), "mode I;16: a photo has 8 bits"),
        (Image.new("F", (100, 100)), "mode F: a photo has 8 bits"),
        ("/no/such/photo.jpg", "No such file"),
        ("a\0b", "null"),
        ("/", "directory"),
        (7, "int is not a photo"),
        (None, "NoneType is not a photo"),
    ],
)
@pytest.mark.filterwarnings(BOMB_WARNING)
def test_what_is_not_a_photo(photo: object, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's own limit; other code in this process may have changed it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    failure = refused(photo)
    assert failure.reason in (Reason.BAD_PHOTO, Reason.TINY)
    assert failure.reason is Reason.BAD_PHOTO or not said
    assert said in failure.detail


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: JPEG[:600] + b)))
def test_any_bytes_are_prepared_or_refused(data: bytes) -> None:
    with contextlib.suppress(Failure):
        assert len(prepare(data)) <= MAX_BYTES


def fuzzed(count: int) -> list[bytes]:
    """Mutated photos of every format, and random bytes."""
    rng = np.random.default_rng(0)
    small = picture(96, 128)
    sound = [encoded(small, format) for format in FORMATS]
    sound += [encoded(small, quality=80, progressive=True)] * 5
    photos = [mutated(sound[rng.integers(len(sound))], rng) for _ in range(count - count // 10)]
    return photos + [rng.bytes(int(rng.integers(0, 2000))) for _ in range(count // 10)]


def is_sound(advice: Advice) -> bool:
    passes = advice.kind is Kind.NO_CHALLENGE
    return not passes or (advice.age is not None and 25 <= advice.age <= 120)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", BOMB_WARNING)
def test_damaged_photos_get_an_advice() -> None:
    """benchmarks/client.py does this with more photos."""
    with serving(everybody_is(40)) as server, AgeClient(server, timeout=10) as client:
        advices = [client.check(photo) for photo in fuzzed(600)]
    assert all(map(is_sound, advices))
    reasons = {advice.reason for advice in advices}
    assert {Reason.OLD_ENOUGH, Reason.BAD_PHOTO} <= reasons
    assert not reasons & {Reason.INTERNAL_ERROR, Reason.SERVER_ERROR, Reason.BAD_ANSWER}


@pytest.mark.e2e
def test_real_faces_pass_and_degraded_ones_do_not(faces: Path) -> None:
    files = sorted((faces / "final_files").glob("*.jpg"))
    sample = [Image.open(file).convert("RGB") for file in random.Random(0).sample(files, 300)]

    def share_refused(images: list[Image.Image], reason: Reason | None = None) -> float:
        refusals = []
        for image in images:
            try:
                prepare(image)
            except Failure as failure:
                refusals.append(failure.reason)
        return sum(reason in (None, found) for found in refusals) / len(images)

    assert share_refused(sample) <= 0.01
    few = sample[:80]
    assert share_refused([DEGRADED[Reason.DARK](i) for i in few], Reason.DARK) == 1
    assert share_refused([DEGRADED[Reason.BLURRED](i) for i in few], Reason.BLURRED) > 0.9
    assert share_refused([DEGRADED[Reason.TINY](i) for i in few], Reason.TINY) == 1
    assert share_refused([DEGRADED[Reason.OVEREXPOSED](i) for i in few]) > 0.8
