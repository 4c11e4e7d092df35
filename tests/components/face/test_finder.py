"""The face that counts, what speaks against it, and its square."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.face import finder, yunet
from components.face.finder import find_face
from pipeline import config

SIZE = 64
GREY = (96, 104, 112)
Find = Callable[..., tuple[np.ndarray, str]]


@pytest.fixture(scope="module")
def find() -> Find:
    """The square and the objection of a picture."""
    knobs = config.Transform(image_size=SIZE)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def graph(photo: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tuple(find_face(photo, SIZE, knobs))

    def find(picture: Image.Image | np.ndarray) -> tuple[np.ndarray, str]:
        pixels, objection = graph(np.asarray(picture))
        assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), tf.uint8)
        return pixels.numpy(), objection.numpy().decode()

    return find


def scene(size: tuple[int, int], *faces: tuple[Image.Image, int, tuple[int, int]]) -> Image.Image:
    """A plain picture with pasted faces: (face, side, (left, top)), pixels."""
    picture = Image.new("RGB", size, GREY)
    for face, side, place in faces:
        picture.paste(face.resize((side, side), Image.Resampling.LANCZOS), place)
    return picture


def nearest(square: np.ndarray, squares: list[np.ndarray]) -> int:
    """Which of some squares is most like this one; the middle counts, which shows the face."""
    middle = slice(SIZE // 5, -SIZE // 5)
    part = square[middle, middle].astype(int)
    return int(np.argmin([np.abs(part - other[middle, middle]).mean() for other in squares]))


@pytest.fixture(scope="module")
def squares(find: Find, portraits: list[Image.Image]) -> list[np.ndarray]:
    return [find(portrait)[0] for portrait in portraits]


def test_a_portrait_has_no_objection(find: Find, portraits: list[Image.Image]) -> None:
    assert [find(portrait)[1] for portrait in portraits] == [""] * len(portraits)


@pytest.mark.parametrize("side", [160, 240, 500])
@pytest.mark.parametrize("place", [(0, 0), (700, 150), (40, 200)])
def test_a_face_in_a_frame_is_cut_out(
    find: Find,
    portraits: list[Image.Image],
    squares: list[np.ndarray],
    side: int,
    place: tuple[int, int],
) -> None:
    for number, portrait in enumerate(portraits):
        square, objection = find(scene((1280, 720), (portrait, side, place)))
        assert objection == ""
        assert nearest(square, squares) == number


def test_the_frame_has_any_size(
    find: Find, portraits: list[Image.Image], squares: list[np.ndarray]
) -> None:
    for size in ((3840, 2160), (1080, 1920), (640, 480), (250, 900)):
        square, objection = find(scene(size, (portraits[1], 240, (0, size[1] // 3))))
        assert objection == ""
        assert nearest(square, squares) == 1


# (y, x) of an upright face
POINTS = np.array([[-30, -40], [-30, 40], [0, 0], [40, -25], [40, 25]], np.float32)


@pytest.mark.parametrize("angle", [-40, -12, 12, 25])
def test_a_slanted_face_is_turned_upright(portraits: list[Image.Image], angle: int) -> None:
    """The picture and the points of a face turn together, clockwise by degrees."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    middle = tf.constant([300.0, 300.0])
    upright = scene((600, 600), (portraits[1], 240, (180, 180)))
    slanted = upright.rotate(-angle, Image.Resampling.BICUBIC, fillcolor=GREY)

    def square(picture: Image.Image, points: np.ndarray) -> np.ndarray:
        face = finder._geometry(middle, tf.constant(200.0), tf.constant(points), 0.0)
        around = finder._surroundings(tf.constant(np.asarray(picture)), face)
        pixels: np.ndarray = finder._upright(around, face.angle, SIZE).numpy()
        return pixels

    expected = square(upright, POINTS)
    assert np.abs(square(slanted, POINTS @ turn) - expected).mean() < 6
    assert np.abs(square(slanted, POINTS) - expected).mean() > 12


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_180])
def test_a_face_upside_down_is_an_objection(
    find: Find, portraits: list[Image.Image], turn: Image.Transpose
) -> None:
    for portrait in portraits:
        assert find(portrait.transpose(turn))[1] in ("turned_face", "no_face")
    assert "turned_face" in {find(portrait.transpose(turn))[1] for portrait in portraits}


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])
def test_a_photo_on_its_side_is_an_objection(
    find: Find, portraits: list[Image.Image], turn: Image.Transpose
) -> None:
    for portrait in portraits:
        assert find(portrait.transpose(turn))[1] in ("turned_face", "no_face")


