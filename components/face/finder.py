"""Which face of a photo counts, what speaks against it, and the square that the network sees."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from components.face.yunet import STRIDE, Faces, YuNet
from pipeline import config
from schemas import features

# The photo is searched twice: for small faces, and, in a border, for faces that fill it.
_FAR_SIDE = 1280  # longer side, pixels
_NEAR_SIDE = 320
_BORDER = 0.125  # share of the photo that is added on each side
_GREY = 114.0  # the border's colour, 0 to 255, as in YuNet's training

_MAX_FACES = 50
_SAME_FACE = 0.3  # boxes that overlap more (intersection over union) are one face
_RIVAL = 0.6  # a face of at least this share of the largest one's height is of like size

# The boxes are narrow and tall. The square of a face is a little smaller and lower.
_SIDE = 0.95  # of the box's height
_LOWER = 0.0625  # of the box's height

_SLANTED = math.radians(10)  # up to here, a face stays as it is: few upright ones are beyond
_TURNED = math.radians(45)

# A face that lies on its side or upside down looks more like a face in another orientation.
_TURNS_SIDE = 64  # pixels
_TURNS_BORDER = 16  # pixels on each side


class Square(NamedTuple):
    """What the network sees of a photo."""

    pixels: tf.Tensor  # uint8 [size, size, 3], RGB
    objection: tf.Tensor  # string: one of features.OBJECTIONS; empty if there is none


class _Face(NamedTuple):
    centre: tf.Tensor  # float32 [2]: y and x of the square's middle, pixels
    side: tf.Tensor  # float32: the square's, pixels
    angle: tf.Tensor  # float32: radians, clockwise from upright


def find_face(photo: tf.Tensor, size: int, settings: config.Transform) -> Square:
    """Cuts the largest face out of a photo.

    Of faces of like size, it is the one nearest the photo's middle. A slanted face is turned
    upright. Where the square of the face is beyond the photo, the photo's edge continues. Without a
    face, it is the centre square.

    Args:
        photo: uint8 [height, width, 3], RGB.
        size: side of the result, pixels.
        settings: the `transform` section of the configuration.
    """
    network = YuNet()
    faces = _search(photo, network, settings.min_score)

    def nothing() -> Square:
        return Square(centre_square(photo, size), tf.constant(features.NO_FACE))

    def largest() -> Square:
        return _largest(photo, faces, network, size, settings)

    return Square(*tf.cond(tf.size(faces.scores) > 0, largest, nothing))


def centre_square(photo: tf.Tensor, size: int) -> tf.Tensor:
    """The centre square of a photo, resized: bilinear, with antialiasing.

    Args:
        photo: uint8 [height, width, 3].
        size: side of the result, pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = tf.shape(photo)[0], tf.shape(photo)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _whole(_resize(photo[top : top + side, left : left + side], size))


def _search(photo: tf.Tensor, network: YuNet, min_score: float) -> Faces:
    """The faces of a photo, without the dimension N; the highest score first."""

    def far() -> Faces:
        return _look(_shrink(photo, _FAR_SIDE), 0.0, network)

    def near_is_enough() -> Faces:
        empty = tf.zeros([0, 4]), tf.zeros([0]), tf.zeros([0, 5, 2])
        return Faces(*empty)

    shape = tf.shape(photo)[:2]
    large = tf.reduce_max(shape) > _NEAR_SIDE
    looks = (
        Faces(*tf.cond(large, far, near_is_enough)),
        _look(_shrink(photo, _NEAR_SIDE), _BORDER, network),
    )
    boxes, scores, points = (tf.concat(parts, 0) for parts in zip(*looks, strict=True))
    pixels = tf.cast(shape, tf.float32)
    boxes, points = boxes * tf.tile(pixels, [2]), points * pixels
    kept = tf.image.non_max_suppression(boxes, scores, _MAX_FACES, _SAME_FACE, min_score)
    return Faces(*(tf.gather(values, kept) for values in (boxes, scores, points)))


def _shrink(photo: tf.Tensor, side: int) -> tf.Tensor:
    """The photo with a longer side of at most `side` pixels; float32."""
    shape = tf.cast(tf.shape(photo)[:2], tf.float32)
    scale = tf.minimum(side / tf.reduce_max(shape), 1.0)
    small = tf.maximum(tf.cast(tf.round(shape * scale), tf.int32), 1)
    # If the size is the same, TensorFlow returns the uint8 photo.
    return tf.cast(tf.image.resize(photo, small, method="area"), tf.float32)


def _look(photo: tf.Tensor, border: float, network: YuNet) -> Faces:
    """What the network sees in a photo within a border; lengths are shares of the photo."""
    shape = tf.shape(photo)[:2]
    before = tf.cast(tf.round(tf.cast(shape, tf.float32) * border), tf.int32)
    whole = (shape + 2 * before + STRIDE - 1) // STRIDE * STRIDE
    padding = tf.concat([tf.stack([before, whole - shape - before], 1), [[0, 0]]], 0)
    found = network(tf.pad(photo, padding, constant_values=_GREY)[None])
    shift, scale = tf.cast(before, tf.float32), tf.cast(shape, tf.float32)
    return Faces(
        (found.boxes[0] - tf.tile(shift, [2])) / tf.tile(scale, [2]),
        found.scores[0],
        (found.points[0] - shift) / scale,
    )


