"""Blobs in a bucket of an S3-compatible object store, for hosts that share no disk.

PREFIX/blobs/SHA256        the bytes, written once with `If-None-Match: *`; a 412 means that another writer was faster
PREFIX/quarantine/SHA256   no row refers to the bytes since this object was written
PREFIX/locks/SHA256        a process is keeping or removing the bytes at this moment

A bucket has no locks, but it creates an object at most once: the process that created the lock object holds the lock. A
lock whose holder died is broken when it is STALE_SECONDS old by the clock of the object store.
"""

import base64
import hashlib
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, TypedDict
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobs.digests import is_digest
from jobs.errors import ArtifactNotFound, StorageFull, StorageUnavailable
from jobs.files.upload import raising_storage_full

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = logging.getLogger(__name__)

STALE_SECONDS = 60.0
_WAIT_SECONDS = 0.05
_CHUNK_BYTES = 1024 * 1024
_CONNECTIONS = 32
_ABSENT = {"NoSuchKey", "404"}
_THERE = {"PreconditionFailed", "ConditionalRequestConflict"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}


def make_client(endpoint_url: str | None) -> "S3Client":
    """Return a client for this endpoint, or for AWS if it is None.

    Keys and region come from where AWS tools look for them.
    """
    session = boto3.Session()
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 4},
        # Digests are ours to check. Stores other than AWS do not all know the checksums that botocore adds by itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "auto" if endpoint_url is None else "path"},
    )
    region = session.region_name or "us-east-1"
    return session.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)


class _Lock(NamedTuple):
    key: str
    token: bytes  # the same bytes have the same ETag
    etag: str


class _Checked(TypedDict, total=False):
    ChecksumSHA256: str


