"""How long the reviewers' page of many photos takes: to build, to show and to sort.

    python -m benchmarks.review [--photos 50000] [--stores 50]

It makes up test photos in several stores, which gives about ten slices for each store, and lets
TFMA evaluate them. The Review step's own function builds the page. Headless Chromium opens it
without a network. The reference for sorting is the same table without the library that sorts it:
how long the browser takes to put the rows into another order.

It appends to results/review.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results import record
from components.review import PAGE
from schemas import features
from tests.browser import headless_browser

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
    """Writes raw examples of the test split; all have the same photo, of noise."""
    import tensorflow as tf

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
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=50_000, help="in the test split")
    parser.add_argument("--stores", type=int, default=50, help="slices beside the age bands")
    options = parser.parse_args()
    from components.review.component import write
    from tests.components.review import synthetic

    stores = [f"store {at % options.stores}" for at in range(options.photos)]
    photos = synthetic.photos(options.photos, store=stores)
    photos["split"] = features.TEST
    photos.loc[: options.photos // 100, "split"] = features.TRAIN
    photos.loc[: options.photos // 200, "split"] = features.EVAL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = synthetic.run(folder, photos)
        test = photos[photos["split"] == features.TEST]
        make_examples(folder / "examples" / "Split-test", list(test[features.PHOTO_ID]))
        started = time.perf_counter()
        write(inputs, folder / "review")
        built = time.perf_counter() - started
        with headless_browser() as browser:
            browser.open(folder / "review" / PAGE)
            painted = browser.run(_PAINT)
            sorting = sorted(
                browser.chrome.execute_async_script(_SORT, column) for column in (2, 3, 4, 3, 2)
            )
            rows = len(browser.chrome.find_elements("css selector", "#slices table.interactive tr"))
            plain = sorted(browser.run(_PLAIN) for _ in range(5))
        size = (folder / "review" / PAGE).stat().st_size
    print(f"{len(test):,} photos, {rows - 1:,} slices")
    sorted_by_library = "a table of slices sorted; reference: without the library"
    figures = [
        record("the page", size / 1e6, "MB"),
        record("the page built", built, "s"),
        record("first paint", painted, "ms"),
        record(sorted_by_library, sorting[2], "ms", plain[2]),
        record("a table of slices sorted, slowest", sorting[-1], "ms"),
    ]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
