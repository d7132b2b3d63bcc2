"""The exceptions of the public package.

ClientError
├── Refused        the service refused; `problem` says why
├── Unreachable    the service does not answer, or what answers is not this service
├── WaitTimeout    the job was still live when the time to wait was up
├── Damaged        a download does not have the announced digest
├── BadTeacher     the network or file cannot become a file that a service takes; nothing was sent
└── UsageError     an option, a variable or a key that cannot be understood; nothing was sent
"""

from collections.abc import Sequence

from dfkd.wire.job import JobView
from dfkd.wire.problem import Problem


class ClientError(Exception):
    """Anything that keeps the client from giving an answer."""


class Refused(ClientError):
    """The service refused; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        fields = [f"{one.pointer or one.parameter or 'the document'}: {one.detail}" for one in problem.errors or []]
        super().__init__("\n".join([f"{problem.code}: {problem.detail}", *fields, *filter(None, [problem.hint])]))
        self.problem = problem


class Unreachable(ClientError):
    """The service does not answer, or what answers is not this service."""


class WaitTimeout(ClientError):
    """The job was still live when the time was up; it goes on."""

    def __init__(self, job: JobView) -> None:
        super().__init__(f"job {job.id} is still {job.state}")
        self.job = job


class Damaged(ClientError):
    """A download does not have the digest that the service announced; nothing was kept."""


class BadTeacher(ClientError):
    """The network or file cannot become one file that a service takes; nothing was sent."""

    def __init__(
        self, detail: str, *, code: str = "teacher-invalid", hint: str | None = None, nodes: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{detail}. {hint}" if hint else detail)
        self.code = code  # as in the problems that the service sends
        self.detail = detail
        self.hint = hint
        self.nodes = list(nodes)  # the nodes of the ONNX graph that no service takes, each with the reason


class UsageError(ClientError):
    """An option, a variable or a key that cannot be understood; nothing was sent."""
