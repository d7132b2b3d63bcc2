"""Behaviour that only a bucket has: conditional writes, locks that are objects, and network failures."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.errors import ArtifactNotFound, StorageUnavailable
from jobs.files import s3 as bucket_module
from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.settings import Settings
from tests.builders import digest
from tests.patience import PATIENCE
from tests.servers import BUCKET, ObjectStore
from tests.stored import content

WORD = b"student"
SHA256 = digest("student")


@pytest.fixture
def host(tmp_path: Path, bucket: dict[str, str]) -> Callable[[str], ArtifactStore]:
    """The same bucket as seen from a host with its own disk."""
    return lambda name: open_artifacts(Settings(data_dir=tmp_path / name, **bucket))


@pytest.fixture
def keys(object_store: ObjectStore, bucket: dict[str, str]) -> Callable[[], list[str]]:
    """Names of the objects below the prefix."""
    prefix = bucket["artifacts_url"].rpartition("/")[2]

    def listed() -> list[str]:
        found = object_store.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return sorted(entry["Key"].removeprefix(f"{prefix}/") for entry in found.get("Contents", []))

    return listed


def keep(artifacts: ArtifactStore) -> str:
    return artifacts.receive([WORD], len(WORD)).commit()[0]


def test_hosts_share_files_and_no_disk(host: Callable[[str], ArtifactStore], keys: Callable[[], list[str]]) -> None:
    keep(host("api"))
    assert content(host("worker"), SHA256) == WORD
    assert keys() == [f"blobs/{SHA256}"]
    assert not list(Path(host("api")._temporary).iterdir())


def test_many_hosts_put_the_same_bytes_and_one_object_is_written(
    host: Callable[[str], ArtifactStore], object_store: ObjectStore, bucket: dict[str, str]
) -> None:
    prefix = bucket["artifacts_url"].rpartition("/")[2]
    object_store.client().put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda number: keep(host(f"host-{number}")), range(8))) == {SHA256}
        versions = object_store.client().list_object_versions(Bucket=BUCKET, Prefix=f"{prefix}/blobs/")
    finally:
        object_store.client().put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert len(versions["Versions"]) == 1


def test_a_removal_on_one_host_waits_for_the_row_that_another_host_writes(
    host: Callable[[str], ArtifactStore], keys: Callable[[], list[str]]
) -> None:
    rows: set[str] = set()
    api, worker = host("api"), host("worker")
    with ThreadPoolExecutor(1) as pool, worker.keeping():
        keep(worker)
        removing = pool.submit(api.remove_unreferenced, [SHA256], rows.__contains__)
        time.sleep(0.3)
        assert not removing.done()
        rows.add(SHA256)
        assert keys() == [f"blobs/{SHA256}", f"locks/{SHA256}"]
    assert removing.result(PATIENCE) == []
    assert keys() == [f"blobs/{SHA256}"]


def test_bytes_that_are_just_going_away_are_put_again(host: Callable[[str], ArtifactStore]) -> None:
    """The removal holds the lock while the other host finds the object there; the object goes; the lock changes."""
    api, worker, asked = host("api"), host("worker"), threading.Event()
    keep(api)

    def nobody_needs_it(_sha256: str) -> bool:
        asked.set()
        time.sleep(0.5)
        return False

    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(api.remove_unreferenced, [SHA256], nobody_needs_it)
        assert asked.wait(PATIENCE)
        with worker.keeping():
            keep(worker)
            assert removing.result(PATIENCE) == [SHA256]
            assert content(worker, SHA256) == WORD
    assert content(worker, SHA256) == WORD


def test_a_publication_that_outlived_its_lock_is_not_finished(
    host: Callable[[str], ArtifactStore], object_store: ObjectStore, bucket: dict[str, str]
) -> None:
    artifacts, prefix = host("worker"), bucket["artifacts_url"].rpartition("/")[2]
    with artifacts.keeping():
        keep(artifacts)
        artifacts.receive([b"another"], 10).commit()
    with artifacts.keeping():
        keep(artifacts)
        object_store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/locks/{SHA256}", Body=b"of another host")
        third = artifacts.receive([b"a third"], 10)
        with pytest.raises(StorageUnavailable):
            third.commit()
    assert not third.path.exists()


def test_the_lock_of_a_killed_host_goes_stale(
    host: Callable[[str], ArtifactStore],
    object_store: ObjectStore,
    bucket: dict[str, str],
    keys: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifacts, prefix = host("api"), bucket["artifacts_url"].rpartition("/")[2]
    keep(artifacts)
    monkeypatch.setattr(bucket_module, "STALE_SECONDS", 1.5)
    began_at = time.monotonic()
    object_store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/locks/{SHA256}", Body=b"of a killed host")
    assert artifacts.remove_unreferenced([SHA256], lambda _: False) == [SHA256]
    assert time.monotonic() - began_at > 0.5
    assert keys() == []


def test_more_objects_than_a_page_are_listed(
    host: Callable[[str], ArtifactStore], object_store: ObjectStore, bucket: dict[str, str]
) -> None:
    prefix, client = bucket["artifacts_url"].rpartition("/")[2], object_store.client()
    for number in range(1001):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/blobs/{digest(str(number))}", Body=b"")
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/blobs/not-ours", Body=b"")
    assert set(host("api").digests()) == {digest(str(number)) for number in range(1001)}


def test_a_store_that_does_not_answer_is_unavailable_and_leaves_nothing(tmp_path: Path, bucket: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    artifacts = open_artifacts(
        Settings(data_dir=tmp_path, artifacts_url=bucket["artifacts_url"], artifacts_endpoint_url=address)
    )
    for ask in (artifacts.check, lambda: keep(artifacts), lambda: artifacts.open(SHA256)):
        with pytest.raises(StorageUnavailable):
            ask()
    assert artifacts.remove_unreferenced([SHA256], lambda _: False) == []
    assert artifacts.stale_uploads(-60) == []


def test_a_bucket_that_is_not_there_is_not_an_empty_one(tmp_path: Path, object_store: ObjectStore) -> None:
    settings = Settings(
        data_dir=tmp_path, artifacts_url="s3://absent", artifacts_endpoint_url=object_store.endpoint_url
    )
    artifacts = open_artifacts(settings)
    for ask in (artifacts.check, lambda: list(artifacts.digests()), lambda: artifacts.open(SHA256)):
        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            ask()


def test_a_bucket_without_a_prefix_is_used_from_its_root(tmp_path: Path, object_store: ObjectStore) -> None:
    client = object_store.client()
    client.create_bucket(Bucket="of-our-own")
    settings = Settings(
        data_dir=tmp_path, artifacts_url="s3://of-our-own", artifacts_endpoint_url=object_store.endpoint_url
    )
    keep(open_artifacts(settings))
    assert client.get_object(Bucket="of-our-own", Key=f"blobs/{SHA256}")["Body"].read() == WORD
    with pytest.raises(ArtifactNotFound):
        open_artifacts(settings).open(digest("another"))


@pytest.mark.parametrize("url", ["file:///tmp", "s3://", "s3://UPPER/x", "s3://bucket//x", "bucket"])
def test_a_url_that_names_no_bucket_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(data_dir=tmp_path, artifacts_url=url)
