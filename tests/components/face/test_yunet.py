"""The network: its weights are whole, and it sees a face where one is."""

from __future__ import annotations

import struct

import numpy as np
import tensorflow as tf
from PIL import Image

from components.face import yunet
from components.face.read_weights import weights


def test_it_has_all_weights() -> None:
    """The stem's rows are filled up to 32 weights in the file: 16 × 5 of them are not weights."""
    assert sum(array.size for arrays in yunet._read().values() for array in arrays) == 53_184 - 80


def test_it_sees_a_face_and_its_points(portraits: list[Image.Image]) -> None:
    picture = portraits[0].resize((256, 256))
    found = yunet.YuNet()(tf.constant(np.asarray(picture, np.float32)[None]))
    cells = (256 // 8) ** 2 + (256 // 16) ** 2 + (256 // 32) ** 2
    assert [part.shape for part in found] == [(1, cells, 4), (1, cells), (1, cells, 5, 2)]
    best = int(np.argmax(found.scores))
    assert found.scores[0, best] > 0.8
    top, left, bottom, right = found.boxes[0, best].numpy()
    assert 0 < top < 128 < bottom < 256
    assert 0 < left < 128 < right < 256
    (eye, other_eye, nose, corner, other_corner) = found.points[0, best].numpy()
    assert eye[0] < nose[0] < corner[0]  # from top to bottom
    assert other_eye[0] < nose[0] < other_corner[0]
    assert eye[1] < nose[1] < other_eye[1]  # from left to right
    assert corner[1] < nose[1] < other_corner[1]


def test_a_picture_has_one_answer_alone_and_among_others(portraits: list[Image.Image]) -> None:
    pictures = np.stack([np.asarray(p.resize((96, 96)), np.float32) for p in portraits])
    network = yunet.YuNet()
    together = network(tf.constant(pictures))
    for number, picture in enumerate(pictures):
        alone = network(tf.constant(picture[None]))
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_[number], rtol=1e-4, atol=1e-4)


def test_weights_are_read_from_a_library_by_their_names() -> None:
    """A library with one section of data, one of names, and one of symbols."""
    values = np.array([1.5, -2.0], np.float32)
    names = b"\0conv_bias\0conv_size\0"
    body = values.tobytes() + names
    start, address = 64, 0x1000
    symbols = struct.pack("<IBBHQQ", 1, 1, 0, 1, address, 8)
    symbols += struct.pack("<IBBHQQ", 11, 1, 0, 1, address, 4)
    sections = [
        (0,) * 10,
        (0, 1, 0, address, start, 8, 0, 0, 0, 0),
        (0, 3, 0, 0, start + 8, len(names), 0, 0, 0, 0),
        (0, 11, 0, 0, start + len(body), len(symbols), 2, 0, 0, 24),
    ]
    table = start + len(body) + len(symbols)
    header = bytearray(64)
    struct.pack_into("<Q", header, 40, table)
    struct.pack_into("<H", header, 60, len(sections))
    packed = b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)
    found = weights(bytes(header) + body + symbols + packed)
    assert list(found) == ["conv_bias"]
    np.testing.assert_array_equal(found["conv_bias"], values)
