"""A seccomp filter of system calls: it refuses what no training needs and what namespaces do not isolate.

These calls are refused with EPERM: new namespaces and mounts, tracing and reading other processes, loading code into
the kernel, keys (namespaces share them), BPF, performance counters, io_uring, userfaultfd, files by handle. `clone3`
gets ENOSYS, so that libraries fall back to `clone`: a filter cannot see the flags of `clone3`. Sockets other than
AF_UNIX are refused: AF_VSOCK leads to the hypervisor, and network namespaces do not isolate it.

The numbers are those of the kernel's syscall tables for x86-64 and of the generic table, which AArch64 uses.
"""

import errno
import platform
import socket
import struct

_X86_64 = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "personality": 135, "syslog": 103, "acct": 163,
    "quotactl": 179, "swapon": 167, "swapoff": 168, "reboot": 169, "settimeofday": 164,
    "clone": 56, "socket": 41,
}  # fmt: skip
_AARCH64 = {
    "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268,
    "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "personality": 92, "syslog": 116, "acct": 89,
    "quotactl": 60, "swapon": 224, "swapoff": 225, "reboot": 142, "settimeofday": 170,
    "clone": 220, "socket": 198,
}  # fmt: skip
_EVERYWHERE = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
_CLONE3 = 435
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
_X32 = 0x40000000

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def program(machine: str | None = None) -> bytes:
    """Return the BPF program for `platform.machine()` or the machine named; empty for an unknown machine."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return b""
    architecture, numbers = known
    refused = [number for name, number in numbers.items() if name not in ("clone", "socket")]
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE),
            _instruction(_EQUAL, architecture, 1, 0),
            _instruction(_RETURN, _KILL),
            _instruction(_LOAD, _NUMBER),
            *_return_if(_AT_LEAST, _X32, errno.ENOSYS),
            *_return_if(_EQUAL, _CLONE3, errno.ENOSYS),
            *(each for number in (*refused, *_EVERYWHERE.values()) for each in _return_if(_EQUAL, number, errno.EPERM)),
            _instruction(_EQUAL, numbers["socket"], 0, 4),
            _instruction(_LOAD, _FIRST_ARGUMENT),
            _instruction(_EQUAL, socket.AF_UNIX, 0, 1),
            _instruction(_RETURN, _ALLOW),
            _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
            _instruction(_EQUAL, numbers["clone"], 0, 3),
            _instruction(_LOAD, _FIRST_ARGUMENT),
            _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
            _instruction(_RETURN, _ERRNO | errno.EPERM),
            _instruction(_RETURN, _ALLOW),
        ]
    )


def _return_if(test: int, value: int, error: int) -> tuple[bytes, bytes]:
    """Return the two instructions that refuse a call with `error` where the test of the loaded word succeeds."""
    return _instruction(test, value, 0, 1), _instruction(_RETURN, _ERRNO | error)


def _instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one BPF instruction; `if_true` and `if_false` are how many instructions a jump skips."""
    return struct.pack("=HBBI", operation, if_true, if_false, value)
