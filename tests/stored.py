"""Damage to files in an artifact store, in a directory or in a bucket."""

from jobs.files.artifacts import ArtifactStore
from jobs.files.local import Directory
from jobs.files.s3 import Bucket


def overwrite(artifacts: ArtifactStore, sha256: str, content: bytes) -> None:
    """Other bytes under the same name, behind the store's back."""
    blobs = artifacts.blobs
    if isinstance(blobs, Directory):
        blobs.path(sha256).write_bytes(content)
    elif isinstance(blobs, Bucket):
        blobs._client.put_object(Bucket=blobs._bucket, Key=blobs._key("blobs", sha256), Body=content)


def content(artifacts: ArtifactStore, sha256: str) -> bytes:
    """The verified bytes."""
    with artifacts.open(sha256) as file:
        return file.read()
