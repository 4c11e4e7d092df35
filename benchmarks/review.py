"""How long the reviewers' page of many photos takes to be built, to be seen and to be sorted.

    python -m benchmarks.review [--photos 50000] [--stores 50]

Made-up test photos in so many stores, which gives some ten slices a store, evaluated by TFMA. The
page is built by the Review step's own function and opened in headless Chromium, without a network.
The reference is the same table without the library that sorts it: the browser's own time to put
the rows into another order. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from components.review import PAGE
from components.review.component import write
from schemas import features
from tests.browser import opened
from tests.components.review import made

_SORT = """
const [column, done] = arguments;
const header = document.querySelectorAll('#slices table.interactive thead th')[column];
const before = header.ariaSort;
const at = performance.now();
header.querySelector('[role=button]').click();
const look = () => {
  if (header.ariaSort === before) return setTimeout(look);
  document.body.offsetHeight;
  done(performance.now() - at);
};
look();
"""
_PLAIN = """
const body = document.querySelector('#slices table.interactive tbody');
const at = performance.now();
const key = (row) => parseFloat(row.cells[3].dataset.order);
for (const row of [...body.rows].sort((a, b) => key(a) - key(b))) body.append(row);
document.body.offsetHeight;
return performance.now() - at;
"""
_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"


def make_examples(folder: Path, photo_ids: list[str]) -> None:
    """The test split's raw examples, all with one photo of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=40)
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data.gz"), "GZIP") as writer:
        for photo_id in photo_ids:
            example = tf.train.Example()
            values = example.features.feature
            values[features.PHOTO_ID].bytes_list.value.append(photo_id.encode())
            values[features.IMAGE].bytes_list.value.append(jpeg.getvalue())
            writer.write(example.SerializeToString())


def main() -> None:
    """Builds, opens and sorts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=50_000, help="in the test split")
    parser.add_argument("--stores", type=int, default=50)
    options = parser.parse_args()
    stores = [f"store {at % options.stores}" for at in range(options.photos)]
    photos = made.photos(options.photos, store=stores)
    photos["split"] = features.TEST
    photos.loc[: options.photos // 100, "split"] = features.TRAIN
    photos.loc[: options.photos // 200, "split"] = features.EVAL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = made.run(folder, photos)
        test = photos[photos["split"] == features.TEST]
        make_examples(folder / "examples" / "Split-test", list(test[features.PHOTO_ID]))
        started = time.perf_counter()
        write(inputs, folder / "review")
        built = time.perf_counter() - started
        with opened() as browser:
            browser.open(folder / "review" / PAGE)
            painted = browser.run(_PAINT)
            sorting = sorted(
                browser.chrome.execute_async_script(_SORT, column) for column in (2, 3, 4, 3, 2)
            )
            rows = len(browser.chrome.find_elements("css selector", "#slices table.interactive tr"))
            plain = sorted(browser.run(_PLAIN) for _ in range(5))
        size = (folder / "review" / PAGE).stat().st_size
    figures = {
        "photos": len(test), "slices": rows - 1, "page_bytes": size, "build_s": round(built, 1),
        "first_paint_ms": round(painted), "ours": round(sorting[2]),
        "slowest_sort_ms": round(sorting[-1]), "reference": round(plain[2], 1),
        "ratio": round(sorting[2] / plain[2], 2),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
