"""One line about any exception."""

from __future__ import annotations

import pytest

from components.errors import UserError, one_line

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("too small\nmore"), "ValueError: too small"),
        (ValueError(""), "ValueError: "),
        (RuntimeError(f"{TRACEBACK}ValueError: bad [while running 'A']\n"),
         "RuntimeError: ValueError: bad [while running 'A']"),
        # As Flink reports the error of a Python worker.
        (RuntimeError("Pipeline goodseed_1 failed in state FAILED: java.lang.RuntimeException: "
                      f"Error received from SDK harness for instruction 3: {TRACEBACK}"
                      f"ValueError: bad\n\nDuring handling …\n\n{TRACEBACK}ValueError: bad\n\n"),
         "RuntimeError: ValueError: bad"),
        (RuntimeError("Pipeline goodseed_1 failed in state FAILED: java.io.IOException: no space\n"
                      "\tat java.base/java.lang.Thread.run(Thread.java:840)\n"),
         "RuntimeError: Pipeline goodseed_1 failed in state FAILED: java.io.IOException: no space"),
    ],
)  # fmt: skip
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_the_cause_is_what_the_user_can_mend() -> None:
    try:
        try:
            raise UserError("photos: no such folder")
        except UserError as mistake:
            raise RuntimeError("step failed") from mistake
    except RuntimeError as error:
        assert one_line(error) == "photos: no such folder"
