"""A JPEG loses its metadata and nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.photo_example_gen.jpeg import without_metadata
from components.transform import decode_photo
from tests.components.photo_example_gen.pictures import noise
from tests.pictures import encoded, jpeg_segment, lossless_jpeg

PICTURE = noise(0, 60, 40)
BASES = {
    "baseline": encoded(PICTURE),
    "tables of its own": encoded(PICTURE, optimize=True, subsampling=2),
    "progressive": encoded(PICTURE, progressive=True),
    "restarts": encoded(PICTURE, restart_marker_blocks=1),
    "progressive with restarts": encoded(PICTURE, progressive=True, restart_marker_rows=1),
    "RGB": encoded(PICTURE, keep_rgb=True),
    "grey": encoded(PICTURE.convert("L")),
}
PLANTED = b"Lange Str. 7"
END = b"\xff\xd9"
METADATA = (*range(0xE0, 0xF0), 0xFE)


def decoded(data: bytes) -> np.ndarray:
    return decode_photo(tf.constant(data)).numpy()


def segment_starts(base: bytes) -> list[int]:
    """The place of each marker. In BASES, no table looks like one; `planted` would break it."""
    markers = re.finditer(rb"\xff[\xc0-\xc4\xda\xdb\xdd\xd9\xe0\xee]", base)
    return [marker.start() for marker in markers]


@st.composite
def planted(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A JPEG, and the same one with metadata between its segments and more bytes after it."""
    base = draw(st.sampled_from(sorted(BASES.values())))
    body = st.builds(
        lambda kind, more: kind + PLANTED + more,
        st.sampled_from([b"", b"Exif\0\0", b"ICC_PROFILE\0", b"JFXX\0", b"\xff\xd9\xff\xda", END]),
        st.binary(max_size=40),
    )
    segment = st.builds(jpeg_segment, st.sampled_from(METADATA), body)
    extra = st.builds(lambda fill, made: b"\xff" * fill + made, st.integers(0, 3), segment)
    out, last = b"", 0
    for place in segment_starts(base):
        out += base[last:place] + b"".join(draw(st.lists(extra, max_size=2)))
        last = place
    return base, out + base[last:] + draw(st.one_of(st.just(b""), st.binary(), segment))


@settings(max_examples=150, deadline=None)
@given(planted())
def test_metadata_goes_and_the_pixels_stay(case: tuple[bytes, bytes]) -> None:
    base, data = case
    stripped = without_metadata(data)
    assert stripped is not None
    assert stripped == without_metadata(base)
    assert PLANTED not in stripped
    assert (decoded(stripped) == decoded(data)).all()


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_without_metadata_nothing_changes(base: bytes) -> None:
    stripped = without_metadata(base)
    assert stripped is not None
    assert stripped == without_metadata(stripped)
    assert len(stripped) == len(base)


ABOUT_COLOURS = st.builds(
    lambda kind, body: jpeg_segment(kind[0], kind[1] + body),
    st.sampled_from([(0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xEE, b"Adobe\0\x64\0\0\0\0")]),
    st.binary(max_size=24),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(BASES)), st.lists(ABOUT_COLOURS, max_size=3))
def test_colours_stay(name: str, segments: list[bytes]) -> None:
    bare = BASES[name][:2] + BASES[name][segment_starts(BASES[name])[1] :]
    data = bare[:2] + b"".join(segments) + bare[2:]
    stripped = without_metadata(data)
    assert stripped is not None
    try:
        pixels = decoded(data)
    except tf.errors.InvalidArgumentError:  # a transform that grey pictures can't have
        return
    assert (decoded(stripped) == pixels).all()


def test_a_thumbnail_goes() -> None:
    base = BASES["baseline"]
    thumbnail = jpeg_segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\2\2" + PLANTED)
    assert without_metadata(base[:2] + thumbnail + base[20:]) == base


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(sorted(BASES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1))
        new = draw(st.one_of(st.binary(min_size=1, max_size=2), st.sampled_from([END, b"\xff"])))
        data[place : place + draw(st.integers(0, 2))] = new
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), damaged()))
@example(b"\xff\xd8" + b"\xff" * 100)
@example(b"\xff\xd8\xff\xd9")
def test_a_damaged_picture_keeps_the_pixels_that_it_has(data: bytes) -> None:
    stripped = without_metadata(data)
    if stripped is None:
        return
    try:
        pixels = decoded(data)
    except tf.errors.InvalidArgumentError:
        return
    assert (decoded(stripped) == pixels).all()


FRAME = BASES["baseline"].index(b"\xff\xc0")


@pytest.mark.parametrize("frame", [n for n in range(0xC3, 0xD0) if n not in (0xC4, 0xCC)])
def test_other_kinds_of_jpeg_are_left_alone(frame: int) -> None:
    """Lossless, hierarchical and in arithmetic coding."""
    data = bytearray(BASES["baseline"])
    data[FRAME + 1] = frame
    assert without_metadata(bytes(data)) is None


@pytest.mark.parametrize(
    "data",
    [
        lossless_jpeg(PICTURE),
        encoded(PICTURE, "PNG"),
        BASES["baseline"][:-2],
        BASES["baseline"][: FRAME + 3],
        BASES["baseline"][:FRAME] + b"\0" + BASES["baseline"][FRAME:],
        BASES["baseline"][:FRAME] + b"\xff\xd8" + BASES["baseline"][FRAME:],  # a second picture
        BASES["baseline"][:FRAME] + jpeg_segment(0xDC, b"\0\1") + BASES["baseline"][FRAME:],  # DNL
        BASES["baseline"][:FRAME] + b"\xff\xfe\0\1" + BASES["baseline"][FRAME:],  # length below 2
        BASES["baseline"][:2] + END,
    ],
)
def test_what_is_no_plain_jpeg(data: bytes) -> None:
    assert without_metadata(data) is None


def test_long_runs_take_no_long_time() -> None:
    """With a search that starts anew at each byte, this would take hours."""
    scan = BASES["baseline"].index(b"\xff\xda") + 14
    for run in (b"\xff" * 2_000_000, b"\xff\0" * 1_000_000, b"\xff\xd0" * 1_000_000):
        assert without_metadata(BASES["baseline"][:scan] + run) is None
