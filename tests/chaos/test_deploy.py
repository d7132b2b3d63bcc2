"""A rolling deploy: the API is replaced, and the tables with it, while a worker of the release before goes on."""

import os
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from jobs.models import SPEC_VERSION
from tests.chaos.deployment import STEPS, Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.servers import all_tenants_engine

ROOT = Path(__file__).parents[2]
REVISIONS = "jobs/migrations/versions"
MODELS = "jobs/models.py"
LONG = 3 * STEPS


@fault("F18")
def test_f18_a_rolling_deploy(before: dict[str, str], run: Run) -> None:
    reads = spec_version_of((Path(before["PYTHONPATH"]) / MODELS).read_text())
    with deployed(workers=0, **before) as deployment:
        old = deployment.start_worker()
        earlier = revision_of(deployment)
        through = deployment.accepted(steps=LONG)  # taken by the old API, run by the old worker
        deployment.until_step(through, run.random.randint(1, STEPS))
        with deployment.history.fault():
            deployment.kill_api()
            for name in before:
                del deployment.environment[name]
            deployment.start_api()
        assert revision_of(deployment) != earlier
        too_new, later, last = (deployment.accepted() for _ in range(3))  # by the new API; they wait for their turn
        written = {job_id: stored_version(deployment, job_id) for job_id in (later, last)}
        set_spec_version(deployment, too_new, SPEC_VERSION + 1)
        deployment.succeed(through, *(job_id for job_id, version in written.items() if version <= reads))
        waiting = [too_new, *(job_id for job_id, version in written.items() if version > reads)]
        assert {deployment.client.get(job_id).state for job_id in waiting} == {"queued"}
        set_spec_version(deployment, too_new, SPEC_VERSION)
        deployment.start_worker()
        assert deployment.stop_worker(old) == 0
        deployment.succeed(*waiting)
        evidence = deployment.audit()
        assert {evidence.jobs[job_id].attempt for job_id in (through, later, last)} == {1}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which processes of the release before run."""
    commit = release_before()
    if commit is None:
        pytest.skip("the history of git is not there")
    tree = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
        archive.extractall(tree, filter="data")
    for directory in (tree, *tree.parents[:2]):
        directory.chmod(0o755)  # runners have a user of their own
    environment = {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "UVICORN_APP_DIR": str(tree)}
    check = [sys.executable, "-c", "from dfkd_core.extras import require; require('worker')"]
    tried = subprocess.run(check, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"the release before cannot start here: {tried.stderr.strip().splitlines()[-1]}")
    return environment


def release_before() -> str | None:
    """The last commit of the main line with an earlier revision of the tables and an earlier version of the specs.

    A version gains fields until it is released, so an earlier commit of the same version may not read all its specs.
    """
    paths = (ROOT / REVISIONS).glob("v*.py")
    newest = f"{REVISIONS}/{max(paths, key=lambda path: int(path.name.split('_')[1])).name}"
    for commit in git("rev-list", "--first-parent", "HEAD", "--", MODELS).decode().split():
        names = git("ls-tree", "--name-only", commit, f"{REVISIONS}/").decode().split()
        version = spec_version_of(git("show", f"{commit}:{MODELS}").decode())
        if names and newest not in names and 0 < version < SPEC_VERSION:
            return commit
    return None


def spec_version_of(models: str) -> int:
    """The version of the specs that a text of `jobs/models.py` states; 0 where it states none."""
    found = re.search(r"^SPEC_VERSION = (\d+)$", models, re.MULTILINE)
    return int(found[1]) if found else 0


def git(*words: str) -> bytes:
    """What git says of this repository; nothing where there is none."""
    try:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def revision_of(deployment: Deployment) -> str:
    engine = create_engine(deployment.ledger_url)
    with engine.connect() as connection:
        (found,) = connection.execute(text("SELECT version_num FROM alembic_version")).one()
    engine.dispose()
    return str(found)


def stored_version(deployment: Deployment, job_id: str) -> int:
    engine = all_tenants_engine(deployment.ledger_url)
    with engine.connect() as connection:
        (found,) = connection.execute(text("SELECT spec_version FROM jobs WHERE id = :id"), {"id": job_id}).one()
    engine.dispose()
    return int(found)


def set_spec_version(deployment: Deployment, job_id: str, version: int) -> None:
    """As if another release had written the job."""
    engine = all_tenants_engine(deployment.ledger_url)
    with engine.begin() as connection:
        values = {"version": version, "id": job_id}
        connection.execute(text("UPDATE jobs SET spec_version = :version WHERE id = :id"), values)
    engine.dispose()
