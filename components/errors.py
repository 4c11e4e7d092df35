"""The exception for a user's mistakes, and one line about any exception."""

from __future__ import annotations

import re


class UserError(ValueError):
    """A mistake in the input or the configuration; one line: what is wrong, and what to do."""


def one_line(error: BaseException) -> str:
    """One line about an exception.

    A UserError gives its text. An error of the operating system gives the file and the reason. Any
    other exception gives its type and its text. TFX may raise its own exception because of one of
    the first two, so this function looks at the causes too.
    """
    import tensorflow as tf  # slow to import, and only needed after a failure

    cause: BaseException | None = error
    while cause:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.filename or 'a file'}: {cause.strerror}"
        if isinstance(cause, tf.errors.ResourceExhaustedError):  # disk or memory
            return str(cause.message).splitlines()[0]
        cause = cause.__cause__ or cause.__context__
    # Beam raises the text of a traceback, Flink with words before it. Its last line is the error.
    lines = [line for line in str(error).splitlines() if line and not line[0].isspace()] or [""]
    text = lines[-1 if any("Traceback (most" in line for line in lines) else 0]
    return re.sub(r"^(?:\w+: )*(?:\w+\.)+", "", f"{type(error).__name__}: {text}")
