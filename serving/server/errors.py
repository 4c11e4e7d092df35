"""How a request or a load fails: a status code and a text for the client."""

from __future__ import annotations

import grpc
import tensorflow as tf

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """A failure with a text and a status code. TensorFlow and gRPC use the same numbers."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """For example "NOT_FOUND: Servable not found …"."""
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """The request is wrong."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> ServingError:
    """The model or the server is not in the state that the request needs."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> ServingError:
    """What the request names does not exist."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """TensorFlow's error with the same code and text."""
    return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
