"""The advice for a till, and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the cashier should do."""

    CHALLENGE = "CHALLENGE"  # ask for ID
    NO_CHALLENGE = "NO_CHALLENGE"  # ID is not needed
    RETAKE = "RETAKE"  # take another photo, or ask for ID


class Reason(StrEnum):
    """Why the cashier should do it. The codes do not change; a new version may add some."""

    OLD_ENOUGH = "old_enough"
    TOO_YOUNG = "too_young"
    MODEL_SAYS_SO = "model_says_so"
    DARK = "dark"
    OVEREXPOSED = "overexposed"
    TINY = "tiny"
    BLURRED = "blurred"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    SMALL_FACE = "small_face"
    TURNED_FACE = "turned_face"
    CUT_FACE = "cut_face"
    UNLIKE_TRAINING = "unlike_training"
    BAD_PHOTO = "bad_photo"
    UNGUARDED_MODEL = "unguarded_model"
    NO_SERVER = "no_server"
    TIMEOUT = "timeout"
    BUSY = "busy"
    SERVER_ERROR = "server_error"
    BAD_ANSWER = "bad_answer"
    INTERNAL_ERROR = "internal_error"

    @property
    def kind(self) -> Kind:
        """The advice for this reason. Only OLD_ENOUGH lets a customer pass."""
        if self is Reason.OLD_ENOUGH:
            return Kind.NO_CHALLENGE
        return Kind.RETAKE if self in _RETAKES else Kind.CHALLENGE


# The reasons that a model's output `objection` may give. They have the same codes.
OBJECTIONS = frozenset(
    {
        Reason.NO_FACE, Reason.SEVERAL_FACES, Reason.SMALL_FACE, Reason.TURNED_FACE,
        Reason.CUT_FACE, Reason.UNLIKE_TRAINING,
    }
)  # fmt: skip
_RETAKES = OBJECTIONS | {Reason.DARK, Reason.OVEREXPOSED, Reason.TINY, Reason.BLURRED}

MESSAGES = {
    Reason.OLD_ENOUGH: "Looks old enough: no need to ask for ID.",
    Reason.TOO_YOUNG: "May be too young: ask for ID.",
    Reason.MODEL_SAYS_SO: "The model is not sure enough: ask for ID.",
    Reason.DARK: "The photo is too dark: take another one, or ask for ID.",
    Reason.OVEREXPOSED: "The photo is too bright: take another one, or ask for ID.",
    Reason.TINY: "The photo is too small: take another one, or ask for ID.",
    Reason.BLURRED: "The photo is blurred: take another one, or ask for ID.",
    Reason.NO_FACE: "No face in the photo: take another one, or ask for ID.",
    Reason.SEVERAL_FACES: "Several faces in the photo: take one of the customer, or ask for ID.",
    Reason.SMALL_FACE: "The face is too small: take another photo from nearer, or ask for ID.",
    Reason.TURNED_FACE: "The face is not upright: take another photo, or ask for ID.",
    Reason.CUT_FACE: "The face is not all in the photo: take another one, or ask for ID.",
    Reason.UNLIKE_TRAINING: "The photo is unusual: take another one, or ask for ID.",
    Reason.BAD_PHOTO: "The photo can't be read: ask for ID.",
    Reason.UNGUARDED_MODEL: "The model can't tell whether the photo shows a face: ask for ID.",
    Reason.NO_SERVER: "The age check can't be reached: ask for ID.",
    Reason.TIMEOUT: "The age check took too long: ask for ID.",
    Reason.BUSY: "Too many age checks at once: ask for ID.",
    Reason.SERVER_ERROR: "The age check refused the request: ask for ID.",
    Reason.BAD_ANSWER: "The age check gave no usable answer: ask for ID.",
    Reason.INTERNAL_ERROR: "The age check failed: ask for ID.",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """The result of one check."""

    reason: Reason
    age: float | None  # years; None if there is no age, or nobody should rely on it
    model_version: int | None  # None if the server did not send it
    latency_ms: float  # of the whole call, with the preparation of the photo

    @property
    def kind(self) -> Kind:
        """What the cashier should do."""
        return self.reason.kind

    @property
    def message(self) -> str:
        """The advice and its reason as a sentence for the cashier."""
        return MESSAGES[self.reason]


class Failure(Exception):
    """There is no age. `reason` decides the advice; `detail` goes to the log."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
