"""Files appear only when they are complete, and a file whose bytes changed is never served."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from jobs.errors import ArtifactCorrupt, ArtifactNotFound, StorageFull, UploadTooLarge
from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.files.upload import FIRST_BYTES
from jobs.settings import Settings
from tests.stored import content, overwrite

PAYLOAD = b"a trained teacher, " * 1000


@pytest.fixture
def artifacts(tmp_path: Path, artifact_settings: dict[str, str]) -> ArtifactStore:
    return open_artifacts(Settings(data_dir=tmp_path / "data", **artifact_settings))


def kept(artifacts: ArtifactStore, payload: bytes = PAYLOAD) -> str:
    sha256, _ = artifacts.receive([payload], len(payload)).commit()
    return sha256


def files(artifacts: ArtifactStore) -> list[str]:
    """Digests of what is kept, and names of what is left half way."""
    return sorted(artifacts.digests()) + [path.name for path in artifacts.stale_uploads(-60)]


def test_what_is_kept_comes_back_under_its_digest(artifacts: ArtifactStore) -> None:
    upload = artifacts.receive([PAYLOAD[:10], b"", PAYLOAD[10:]], len(PAYLOAD))
    assert upload.path.read_bytes() == PAYLOAD
    assert upload.commit() == (hashlib.sha256(PAYLOAD).hexdigest(), len(PAYLOAD))
    assert content(artifacts, upload.sha256) == PAYLOAD
    assert files(artifacts) == [upload.sha256]


def test_the_first_bytes_are_known_on_the_way(artifacts: ArtifactStore) -> None:
    with artifacts.begin(10**6) as upload:
        for start in range(0, len(PAYLOAD), 7):
            upload.write(PAYLOAD[start : start + 7])
        assert upload.first_bytes == PAYLOAD[:FIRST_BYTES]


def test_a_request_body_is_taken_as_it_comes(artifacts: ArtifactStore) -> None:
    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(PAYLOAD), 4096):
            yield PAYLOAD[start : start + 4096]

    async def receive() -> str:
        return (await artifacts.receive_async(body(), len(PAYLOAD))).commit()[0]

    assert anyio.run(receive) == hashlib.sha256(PAYLOAD).hexdigest()


def test_one_byte_too_many_is_refused_and_leaves_nothing(artifacts: ArtifactStore) -> None:
    with pytest.raises(UploadTooLarge) as caught:
        artifacts.receive([PAYLOAD, b"x"], len(PAYLOAD))
    assert caught.value.max_bytes == len(PAYLOAD)
    assert files(artifacts) == []


def test_an_upload_that_breaks_off_leaves_nothing(artifacts: ArtifactStore) -> None:
    def broken() -> Iterator[bytes]:
        yield PAYLOAD
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        artifacts.receive(broken(), 10**6)
    assert files(artifacts) == []


def test_an_upload_that_nobody_commits_leaves_nothing(artifacts: ArtifactStore) -> None:
    with artifacts.begin(10**6) as upload:
        upload.write(PAYLOAD)
    upload.discard()
    assert files(artifacts) == []


def test_the_same_bytes_are_one_file(artifacts: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "student.onnx"
    source.write_bytes(PAYLOAD)
    assert artifacts.put_file(source) == (kept(artifacts), len(PAYLOAD))
    assert len(files(artifacts)) == 1
    assert source.read_bytes() == PAYLOAD


def test_an_empty_file_can_be_kept(artifacts: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    sha256, size = artifacts.put_file(tmp_path / "empty")
    assert (size, artifacts.exists(sha256)) == (0, True)


@pytest.mark.parametrize("change", ["flip", "truncate", "append"])
def test_changed_bytes_are_never_handed_out_and_heal_when_kept_again(
    artifacts: ArtifactStore, change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sha256 = kept(artifacts)
    data = bytearray(PAYLOAD)
    data[len(data) // 2] ^= 1
    damaged = {"flip": bytes(data), "truncate": PAYLOAD[:-1], "append": PAYLOAD + b"x"}[change]
    overwrite(artifacts, sha256, damaged)
    for take in (artifacts.open, lambda sha256: artifacts.fetch(sha256, tmp_path / "copy")):
        with pytest.raises(ArtifactCorrupt):
            take(sha256)
    assert [record.levelname for record in caplog.records if record.name == "jobs.files.artifacts"] == ["CRITICAL"] * 2
    assert not (tmp_path / "copy").exists()
    kept(artifacts)
    assert content(artifacts, sha256) == PAYLOAD


def test_verification_reads_large_files_piece_by_piece(artifacts: ArtifactStore, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(128 * 1024**2)
    tracemalloc.start()
    sha256, size = artifacts.put_file(tmp_path / "large")
    artifacts.open(sha256).close()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 128 * 1024**2
    assert peak_bytes < 8 * 1024**2


@pytest.mark.parametrize("sha256", ["", "0" * 64, "../../../etc/passwd", "A" * 64, "0" * 63 + "\n", "..", "0" * 65])
def test_what_is_not_there_is_not_found(artifacts: ArtifactStore, sha256: str) -> None:
    for ask in (artifacts.open, artifacts.size):
        with pytest.raises(ArtifactNotFound):
            ask(sha256)
    assert not artifacts.exists(sha256)
    assert not artifacts.delete(sha256)


def test_a_download_outlives_the_deletion(artifacts: ArtifactStore) -> None:
    sha256 = kept(artifacts)
    with artifacts.open(sha256) as file:
        assert artifacts.delete(sha256)
        assert file.read() == PAYLOAD
    assert not artifacts.exists(sha256)
    assert not artifacts.delete(sha256)


FULL_DISK = """
import resource, sys
from jobs.files.artifacts import open_artifacts
from jobs.errors import StorageFull
from jobs.settings import Settings
artifacts = open_artifacts(Settings(data_dir=sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
for sizes in ([1000] * 100, [10**6], [65536, 1]):
    try:
        artifacts.receive((b"x" * size for size in sizes), 10**9).commit()
    except StorageFull:
        print("full")
print(artifacts.receive([b"small"], 10).commit()[1])
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["full", "full", "full", "5"], "")
    assert files(open_artifacts(Settings(data_dir=root))) == [hashlib.sha256(b"small").hexdigest()]


def test_no_space_is_storage_full_whatever_the_system_calls_it(artifacts: ArtifactStore) -> None:
    upload = artifacts.begin(10**6)
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, upload._file.fileno())  # the same descriptor, now on a device that is always full
    os.close(device)
    upload.write(b"x")
    with pytest.raises(StorageFull):
        upload.commit()
    assert files(artifacts) == []


