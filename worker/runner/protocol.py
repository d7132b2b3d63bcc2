"""The protocol between supervisor and runner: one JSON object a line, at most LINE_BYTES long.

The supervisor sends the task (a file, before the start), leases and the request to stop (standard input). The runner
sends messages through a pipe of their own. The runner has read an untrusted file, so everything in its messages has a
type and a limit.
"""

import json
import math
import os
import queue
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, TypeAdapter, ValidationError

from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.progress import Phase, UpdateKind
from dfkd_core.report import TeacherVerification
from dfkd_core.spec.config import Budget, DistillSpec
from jobs.models import BestStudent, FrozenModel, Sha256

LINE_BYTES = 64 * 1024
_QUEUED_MESSAGES = 1000
_READ_BYTES = 64 * 1024

Text = Annotated[str, Field(max_length=4000)]
Word = Annotated[str, Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Units = Annotated[float, Field(ge=0, le=10**15, allow_inf_nan=False)]


class Task(FrozenModel):
    """What a runner has to do, and how it talks to its supervisor."""

    teacher_path: Path
    spec: DistillSpec
    workspace: Path
    resume_from: Path | None
    continued_budget: Budget | None = None  # of the job that this one continues: `resume_from` may be its
    threads: int
    device: str
    checkpoint_seconds: float
    speed: WorkerSpeed | None = None  # of this worker, as far as it was measured
    bf16_tries: tuple[PositiveFloat, ...] = ()  # of this worker: they decide on the precision where the spec says auto
    messages_fd: int
    lease_until: float  # on the monotonic clock, which every process of a host shares


class UpdateMessage(FrozenModel):
    """One `dfkd_core.progress.Update` of the run."""

    type: Literal["update"]
    kind: UpdateKind
    stage: Word
    step: Count = 0
    total_steps: Count = 0
    fraction: Fraction = 0.0
    agreement: Fraction | None = None
    published_step: Count | None = None
    phase: Phase | None = None
    done: Units = 0.0
    beats: Count = 0
    eta_seconds: Units | None = None
    message: Annotated[str, Field(max_length=200)] | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class TeacherFinding(FrozenModel):
    """What running the teacher showed: the data of an update of kind `depth`."""

    passed: bool
    checked_by: Word
    measured: TeacherVerification | None = None
    code: Word | None = None
    detail: Text | None = None
    hint: Text | None = None


class ProducedFile(FrozenModel):
    """A file that the runner has made: where it is, and which digest and size it announces."""

    path: Path
    sha256: Sha256
    bytes: int = Field(ge=0)


class DoneMessage(FrozenModel):
    """The job is done, and these are its files."""

    type: Literal["done"]
    artifacts: dict[Word, ProducedFile] = Field(max_length=16)
    best: BestStudent | None = None


class StoppedMessage(FrozenModel):
    """The run stopped after a checkpoint, because it was asked to."""

    type: Literal["stopped"]


class ErrorMessage(FrozenModel):
    """The run failed, and a second try would fail the same way."""

    type: Literal["error"]
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    detail: Text
    hint: Text | None = None
    stage: Word | None = None


Message = UpdateMessage | DoneMessage | StoppedMessage | ErrorMessage
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def line_from_message(message: dict[str, Any]) -> bytes:
    """Return `message` as one line that a reader accepts. A line that is too long loses its `data`."""
    line = _encode(message)
    return line if len(line) <= LINE_BYTES else _encode({**message, "data": {}})


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(_finite(message), allow_nan=False, default=str).encode() + b"\n"


def _finite(value: Any) -> Any:  # Any: whatever an update's `data` holds
    """Replace NaN and infinities by None: JSON cannot express them, and databases refuse them."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MessageReader(threading.Thread):
    """Reads a runner's pipe to its end. Lines that are too long or invalid are counted and dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="runner-messages", daemon=True)
        self.messages: queue.Queue[Message] = queue.Queue(_QUEUED_MESSAGES)
        self.num_refused = 0
        self._descriptor = descriptor
        self._closed = threading.Event()

    @property
    def exhausted(self) -> bool:
        """Whether every message has been taken and none can follow."""
        return (self._closed.is_set() or not self.is_alive()) and self.messages.empty()

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()

    def run(self) -> None:
        """Read until the last writer has closed the pipe. A full queue stops the reading, and in the end the writer."""
        pending, skipping = b"", False
        with os.fdopen(self._descriptor, "rb", buffering=0) as pipe:
            while not self._closed.is_set() and (chunk := pipe.read(_READ_BYTES)):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._take(line, refused=skipping)
                    skipping = False
                if len(pending) > LINE_BYTES:
                    pending, skipping = b"", True

    def _take(self, line: bytes, *, refused: bool) -> None:
        try:
            if refused or len(line) > LINE_BYTES:
                raise ValueError("too long")
            message = _MESSAGE.validate_json(line)
        except (ValidationError, ValueError, RecursionError):
            self.num_refused += 1
            return
        while not self._closed.is_set():
            try:
                return self.messages.put(message, timeout=0.2)
            except queue.Full:
                continue
