"""Runs an inspection in a throw-away child process (torch-free). This module is the parent's side.

The child is `python -m dfkd_core.inspection` in a sandbox. The parent writes one request to its standard input.
"""

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from dfkd_core import errors
from dfkd_core.errors import DfkdError, OperatorUnsupported, TeacherInvalid
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.sandbox.detect import SandboxChoice, find_sandbox
from dfkd_core.sandbox.launch import exit_status, minimal_environment
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy, python_path
from dfkd_core.spec.teacher import TeacherSpec

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 4 * 2**20
MAX_FILES = 64
MAX_PROCESSES = 16


def inspect_in_child(
    path: Path,
    spec: TeacherSpec,
    *,
    timeout_seconds: float,
    memory_bytes: int,
    sandbox: SandboxChoice = "auto",
    hidden: tuple[Path, ...] = (),
) -> Inspection:
    """Inspect a file in a sandboxed child with limits on time, memory and files, and an empty environment.

    The child can read `path`, and nothing below the directories `hidden`.

    Raises:
        TeacherError: the child refused the file, crashed, was too slow or needed too much memory.
        SandboxUnavailable: this host cannot create a sandbox.
    """
    path = path.resolve()
    request = {"path": str(path), "spec": spec.model_dump(mode="json"), "memory_bytes": memory_bytes}
    policy = child_policy(path, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes, hidden=hidden)
    with find_sandbox(sandbox).start(
        [sys.executable, "-P", "-s", "-m", "dfkd_core.inspection"],
        policy,
        directory=Path("/"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(child)

        timer = threading.Timer(timeout_seconds, stop)
        timer.start()
        try:
            reply = _converse(child, json.dumps(request).encode())
            if len(reply) < MAX_REPLY_BYTES:
                child.wait()  # The child has closed its output. If it does not end by itself, the timer kills it.
        finally:
            timer.cancel()
            _kill(child)
        code = exit_status(child.wait())
    return _result(reply, code, late=late.is_set())


def child_policy(
    path: Path, *, timeout_seconds: float, memory_bytes: int, hidden: tuple[Path, ...] = ()
) -> SandboxPolicy:
    """Return the sandbox's policy: the child can read the file and write no files."""
    limits = ResourceLimits(
        address_bytes=memory_bytes,
        cpu_seconds=math.ceil(timeout_seconds),
        file_bytes=0,
        processes=MAX_PROCESSES,
        open_files=MAX_FILES,
    )
    return SandboxPolicy(limits=limits, inputs=(path,), hidden=hidden, environment=_environment())


def _environment() -> dict[str, str]:
    """Return a minimal environment with the path of this package, and one thread for NumPy's libraries."""
    found = {"PYTHONPATH": python_path({}), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return minimal_environment(os.environ) | found


def _converse(child: subprocess.Popen[bytes], request: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(request)
        child.stdin.close()
    except BrokenPipeError:
        log.warning("the inspection died before it was asked")
    return child.stdout.read(MAX_REPLY_BYTES)


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # the child may have ended since the poll
            os.killpg(child.pid, signal.SIGKILL)


def _result(reply: bytes, code: int, *, late: bool) -> Inspection:
    message = _message(reply)
    if "inspection" in message:
        return Inspection.model_validate(message["inspection"])
    if "error" in message:
        raise _rebuilt(message["error"])
    slow = late or -code in (signal.SIGXCPU, signal.SIGKILL)
    log.warning(
        "the inspection of a teacher failed", extra={"exit_code": code, "late": late, "fault": message.get("fault")}
    )
    if message.get("fault") == "MemoryError":
        raise TeacherInvalid("the teacher is too large to be inspected", hint="Upload a smaller model.")
    if slow:
        raise TeacherInvalid(
            "the inspection of the teacher took too long", hint="Upload a simpler export of the model."
        )
    raise TeacherInvalid("the inspection of the teacher crashed: the file is damaged or made to do so")


def _message(reply: bytes) -> dict[str, Any]:
    """Parse the child's answer, or return {} if it is malformed, because a hostile file may control the child."""
    try:
        message = json.loads(reply)
        if "inspection" in message:
            Inspection.model_validate(message["inspection"])
        if "error" in message:
            _rebuilt(message["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _rebuilt(error: dict[str, Any]) -> DfkdError:
    kind = getattr(errors, str(error["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, DfkdError)):
        return TeacherInvalid("the inspection of the teacher crashed")
    if issubclass(kind, OperatorUnsupported):
        return kind(error["detail"], nodes=error["nodes"], hint=error["hint"])
    return kind(error["detail"], hint=error["hint"], pointer=error["pointer"])
