"""The Kubernetes manifests without a cluster: their schemas, and rules that schemas cannot express."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from jobs.db.postgres import CHANGE_SECONDS
from jobs.settings import Settings
from tests.containers.test_compose import DOCKERFILE, SERVICES

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy/kubernetes"
FILES = sorted(path for path in HERE.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS: list[dict[str, Any]] = [
    {**found, "file": path.name} for path in FILES for found in yaml.safe_load_all(path.read_text())
]
DEPLOYMENTS = {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == "Deployment"}
WORKLOADS = {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] in {"Deployment", "Job"}}
WORKERS = ["worker-cpu", "worker-gpu"]
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
KNOWN = {f"DFKD_{name.upper()}" for name in Settings.model_fields}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    assert isinstance(found, dict)
    return found


def environment(name: str) -> dict[str, str]:
    told = {entry["name"]: entry["value"] for entry in container(name).get("env", [])}
    return {**of_kind("ConfigMap")["dfkd"]["data"], **told}


def matches(selector: dict[str, Any], name: str) -> bool:
    labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: f"{found['file']}:{found['kind']}")
def test_every_object_has_the_shape_that_kubernetes_takes(found: dict[str, Any], version: str) -> None:
    told = {key: value for key, value in found.items() if key != "file"}
    kubernetes_validate.validate(told, version, strict=True)


def test_a_wrong_shape_would_be_found() -> None:
    wrong = {key: value for key, value in DEPLOYMENTS["api"].items() if key != "file"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**wrong, "spec": {**wrong["spec"], "replica": 1}}, VERSIONS[-1], strict=True)


def test_the_kustomization_names_what_is_there_and_no_secret() -> None:
    named = yaml.safe_load((HERE / "kustomization.yaml").read_text())["resources"]
    optional = {"autoscaling.yaml", "migrate.yaml", "secret.template.yaml"}
    assert set(named) == {path.name for path in FILES} - optional
    assert {found["metadata"].get("namespace") for found in OBJECTS if found["kind"] != "Namespace"} == {"dfkd"}


def test_the_secret_is_a_template_without_values() -> None:
    secret = of_kind("Secret")["dfkd"]
    assert "data" not in secret
    assert set(secret["stringData"].values()) == {""}
    assert {"DFKD_DATABASE_URL", "DFKD_BROKER_URL", "DFKD_ARTIFACTS_URL"} <= set(secret["stringData"])


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_every_pod_is_hardened(name: str) -> None:
    spec, only = pod(name), container(name)
    profile = {"type": "Localhost", "localhostProfile": "dfkd/seccomp.json"} if name in DEPLOYMENTS else None
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
        "seccompProfile": profile or {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
    assert all(set(volume) == {"name", "emptyDir"} and volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"])
    assert {mount["mountPath"] for mount in only["volumeMounts"]} == {"/data", "/tmp"}
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert only["resources"]["limits"]["memory"]
    assert "USER 10001:10001" in DOCKERFILE


def test_the_namespace_refuses_pods_that_are_not() -> None:
    assert of_kind("Namespace")["dfkd"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert of_kind("ServiceAccount")["dfkd"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_settings_in_the_environment_exist_and_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = environment(name)
    secret = {key for key in of_kind("Secret")["dfkd"]["stringData"] if not key.startswith("AWS_")}
    assert set(told) | secret <= KNOWN
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    Settings()
    sources = [next(iter(source.values()))["name"] for source in container(name)["envFrom"]]
    assert sources == ["dfkd", "dfkd"]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_images_are_those_of_the_compose_file(name: str) -> None:
    service = {"api": "api", "migrate": "api", "worker-cpu": "worker", "worker-gpu": "worker-gpu"}[name]
    assert container(name)["image"] == SERVICES[service]["image"]


def test_the_probes_of_the_api_ask_what_a_broker_has_no_say_in() -> None:
    only = container("api")
    paths = {kind: only[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert only["ports"] == [{"name": "http", "containerPort": 8000}]
    assert {only[kind]["httpGet"]["port"] for kind in paths} == {"http"}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_alive_while_the_ledger_has_its_heartbeat(name: str) -> None:
    only = container(name)
    script = "/opt/health/worker_health.py"
    for kind in ("startupProbe", "livenessProbe"):
        assert only[kind]["exec"]["command"] == ["python", script]
    assert script.rpartition("/")[2] in DOCKERFILE
    assert "readinessProbe" not in only  # nobody asks a worker for anything
    assert only["livenessProbe"]["periodSeconds"] * only["livenessProbe"]["failureThreshold"] >= 600


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_change_of_the_tables_is_waited_for(name: str) -> None:
    probe = container(name)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > CHANGE_SECONDS


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_time_to_drain_before_it_is_killed(name: str) -> None:
    grace = float(environment(name)["DFKD_STOP_GRACE_SECONDS"])
    assert pod(name)["terminationGracePeriodSeconds"] >= grace + 15


def test_each_worker_serves_its_class_and_a_gpu_one_slot() -> None:
    assert {name: environment(name)["DFKD_WORKER_DEVICE"] for name in WORKERS} == {
        "worker-cpu": "cpu", "worker-gpu": "cuda",
    }  # fmt: skip
    assert {environment(name)["DFKD_WORKER_SLOTS"] for name in WORKERS} == {"1"}
    assert container("worker-gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in container("worker-cpu")["resources"]["limits"]


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_deployment_finds_its_own_pods_and_a_drained_node_takes_one_at_most(name: str) -> None:
    selector = DEPLOYMENTS[name]["spec"]["selector"]
    assert [other for other in WORKLOADS if matches(selector, other)] == [name]
    (budget,) = [each for each in of_kind("PodDisruptionBudget").values() if matches(each["spec"]["selector"], name)]
    assert {"minAvailable", "maxUnavailable"} & set(budget["spec"])


def test_nothing_reaches_a_worker_and_they_reach_ledger_bell_and_files() -> None:
    policies = [policy["spec"] for policy in of_kind("NetworkPolicy").values()]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    for name in WORKLOADS:
        mine = [policy for policy in policies if matches(policy["podSelector"], name)]
        incoming = [rule for policy in mine for rule in policy.get("ingress", [])]
        outgoing = [rule for policy in mine for rule in policy.get("egress", [])]
        assert len(incoming) == (1 if name == "api" else 0)
        assert {port["port"] for rule in outgoing for port in rule["ports"]} == {53, 443, 5432, 6379}


def test_the_api_asks_for_keys() -> None:
    assert environment("api")["DFKD_AUTH"] == "required"


def test_the_service_leads_to_the_api() -> None:
    service = of_kind("Service")["api"]["spec"]
    assert [name for name in WORKLOADS if matches({"matchLabels": service["selector"]}, name)] == ["api"]
    assert service["ports"][0]["targetPort"] == "http"


def test_what_is_scaled_exists_and_the_metrics_are_told() -> None:
    text = (HERE / "autoscaling.yaml").read_text()
    for scaler in of_kind("HorizontalPodAutoscaler").values():
        assert scaler["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
        for metric in scaler["spec"]["metrics"]:
            assert f"#   {metric['external']['metric']['name']} " in text
    page = (ROOT / "docs/operations.md").read_text()
    for name in re.findall(r"\((dfkd_\w+){", text):
        assert f"`{name}{{" in page