class Bucket:
    """Blobs as objects of a bucket."""

    def __init__(self, url: str, *, endpoint_url: str | None, scratch: Path) -> None:
        parts = urlsplit(url)
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".removeprefix("/")
        self._scratch = scratch  # of this host, for bytes on their way out
        self._client = make_client(endpoint_url)
        self._thread = threading.local()

    def put(self, path: Path, sha256: str) -> None:
        """Send the file unless the object exists. Inside `keeping`, its lock is held until the block ends."""
        self._send(path, sha256)
        held: dict[str, _Lock] | None = getattr(self._thread, "held", None)
        if held is None or sha256 in held:
            return
        for lock in held.values():  # sending a large file may have taken longer than a lock lives
            self._renew(lock)
        held[sha256] = self._lock(sha256)
        if not self.exists(sha256):  # a removal came between the two
            self._send(path, sha256)

    def open(self, sha256: str) -> BinaryIO:
        """Open a local copy that has no name and disappears when it is closed."""
        with ExitStack() as undo, raising_storage_full():
            file = undo.enter_context(tempfile.TemporaryFile(dir=self._scratch))
            for chunk in self._chunks(sha256):
                file.write(chunk)
            file.seek(0)
            undo.pop_all()
            return file

    def exists(self, sha256: str) -> bool:
        """True if the object exists."""
        try:
            self.size(sha256)
        except ArtifactNotFound:
            return False
        return True

    def size(self, sha256: str) -> int:
        """Size of the object."""
        with _answering(sha256):
            return self._client.head_object(Bucket=self._bucket, Key=self._key("blobs", sha256))["ContentLength"]

    def delete(self, sha256: str) -> bool:
        """Remove the object and its quarantine mark; return whether there was an object."""
        existed = self.exists(sha256)
        with _answering(sha256):
            self._client.delete_object(Bucket=self._bucket, Key=self._key("blobs", sha256))
        self.discharge(sha256)
        return existed

    def digests(self) -> Iterator[str]:
        """Return the digests of all objects."""
        return (sha256 for sha256, _ in self._listed("blobs"))

    def quarantine(self, sha256: str) -> None:
        """Write an empty object, whose time is the beginning of the quarantine. An existing mark keeps its time."""
        self._create(self._key("quarantine", sha256), b"")

    def discharge(self, sha256: str) -> None:
        """Remove the quarantine mark."""
        with _answering(sha256):
            self._client.delete_object(Bucket=self._bucket, Key=self._key("quarantine", sha256))

    def quarantined(self) -> Iterator[tuple[str, float]]:
        """Return the digests in quarantine, each with its seconds since it was marked."""
        return self._listed("quarantine")

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Hold the locks of all digests that this thread puts, until the block ends."""
        held: dict[str, _Lock] = {}
        self._thread.held = held
        try:
            yield
        finally:
            self._thread.held = None
            for lock in held.values():
                self._unlock(lock)

    @contextmanager
    def removing(self, sha256: str) -> Iterator[None]:
        """Hold the lock of this digest."""
        lock = self._lock(sha256)
        try:
            yield
        finally:
            self._unlock(lock)

    def check(self) -> None:
        """Check that an object can be written."""
        with _answering():
            self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}ready", Body=b"")

    def _key(self, kind: str, sha256: str) -> str:
        return f"{self._prefix}{kind}/{sha256}"

    def _send(self, path: Path, sha256: str) -> None:
        """Create the object. An existing object stays if its bytes are right."""
        key, checksum = self._key("blobs", sha256), base64.b64encode(bytes.fromhex(sha256)).decode()
        with open(path, "rb") as file:
            if self._create(key, file, checksum=checksum) is not None or self._sound(sha256):
                return
            log.error("artifact replaced: the store had other bytes", extra={"sha256": sha256})
            file.seek(0)
            with _answering(sha256):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file, ChecksumSHA256=checksum)

    def _create(self, key: str, body: bytes | IO[bytes], *, checksum: str | None = None) -> str | None:
        """Write an object unless it exists; return its ETag, or None if it exists. A store that does not support
        conditional requests always writes.
        """
        checked: _Checked = {} if checksum is None else {"ChecksumSHA256": checksum}
        with _answering():
            try:
                written = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*", **checked)
            except ClientError as error:
                if _code(error) in _THERE:
                    return None
                if _code(error) != "NotImplemented":
                    raise
                written = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **checked)
        return written["ETag"]

    def _sound(self, sha256: str) -> bool:
        digest = hashlib.sha256()
        try:
            for chunk in self._chunks(sha256):
                digest.update(chunk)
        except ArtifactNotFound:
            return False
        return digest.hexdigest() == sha256

    def _chunks(self, sha256: str) -> Iterator[bytes]:
        with _answering(sha256):
            body = self._client.get_object(Bucket=self._bucket, Key=self._key("blobs", sha256))["Body"]
            try:
                yield from body.iter_chunks(_CHUNK_BYTES)
            finally:
                body.close()

    def _listed(self, kind: str) -> Iterator[tuple[str, float]]:
        """Yield the digests of the objects of one kind, each with the seconds since it was written."""
        pages = self._client.get_paginator("list_objects_v2")
        with _answering():
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{kind}/"):
                for entry in page.get("Contents", []):
                    name = entry["Key"].rpartition("/")[2]
                    if is_digest(name):
                        yield name, time.time() - entry["LastModified"].timestamp()

    def _lock(self, sha256: str) -> _Lock:
        """Wait for a lock and take it.

        Raises:
            StorageUnavailable: the lock did not become free in time.
        """
        key, token = self._key("locks", sha256), uuid.uuid4().hex.encode()
        patience = time.monotonic() + 3 * STALE_SECONDS
        while (etag := self._create(key, token)) is None:
            if time.monotonic() > patience:
                raise StorageUnavailable("a file is being kept or removed all the time")
            self._break_if_stale(key)
            time.sleep(_WAIT_SECONDS)
        return _Lock(key, token, etag)

    def _renew(self, lock: _Lock) -> None:
        """Renew a lock.

        Raises:
            StorageUnavailable: another process has broken the lock, so the protected bytes may be gone.
        """
        try:
            with _answering():
                self._client.put_object(Bucket=self._bucket, Key=lock.key, Body=lock.token, IfMatch=lock.etag)
        except ArtifactNotFound as error:
            raise StorageUnavailable("keeping files took too long") from error

    def _unlock(self, lock: _Lock) -> None:
        """Remove a lock if this process still holds it. A failure is ignored, because a lock grows stale by itself."""
        try:
            with _answering():
                self._client.delete_object(Bucket=self._bucket, Key=lock.key, IfMatch=lock.etag)
        except (ArtifactNotFound, StorageUnavailable):
            log.warning("a lock was not removed", extra={"key": lock.key}, exc_info=True)

    def _break_if_stale(self, key: str) -> None:
        try:
            with _answering():
                found = self._client.head_object(Bucket=self._bucket, Key=key)
        except ArtifactNotFound:
            return
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        if (now - found["LastModified"]).total_seconds() > STALE_SECONDS:
            log.warning("a stale lock is broken", extra={"key": key})
            self._unlock(_Lock(key, b"", found["ETag"]))


@contextmanager
def _answering(sha256: str = "") -> Iterator[None]:
    """Raise our exceptions in place of those of the library."""
    try:
        yield
    except ClientError as error:
        raise _translated(error, sha256) from error
    except BotoCoreError as error:
        raise StorageUnavailable("the object store does not answer") from error


def _translated(error: ClientError, sha256: str = "") -> Exception:
    code = _code(error)
    if code in _ABSENT:
        return ArtifactNotFound(sha256)
    if code in _FULL:
        return StorageFull("no space left for files")
    return StorageUnavailable(f"the object store refuses: {code}")


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]