def _largest(
    photo: tf.Tensor, faces: Faces, network: YuNet, size: int, settings: config.Transform
) -> Square:
    shape = tf.cast(tf.shape(photo)[:2], tf.float32)
    heights = faces.boxes[:, 2] - faces.boxes[:, 0]
    rivals = heights >= _RIVAL * tf.reduce_max(heights)
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    far = tf.norm(middles - shape / 2, axis=1)
    chosen = tf.argmin(tf.where(rivals, far, math.inf))

    # The network may see a box of any size. Its square must not fill the memory.
    height = tf.minimum(heights[chosen], 2 * tf.reduce_min(shape))
    points = faces.points[chosen]
    face = _geometry(middles[chosen], height, points, settings.margin)
    around = _surroundings(photo, face)
    turned = (tf.abs(face.angle) >= _TURNED) | _turned(around, face.angle, network)
    inside = tf.reduce_all((points >= 0) & (points <= shape))
    objection = _first(
        {
            features.SEVERAL_FACES: tf.math.count_nonzero(rivals) > 1,
            features.SMALL_FACE: height < settings.min_face,
            features.TURNED_FACE: turned,
            features.CUT_FACE: ~inside,
        }
    )
    return Square(_whole(_upright(around, face.angle, size)), objection)


def _geometry(middle: tf.Tensor, height: tf.Tensor, points: tf.Tensor, margin: float) -> _Face:
    """The square of a face, from the middle and the height of its box, and its points."""
    down = tf.reduce_mean(points[3:], 0) - tf.reduce_mean(points[:2], 0)  # from eyes to mouth
    angle = tf.atan2(-down[1], down[0])
    direction = tf.stack([tf.cos(angle), -tf.sin(angle)])
    return _Face(middle + _LOWER * height * direction, height * _SIDE * (1 + 2 * margin), angle)


def _first(objections: dict[str, tf.Tensor]) -> tf.Tensor:
    """The first objection that is true, string; empty if none is."""
    answer = tf.constant("")
    for name, true in reversed(objections.items()):
        answer = tf.where(true, name, answer)
    return answer


def _turned(around: tf.Tensor, angle: tf.Tensor, network: YuNet) -> tf.Tensor:
    """Whether the face looks more like a face after a quarter, half or three quarters of a turn."""
    square = _upright(around, angle, _TURNS_SIDE)
    border = [_TURNS_BORDER, _TURNS_BORDER]
    square = tf.pad(square, [border, border, [0, 0]], constant_values=_GREY)
    turns = tf.stack([tf.image.rot90(square, quarters) for quarters in range(4)])
    return tf.argmax(tf.reduce_max(network(turns).scores, axis=1)) > 0


def _surroundings(photo: tf.Tensor, face: _Face) -> tf.Tensor:
    """The square of a face with a quarter of its side on each side, as room for a turn; uint8.

    Beyond the photo, its edge continues.
    """
    quarter = tf.maximum(tf.cast(tf.round(face.side / 4), tf.int32), 1)
    first = tf.cast(tf.round(face.centre), tf.int32) - 3 * quarter
    last = tf.shape(photo)[:2] - 1
    rows, columns = (
        tf.clip_by_value(tf.range(first[axis], first[axis] + 6 * quarter), 0, last[axis])
        for axis in (0, 1)
    )
    return tf.gather(tf.gather(photo, rows), columns, axis=1)


def _upright(around: tf.Tensor, angle: tf.Tensor, size: int) -> tf.Tensor:
    """The square of a face, upright, from its surroundings; float32 [size, size, 3]."""
    slanted = tf.abs(angle) > _SLANTED
    return _turn(_resize(around, round(1.5 * size)), tf.where(slanted, angle, 0.0), size)


def _turn(pixels: tf.Tensor, angle: tf.Tensor, size: int) -> tf.Tensor:
    """The middle of a square picture, turned anticlockwise by radians; float32 [size, size, 3]."""
    cos, sin = tf.cos(angle), tf.sin(angle)
    out, middle = (size - 1) / 2, (pixels.shape[0] - 1) / 2
    matrix = [
        cos, -sin, middle - out * (cos - sin),
        sin, cos, middle - out * (sin + cos),
        0.0, 0.0,
    ]  # fmt: skip
    # The operation behind keras.layers.RandomRotation. It has no other name in TensorFlow.
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[None],
        transforms=tf.stack(matrix)[None],
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]


def _resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    return tf.image.resize(pixels, (size, size), method="bilinear", antialias=True)


def _whole(pixels: tf.Tensor) -> tf.Tensor:
    """Weighted means of 0 to 255 as uint8."""
    return tf.cast(tf.round(pixels), tf.uint8)
