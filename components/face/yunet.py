"""YuNet, the network that finds faces (Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

The weights are those of libfacedetection (3-clause BSD, LICENSE.libfacedetection beside this file).
Height and width of the pictures may be unknown, and every operation is stateless. So it works in a
served graph, in tf.map_fn and in a preprocessing_fn of TensorFlow Transform.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
import tensorflow as tf

STRIDE = 32  # sides of the pictures are multiples of it, pixels

_FINEST_STRIDE = 8  # pixels between two cells of the finest grid
_GRIDS = 3  # each has half of the cells a side of the one before
_POINTS = 5


class Faces(NamedTuple):
    """What the network sees: n possible faces in each of N pictures, in pixels."""

    boxes: tf.Tensor  # float32 [N, n, 4]: top, left, bottom, right
    scores: tf.Tensor  # float32 [N, n], 0 to 1
    points: tf.Tensor  # float32 [N, n, 5, 2]: (y, x) of two eyes, nose, two corners of the mouth


class YuNet:
    """The network. One object serves all calls in a graph, so the graph holds the weights once."""

    def __init__(self) -> None:
        self._weights = {
            name: [tf.constant(array) for array in arrays] for name, arrays in _read().items()
        }

    def __call__(self, rgb: tf.Tensor) -> Faces:
        """Looks at pictures.

        Args:
            rgb: float32 [N, height, width, 3], 0 to 255; the sides are multiples of STRIDE.
        """
        kernel, bias = self._weights["stem"]
        # The network was trained with padding on the top and left, unlike TensorFlow's SAME.
        x = tf.nn.conv2d(rgb, kernel, 2, [[0, 0], [1, 0], [1, 0], [0, 0]])
        x = _half(self._unit(tf.nn.relu(tf.nn.bias_add(x, bias)), "model0_dp"))
        x = self._block(x, "model1")
        x = _half(self._block(x, "model2"))
        fine = self._block(x, "model3")
        middle = self._block(_half(fine), "model4")
        coarse = self._unit(self._block(_half(middle), "model5"), "neck2")
        middle = self._unit(middle + _double(coarse), "neck1")
        fine = self._unit(fine + _double(middle), "neck0")
        heads = (
            self._unit(features, f"head{grid}", relu=False)
            for grid, features in enumerate((fine, middle, coarse))
        )
        found = [_decode(head, _FINEST_STRIDE * 2.0**grid) for grid, head in enumerate(heads)]
        return Faces(*(tf.concat(parts, 1) for parts in zip(*found, strict=True)))

    def _block(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return self._unit(self._unit(x, f"{name}_dp1"), f"{name}_dp2")

    def _unit(self, x: tf.Tensor, name: str, relu: bool = True) -> tf.Tensor:
        """A depthwise separable convolution: 1 × 1 over all channels, then 3 × 3 in each."""
        across, across_bias, within, within_bias = self._weights[name]
        x = tf.nn.bias_add(tf.nn.conv2d(x, across, 1, "SAME"), across_bias)
        x = tf.nn.bias_add(tf.nn.depthwise_conv2d(x, within, [1, 1, 1, 1], "SAME"), within_bias)
        return tf.nn.relu(x) if relu else x


def _half(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def _double(x: tf.Tensor) -> tf.Tensor:
    """Each cell four times."""
    n, height, width, channels = tf.unstack(tf.shape(x))
    x = tf.broadcast_to(x[:, :, None, :, None], tf.stack([n, height, 2, width, 2, channels]))
    return tf.reshape(x, tf.stack([n, 2 * height, 2 * width, x.shape[-1]]))


def _decode(head: tf.Tensor, stride: float) -> Faces:
    """The faces of a grid, from the 16 outputs of each cell.

    They are class, objectness, the box (x and y of its middle, logarithms of width and height), and
    x and y of the points; lengths are in strides, from the cell.
    """
    n, height, width, _ = tf.unstack(tf.shape(head))
    rows, columns = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    cell = tf.cast(tf.stack([rows, columns], -1), tf.float32)
    middle = (tf.reverse(head[..., 2:4], [-1]) + cell) * stride
    half = tf.exp(tf.reverse(head[..., 4:6], [-1])) * (stride / 2)
    scores = tf.sqrt(tf.sigmoid(head[..., 0]) * tf.sigmoid(head[..., 1]))
    points = tf.reshape(head[..., 6:], tf.stack([n, height, width, _POINTS, 2]))
    points = (tf.reverse(points, [-1]) + cell[:, :, None]) * stride
    cells = height * width
    return Faces(
        tf.reshape(tf.concat([middle - half, middle + half], -1), tf.stack([n, cells, 4])),
        tf.reshape(scores, tf.stack([n, cells])),
        tf.reshape(points, tf.stack([n, cells, _POINTS, 2])),
    )


@functools.cache
def _read() -> dict[str, list[np.ndarray]]:
    """Kernels and biases in TensorFlow's layout, by the name of the unit."""
    with (
        resources.files(__package__).joinpath("yunet.npz").open("rb") as file,
        np.load(file) as archive,
    ):
        raw = dict(archive)

    def unit(*names: str) -> list[np.ndarray]:
        """The weights of a unit, or of several side by side."""
        across = [raw[f"{n}_pw_weight"].reshape(raw[f"{n}_pw_bias"].size, -1).T for n in names]
        within = [raw[f"{n}_dw_weight"].reshape(3, 3, -1, 1) for n in names]
        across_bias, within_bias = (
            np.concatenate([raw[f"{n}_{part}_bias"] for n in names]) for part in ("pw", "dw")
        )
        return [
            np.concatenate(across, 1)[None, None], across_bias,
            np.concatenate(within, 2), within_bias,
        ]  # fmt: skip

    # Its rows have 27 weights and are filled up to 32. They are for BGR.
    stem = raw["backbone__model0_pw_weight"].reshape(16, 32)[:, :27].T.reshape(3, 3, 3, 16)
    weights = {
        "stem": [np.ascontiguousarray(stem[:, :, ::-1]), raw["backbone__model0_pw_bias"]],
        "model0_dp": unit("backbone__model0_dp"),
    }
    for block in range(1, 6):
        for part in ("dp1", "dp2"):
            weights[f"model{block}_{part}"] = unit(f"backbone__model{block}_{part}")
    for grid in range(_GRIDS):
        weights[f"neck{grid}"] = unit(f"neck__lateral_convs__{grid}")
        heads = (f"bbox_head__multi_level_{h}__{grid}" for h in ("cls", "obj", "bbox", "kps"))
        weights[f"head{grid}"] = unit(*heads)
    return weights
