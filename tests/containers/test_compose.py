"""The container files without an engine: rules that the compose schema and hadolint cannot check."""

import json
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings
from jobs.store import open_store
from tests.servers import OWNER, SUPERUSER, postgres_binaries, running_postgres

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["api", "worker", "worker-gpu"]
BOXING = ["seccomp:deploy/seccomp.json", "apparmor:unconfined"]


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def test_everything_that_the_images_copy_is_in_the_build_context() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    sources = {source for copy in copies for source in copy.split()}
    assert {"dfkd", "pyproject.toml"} <= sources
    assert [source for source in sources if not any(Path(source).match(pattern) for pattern in allowed)] == []
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_hardened_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true", *(BOXING if name in OURS else [])]
    assert service["read_only"] is True
    assert service["pids_limit"] > 0
    assert seconds(service["stop_grace_period"]) >= 10


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_has_a_health_check(name: str) -> None:
    if name not in OURS:
        assert SERVICES[name]["healthcheck"]["test"]
        return
    stage = DOCKERFILE.partition(f"AS {SERVICES[name]['build']['target']}\n")[2].partition("\nFROM ")[0]
    assert "\nHEALTHCHECK " in stage
    assert "\nUSER 10001:10001\n" in stage


def test_only_the_api_is_reachable_and_only_from_this_host() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    assert SERVICES["api"]["ports"] == ["${DFKD_BIND:-127.0.0.1}:${DFKD_PORT:-8000}:8000"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert [name for name, service in SERVICES.items() if service["networks"] != ["inside"]] == ["api"]


def test_the_api_asks_for_keys() -> None:
    """It listens beyond its own loopback, as every container does, and starts before there is a key."""
    assert '"--host", "0.0.0.0"' in DOCKERFILE
    assert SERVICES["api"]["environment"]["DFKD_AUTH"] == "required"


@pytest.mark.parametrize("name", OURS)
def test_settings_in_the_environment_exist(name: str) -> None:
    known = {f"DFKD_{field.upper()}" for field in Settings.model_fields}
    assert set(SERVICES[name]["environment"]) <= known


@pytest.mark.parametrize("name", OURS)
def test_api_and_workers_share_ledger_bell_and_artifacts(name: str) -> None:
    environment, api = SERVICES[name]["environment"], SERVICES["api"]["environment"]
    shared = ("DFKD_DATA_DIR", "DFKD_DATABASE_URL", "DFKD_BROKER_URL")
    assert {key: environment[key] for key in shared} == {key: api[key] for key in shared}
    assert SERVICES[name]["volumes"] == [f"artifacts:{environment['DFKD_DATA_DIR']}"]
    assert set(SERVICES[name]["depends_on"]) == {"postgres", "redis"}


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_a_worker_has_time_to_drain_before_it_is_killed(name: str) -> None:
    grace = float(SERVICES[name]["environment"]["DFKD_STOP_GRACE_SECONDS"])
    assert seconds(SERVICES[name]["stop_grace_period"]) >= grace + 10


def test_the_gpu_worker_reserves_a_gpu_and_starts_only_on_request() -> None:
    service = SERVICES["worker-gpu"]
    assert service["profiles"] == ["gpu"]
    assert service["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    assert service["environment"]["DFKD_WORKER_DEVICE"] == "cuda"
    assert all("profiles" not in other for name, other in SERVICES.items() if name != "worker-gpu")


def test_passwords_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    uses = re.findall(r"\$\{(DFKD_\w*PASSWORD)(.*?)\}", text)
    assert {name for name, _ in uses} == {"DFKD_POSTGRES_PASSWORD", "DFKD_REDIS_PASSWORD"}
    assert all(default.startswith(":?") for _, default in uses)


def test_which_torch_is_a_build_argument_that_is_empty_by_default() -> None:
    assert '\nARG TORCH_INDEX_URL=""\n' in DOCKERFILE
    for name in ("worker", "worker-gpu"):
        assert re.fullmatch(r"\$\{DFKD_TORCH_INDEX_\w+:-\}", SERVICES[name]["build"]["args"]["TORCH_INDEX_URL"])


def test_the_service_image_installs_no_torch() -> None:
    stage = DOCKERFILE.partition("AS service-build\n")[2].partition("\nFROM ")[0]
    assert "'.[server,postgres,s3]'" in stage
    assert "-c constraints.txt" in stage
    assert "worker]" not in stage


def test_the_seccomp_profile_leaves_what_a_box_is_made_of() -> None:
    profile = json.loads((ROOT / "deploy/seccomp.json").read_text())
    (refused,) = profile["syscalls"]
    assert (profile["defaultAction"], refused["action"], refused["errnoRet"]) == ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", 1)
    needed = {"clone", "clone3", "unshare", "mount", "umount2", "pivot_root", "mount_setattr", "seccomp", "prctl"}
    assert needed.isdisjoint(refused["names"])
    assert {"ptrace", "bpf", "keyctl", "kexec_load", "open_by_handle_at", "process_vm_readv"} <= set(refused["names"])


def test_the_service_uses_an_ordinary_role_that_owns_its_database() -> None:
    script = ROOT / "deploy/postgres.sql"
    assert f"./deploy/{script.name}:/docker-entrypoint-initdb.d/{script.name}:ro" in SERVICES["postgres"]["volumes"]
    assert "POSTGRES_USER" not in SERVICES["postgres"]["environment"]
    with running_postgres() as server, server.connect() as connection:
        connection.execute(f"ALTER DATABASE postgres OWNER TO {SUPERUSER}")
        connection.execute(f"DROP ROLE {OWNER}")  # as in a new volume
        psql = postgres_binaries(server.directory, None) / "psql"
        command = [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-h", server.directory, "-U", SUPERUSER, "-f", script]
        environment = os.environ | {"POSTGRES_PASSWORD": "it's"}
        subprocess.run([*command, "postgres"], check=True, capture_output=True, env=environment)
        found = connection.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolpassword LIKE 'SCRAM%' FROM pg_authid "
            "WHERE rolcanlogin ORDER BY rolname"
        ).fetchall()
        assert found == [(OWNER, False, False, True), (SUPERUSER, True, True, None)]
        with closing(open_store(Settings(database_url=server.url("dfkd")))) as store:
            assert store.unbound_role() is None
