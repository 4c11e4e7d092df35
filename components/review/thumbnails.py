"""Small versions of the test photos."""

from __future__ import annotations

import io
from pathlib import Path

import tensorflow as tf
from PIL import Image

from schemas import features

NOTE = (
    "The thumbnails below are photos of people. Keep the page only where you may keep the photos."
)
OFF = "Thumbnails are switched off (review.thumbnails)."
_SIDE = 96  # longer side, pixels


def thumbnails(examples: Path, photo_ids: frozenset[str]) -> dict[str, bytes]:
    """Thumbnails of photos of the test split, as JPEGs by photo_id.

    Args:
        examples: the folder of the raw examples.
        photo_ids: of the photos.
    """
    if not photo_ids:
        return {}
    found = {}
    files = sorted(map(str, (examples / f"Split-{features.TEST}").glob("*.gz")))
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        values = tf.train.Example.FromString(record).features.feature
        photo_id = values[features.PHOTO_ID].bytes_list.value[0].decode()
        if photo_id in photo_ids:
            found[photo_id] = _thumbnail(values[features.IMAGE].bytes_list.value[0])
    return found


def _thumbnail(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
    return file.getvalue()
