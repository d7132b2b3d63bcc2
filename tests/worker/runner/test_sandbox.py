"""The sandbox from inside: everything that a hostile file could try fails."""

import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from dfkd_core.inspection.child import MAX_PROCESSES, child_policy
from dfkd_core.sandbox import seccomp
from dfkd_core.sandbox.launch import Sandbox, SandboxKind, exit_status
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy
from dfkd_core.spec.config import DistillSpec
from tests.patience import PATIENCE, until
from tests.sandboxes import KINDS, sandbox_or_skip
from worker.runner.process import runner_policy
from worker.runner.protocol import Task
from worker.supervision.context import INPUTS, WORKSPACE

CANARIES = Path(__file__).with_name("canaries.py")
NO_ROUTE = ("169.254.169.254", 80)
PROCESSES = 24  # of a runner, here: its own limit would take minutes to reach
SANDBOXES = [Sandbox(kind, own_proc=own_proc) for kind in KINDS for own_proc in (True, False)]


@dataclass(frozen=True, slots=True)
class Outside:
    """What lies outside a sandbox that a hostile file would want, and the sandbox's own directories."""

    data_dir: Path
    teacher: Path
    workspace: Path
    sibling: Path
    ledger: Path
    unix: Path
    port: int
    abstract: str
    secret: str


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """A data directory with a ledger and another job, servers of every kind, and a secret in our environment."""
    data_dir, secret = tmp_path / "data", secrets.token_hex(16)
    attempt_dir, other = data_dir / "work" / "mine" / "1", data_dir / "work" / "other" / "1" / WORKSPACE
    for directory in (attempt_dir / INPUTS, attempt_dir / WORKSPACE / "tmp", other):
        directory.mkdir(parents=True, mode=0o700)
    ledger, teacher, sibling = data_dir / "ledger.sqlite3", attempt_dir / INPUTS / "teacher", other / "weights"
    for path in (ledger, teacher, sibling):
        path.write_bytes(b"a secret")
        path.chmod(0o600)
    monkeypatch.setenv("DFKD_DATABASE_URL", secret)
    abstract, unix = f"\0{secrets.token_hex(8)}", Path(f"/tmp/{secrets.token_hex(8)}.sock")
    with socket.create_server(("127.0.0.1", 0)) as tcp, _listening(str(unix)), _listening(abstract):
        yield Outside(
            data_dir, teacher, attempt_dir / WORKSPACE, sibling, ledger, unix, tcp.getsockname()[1], abstract, secret
        )
    unix.unlink()