WRITER = """
import sys
from jobs.files.artifacts import open_artifacts
from jobs.settings import Settings
artifacts = open_artifacts(Settings(data_dir=sys.argv[1]))
print("ready", flush=True)
for number in range(10**9):
    artifacts.receive([bytes([number % 251]) * 4096 for _ in range(16)], 10**9).commit()
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_files_and_sweepable_rests(tmp_path: Path) -> None:
    root, draw = tmp_path / "data", random.Random(0)
    acknowledged = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0.0, 0.05))
            writer.send_signal(signal.SIGKILL)
            acknowledged = max(acknowledged, len(writer.stdout.read().splitlines()))
    artifacts = open_artifacts(Settings(data_dir=root))
    artifacts.sweep_temporary(0)
    digests = list(artifacts.digests())
    for sha256 in digests:
        artifacts.open(sha256).close()
    assert files(artifacts) == sorted(digests)
    assert len(digests) >= acknowledged > 0


CRASHES = """
import itertools, os, sys
from jobs.files.artifacts import open_artifacts
from jobs.settings import Settings

def die_at(point):
    calls = itertools.count()
    def dying(function):
        def call(*arguments, **options):
            if next(calls) == point:
                os._exit(9)
            return function(*arguments, **options)
        return call
    for name in ("mkdir", "fsync", "replace", "open", "close"):
        setattr(os, name, dying(getattr(os, name)))

artifacts, payload = open_artifacts(Settings(data_dir=sys.argv[1])), b"x" * 100_000
for point in itertools.count():
    child = os.fork()
    if child == 0:
        die_at(point)
        artifacts.receive([payload + bytes([point])], 10**6).commit()
        os._exit(0)
    died = os.waitpid(child, 0)[1] != 0
    for sha256 in artifacts.digests():
        artifacts.open(sha256).close()
    swept = artifacts.sweep_temporary(0)
    artifacts.receive([payload + bytes([point])], 10**6).commit()
    print(int(died), swept)
    if not died:
        break
"""


def test_a_crash_before_any_durable_step_leaves_the_state_before_or_after(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CRASHES, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    points = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(points) >= 5
    assert all(died for died, _ in points[:-1])
    assert points[-1] == (0, 0)
    assert sum(swept for _, swept in points) >= 2  # some crashes did leave a temporary file


def test_the_sweep_spares_what_is_being_written(artifacts: ArtifactStore) -> None:
    old, young = artifacts.begin(10**6), artifacts.begin(10**6)
    os.utime(old.path, (0, 0))
    assert artifacts.sweep_temporary(3600) == 1
    young.write(PAYLOAD)
    assert young.commit()[1] == len(PAYLOAD)
    old.discard()


def test_nothing_is_removed_between_a_file_and_its_row(artifacts: ArtifactStore) -> None:
    referenced: set[str] = set()
    removed: list[str] = []
    with artifacts.keeping():
        sha256 = kept(artifacts)
        remove = lambda: removed.extend(artifacts.remove_unreferenced([sha256], referenced.__contains__))  # noqa: E731
        thread = threading.Thread(target=remove)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        referenced.add(sha256)  # the row is written only now
    thread.join(5)
    assert (removed, artifacts.exists(sha256)) == ([], True)
