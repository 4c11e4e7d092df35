"""The one exception for what a user can put right, and one line for any other."""

from __future__ import annotations

import re


class UserError(ValueError):
    """A mistake in the input or the configuration; its text is one line that says what to do."""


def one_line(error: BaseException) -> str:
    """A user's mistake or the system's word on a file as it is, the rest with its type.

    Either may lie below what TFX raised when it could not write down that the step had failed.
    """
    import tensorflow as tf  # costs seconds, which only a failure has

    cause: BaseException | None = error
    while cause:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.filename or 'a file'}: {cause.strerror}"
        if isinstance(cause, tf.errors.ResourceExhaustedError):  # disk or memory
            return str(cause.message).splitlines()[0]
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines() or [""]
    # Beam raises a traceback's text, whose last line says what happened.
    said = lines[-1 if lines[0].startswith("Traceback") else 0]
    return re.sub(r"^(?:\w+: )*(?:\w+\.)+", "", f"{type(error).__name__}: {said}")
