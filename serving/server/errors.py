"""What a request or a load ends with when it fails: a status code and TensorFlow Serving's text."""

from __future__ import annotations

import grpc
import tensorflow as tf

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """A failure that a client is told.

    Attributes:
        code: the canonical code; TensorFlow, gRPC and TensorFlow Serving share the numbers.
        message: the text, as TensorFlow Serving words it.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """As absl::Status prints itself: "NOT_FOUND: Servable not found …"."""
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """What is wrong is in the request."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> ServingError:
    """What is wrong is in the model or in the server's state."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """The same code and text as a failure of TensorFlow's."""
    return ServingError(CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