def _listening(name: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.bind(name)
    line.listen()
    return line


@pytest.fixture(params=SANDBOXES, ids=lambda sandbox: sandbox.label.replace(" ", "-"))
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Every kind of sandbox that works here, with and without a /proc of its own."""
    sandbox_or_skip(request.param.kind)
    found: Sandbox = request.param
    return found


def policy_of(child: str, outside: Outside) -> SandboxPolicy:
    """Return the policy of an inspection or of a runner, to which the canaries are readable."""
    if child == "inspection":
        policy = child_policy(outside.teacher, timeout_seconds=PATIENCE, memory_bytes=2**30, hidden=(outside.data_dir,))
        return dataclasses.replace(policy, readable=(CANARIES,))
    task = Task(
        teacher_path=outside.teacher,
        spec=DistillSpec.model_validate({"student": {"architecture": "lenet5_half"}}),
        workspace=outside.workspace,
        resume_from=None,
        threads=1,
        device="cpu",
        checkpoint_seconds=1.0,
        messages_fd=1,
        lease_until=0.0,
    )
    policy = runner_policy(task, command=("python", str(CANARIES)), base=os.environ, hidden=outside.data_dir)
    return dataclasses.replace(policy, limits=dataclasses.replace(policy.limits, processes=PROCESSES, data_bytes=2**30))


def ask(sandbox: Sandbox, policy: SandboxPolicy, wishes: dict[str, list[Any]]) -> list[str]:
    """Return the names of the wishes that are granted in a sandbox."""
    process = sandbox.start(
        [sys.executable, "-P", str(CANARIES), json.dumps(wishes)],
        policy,
        directory=policy.writable or Path("/"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, error = process.communicate(timeout=PATIENCE)
    assert exit_status(process.returncode) == 0, error.decode()
    granted: list[str] = json.loads(said)
    return granted


def hostile(outside: Outside, *, processes: int) -> dict[str, list[Any]]:
    """Return every wish that a sandbox must refuse."""
    here = Path(__file__)
    other = outside.data_dir / "work" / "other"
    files = [
        "/etc/shadow",
        "/etc/passwd",
        "/var",
        "/run",
        "/boot",
        "/proc/kcore",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/vsock",
    ]
    files += ["/proc/1/root/etc/shadow", f"/proc/{os.getpid()}/environ", str(here), str(here.parents[3] / ".git")]
    files += [str(path) for path in (outside.ledger, outside.sibling, outside.sibling.parent, other)]
    files += [str(path) for path in (Path("/root"), Path("/home"), Path.home()) if not _leads_to_python(path)]
    files += [str(Path.home() / name) for name in (".bashrc", ".profile", ".ssh", ".config")]
    targets = ["/usr/canary", "/etc/ld.so.preload", "/canary", "/dev/canary", "/sys/devices/system/cpu/cpu0/online"]
    targets += [f"{sys.prefix}/canary", str(here.parents[3] / "dfkd_core" / "canary.py"), str(CANARIES)]
    targets += ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"]
    targets += [str(outside.teacher)]
    addresses = [(socket.AF_INET, ["127.0.0.1", outside.port]), (socket.AF_INET, [*NO_ROUTE])]
    addresses += [(socket.AF_INET, ["127.0.0.1", port]) for port in (5432, 6379, 8000)]
    addresses += [(socket.AF_UNIX, str(outside.unix)), (socket.AF_UNIX, outside.abstract), (socket.AF_VSOCK, [2, 80])]
    return {
        **{f"reads:{path}": [path] for path in files},
        **{f"writes:{path}": [path] for path in targets},
        **{f"connects:{family.name} {address}": [int(family), address] for family, address in addresses},
        "connects:datagram": [int(socket.AF_INET), [*NO_ROUTE], int(socket.SOCK_DGRAM)],
        "resolves": [],
        "interfaces": [],
        "traces:supervisor": [os.getpid()],
        "traces:first process": [1],
        "signals:supervisor": [os.getpid()],
        "signals:worker": [os.getppid()],
        "sees": [outside.secret],
        "has_capabilities": [],
        "becomes_root": [],
        "new_namespace": [],
        "mounts": [],
        "descriptors": [[]],
        "grows": [processes],
        "fills": [2**31],
    }


def _leads_to_python(directory: Path) -> bool:
    return any(Path(prefix).is_relative_to(directory) for prefix in (sys.prefix, sys.base_prefix, here_root()))


def here_root() -> str:
    """Return the directory that holds our packages."""
    return str(Path(__file__).resolve().parents[3])


@pytest.mark.parametrize("child", ["inspection", "runner"])
def test_no_canary_comes_back(child: str, sandbox: Sandbox, outside: Outside) -> None:
    wishes = hostile(outside, processes=MAX_PROCESSES if child == "inspection" else PROCESSES)
    assert ask(sandbox, policy_of(child, outside), wishes) == []
    ask(
        sandbox,
        policy_of(child, outside),
        {f"writes:{path}": [str(path)] for path in (outside.ledger, outside.sibling)},
    )
    assert {path.read_bytes() for path in (outside.ledger, outside.sibling, outside.teacher)} == {b"a secret"}


def test_the_canaries_can_sing(outside: Outside) -> None:
    """Without a sandbox the wishes that need no rights are granted, so the sandbox is what refuses them above."""
    unfounded = {"grows", "fills", "traces", "writes", "mounts", "new_namespace", "becomes_root", "resolves"}
    wishes = {
        name: wish for name, wish in hostile(outside, processes=1).items() if name.partition(":")[0] not in unfounded
    }
    granted = ask(Sandbox(SandboxKind.OFF), policy_of("runner", outside), wishes)
    expected = [f"reads:{path}" for path in ("/etc/passwd", "/var", str(outside.ledger), str(outside.sibling))]
    expected += [f"connects:AF_INET {['127.0.0.1', outside.port]}", f"connects:AF_UNIX {outside.unix}"]
    expected += [f"connects:AF_UNIX {outside.abstract}", "signals:supervisor"]
    assert set(expected) <= set(granted)


@pytest.mark.parametrize("child", ["inspection", "runner"])
def test_each_sees_what_it_needs(child: str, sandbox: Sandbox, outside: Outside) -> None:
    own = outside.workspace / "student.onnx"
    wishes: dict[str, list[Any]] = {"reads": [str(outside.teacher)], "writes": [str(own)], "fills": [2**20]}
    granted = ask(sandbox, policy_of(child, outside), wishes)
    assert granted == (["reads", "fills"] if child == "inspection" else ["reads", "writes", "fills"])
    assert own.exists() is (child == "runner")


def test_nothing_is_left_for_the_next_job(sandbox: Sandbox, outside: Outside) -> None:
    policy, marker = policy_of("runner", outside), f"sitecustomize-{secrets.token_hex(4)}.py"
    elsewhere = dataclasses.replace(policy, writable=outside.data_dir / "work" / "mine" / "2")
    assert elsewhere.writable is not None
    (elsewhere.writable / "tmp").mkdir(parents=True)
    moved = {**(policy.environment or {}), "HOME": str(elsewhere.writable / "tmp")}
    assert ask(sandbox, policy, {"leaves": [marker]}) == []
    assert ask(sandbox, dataclasses.replace(elsewhere, environment=moved), {"leaves": [marker]}) == []
    assert not any(Path(directory, marker).exists() for directory in ("/tmp", "/dev/shm", "/var/tmp"))


def test_the_environment_is_the_allow_list(sandbox: Sandbox, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "PYTHONSTARTUP", "TRITON_CACHE_DIR", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "")
    for child, most in (("inspection", 6), ("runner", 24)):
        policy = policy_of(child, outside)
        code = "import json, os, socket; print(json.dumps([dict(os.environ), os.uname().nodename, os.getuid()]))"
        process = sandbox.start(
            [sys.executable, "-c", code], policy, directory=Path("/"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        environment, host, user = json.loads(process.communicate(timeout=PATIENCE)[0])
        assert environment.items() - {("LC_CTYPE", "C.UTF-8"), ("PWD", "/")} == (policy.environment or {}).items()
        assert (
            set(environment) & {"AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "TRITON_CACHE_DIR", "DFKD_DATABASE_URL"} == set()
        )
        assert len(environment) <= most
        assert (host, user != 0) == ("sandbox", True)


def test_a_box_dies_with_the_process_that_started_it(sandbox: Sandbox, tmp_path: Path) -> None:
    word = f"600.{time.monotonic_ns()}"
    code = (
        "import sys, time; from pathlib import Path; from dfkd_core.sandbox.launch import Sandbox, SandboxKind; "
        "from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy; "
        "sandbox = Sandbox(SandboxKind(sys.argv[1]), own_proc=sys.argv[2] == 'True'); "
        "sandbox.start(['/bin/sleep', sys.argv[3]], SandboxPolicy(limits=ResourceLimits()), directory=Path('/')); "
        "time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, sandbox.kind.value, str(sandbox.own_proc), word])
    until(lambda: sleepers(word))
    starter.kill()
    starter.wait()
    until(lambda: not sleepers(word))


def test_a_killed_box_takes_everything_in_it_along(sandbox: Sandbox) -> None:
    word = f"600.{time.monotonic_ns()}"
    script = f"/bin/sleep {word} & setsid /bin/sleep {word} & exec /bin/sleep {word}"
    process = sandbox.start(["/bin/sh", "-c", script], SandboxPolicy(limits=ResourceLimits()), directory=Path("/"))
    until(lambda: len(sleepers(word)) == 3)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    until(lambda: not sleepers(word))


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("kill $$", -15)])
def test_how_a_command_ends_is_told(sandbox: Sandbox, script: str, status: int) -> None:
    process = sandbox.start(["/bin/sh", "-c", script], SandboxPolicy(limits=ResourceLimits()), directory=Path("/"))
    assert exit_status(process.wait(PATIENCE)) == status


def test_a_signal_for_the_whole_service_does_not_end_a_box(sandbox: Sandbox) -> None:
    """A service manager signals every process of a service; the supervisor itself tells its runner, by a pipe."""
    process = sandbox.start(
        ["/bin/cat"],
        SandboxPolicy(limits=ResourceLimits()),
        directory=Path("/"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"ready\n")
    process.stdin.flush()
    process.stdout.readline()
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.communicate()
    assert process.returncode == 0


def sleepers(word: str) -> list[int]:
    """Return the processes of `sleep` with this argument."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        told = process.info
        if told["name"] == "sleep" and word in (told["cmdline"] or ()) and told["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_the_filter_of_calls_knows_two_machines_and_no_third() -> None:
    assert len(seccomp.program("x86_64")) == len(seccomp.program("aarch64")) > 8 * 50
    assert seccomp.program("x86_64") != seccomp.program("aarch64")
    assert seccomp.program("vax") == b""