def test_half_a_face_is_an_objection(find: Find, portraits: list[Image.Image]) -> None:
    for portrait in portraits:
        half = portrait.crop((0, 0, 125, 240))
        assert find(half)[1] in ("cut_face", "no_face")


def test_a_small_face_is_an_objection(find: Find, portraits: list[Image.Image]) -> None:
    assert find(scene((640, 480), (portraits[0], 60, (300, 200))))[1] == "small_face"


def test_two_faces_of_like_size_are_an_objection(find: Find, portraits: list[Image.Image]) -> None:
    one, other = portraits[:2]
    both = scene((900, 400), (one, 240, (50, 80)), (other, 200, (500, 80)))
    assert find(both)[1] == "several_faces"


def test_a_smaller_face_behind_is_none(
    find: Find, portraits: list[Image.Image], squares: list[np.ndarray]
) -> None:
    one, other = portraits[:2]
    square, objection = find(scene((900, 400), (one, 240, (50, 80)), (other, 100, (600, 80))))
    assert objection == ""
    assert nearest(square, squares) == 0


def test_of_two_faces_the_one_in_the_middle_counts(
    find: Find, portraits: list[Image.Image], squares: list[np.ndarray]
) -> None:
    one, other = portraits[:2]
    picture = scene((900, 400), (one, 240, (0, 80)), (other, 220, (340, 80)))
    assert nearest(find(picture)[0], squares) == 1


def test_a_crowd(find: Find, portraits: list[Image.Image]) -> None:
    places = [(120 * column, 120 * row) for row in range(5) for column in range(8)]
    faces = [(portraits[n % 4], 115, place) for n, place in enumerate(places)]
    assert find(scene((1000, 620), *faces))[1] == "several_faces"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (7, 9), (31, 33), (400, 300)])
def test_without_a_face_it_is_the_centre_square(find: Find, shape: tuple[int, int]) -> None:
    square, objection = find(np.full((*shape, 3), GREY, np.uint8))
    assert objection == "no_face"
    assert np.abs(square.astype(int) - GREY).max() <= 1


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 2**32),
    st.sampled_from([2, 30, 256]),
)
@settings(deadline=None, max_examples=60)
def test_any_pixels_have_an_answer(
    find: Find, height: int, width: int, seed: int, colours: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, colours, (height, width, 3), np.uint8)
    _, objection = find(pixels)
    assert objection == "no_face"


def test_where_the_square_is_beyond_the_photo_the_edge_continues(
    portraits: list[Image.Image],
) -> None:
    pixels = np.asarray(portraits[1]).copy()
    pixels[:, 0], pixels[:, -1] = (255, 0, 0), (0, 0, 255)
    square, _ = find_face(tf.constant(pixels), SIZE, config.Transform(margin=1.0))
    assert (square.numpy()[10:-10, 0] == (255, 0, 0)).all()
    assert (square.numpy()[10:-10, -1] == (0, 0, 255)).all()


def test_a_box_of_any_size_does_not_fill_the_memory(portraits: list[Image.Image]) -> None:
    photo = tf.constant(np.asarray(portraits[0]))
    box, points = [[-1e30, -1e30, 1e30, 1e30]], [[[100.0, 100.0]] * 5]
    faces = yunet.Faces(tf.constant(box), tf.constant([0.9]), tf.constant(points))
    square, _ = finder._largest(photo, faces, yunet.YuNet(), SIZE, config.Transform())
    assert square.shape == (SIZE, SIZE, 3)


def test_knobs(portraits: list[Image.Image]) -> None:
    photo = tf.constant(np.asarray(scene((640, 480), (portraits[0], 200, (200, 100)))))
    plain, _ = find_face(photo, SIZE, config.Transform())
    wide, _ = find_face(photo, SIZE, config.Transform(margin=1.0))
    assert (wide.numpy()[:4] == GREY).all()
    assert (plain.numpy()[:4] != GREY).any()
    assert find_face(photo, SIZE, config.Transform(min_face=200)).objection == b"small_face"
    assert find_face(photo, SIZE, config.Transform(min_score=0.99)).objection == b"no_face"
