"""The zero-data contract as far as the API can break it: no route takes a data set, in any form."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.builders import onnx_teacher
from tests.service.conftest import SPEC
from tests.service.harness import Service, holdings, post_parts, problem_of, spec_text

BODIES = {
    ("post", "/jobs", "multipart/form-data"): {"teacher", "spec"},
    ("post", "/jobs", "application/json"): set(),
    ("post", "/plans", "multipart/form-data"): {"teacher", "spec"},
    ("post", "/plans", "application/json"): set(),
    ("post", "/jobs/{job_id}/continue", "application/json"): set(),
    ("post", "/teachers", "application/octet-stream"): set(),
    ("post", "/teachers", "multipart/form-data"): {"teacher", "spec"},
}
"""Every body that is read, and its parts. What is added here has to be something else than data."""

METHODS = {"get", "head", "post", "delete"}
LONGEST_TEXT = 500
MOST_NUMBERS = 64


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    """The OpenAPI document of a running service."""
    found: dict[str, Any] = service.http.get("/openapi.json").json()
    return found


def test_only_teachers_and_specs_are_read(document: dict[str, Any]) -> None:
    found = {
        (method, path, media): set(body["schema"].get("properties", ()))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for media, body in operation.get("requestBody", {}).get("content", {}).items()
    }
    assert found == BODIES
    assert {method for operations in document["paths"].values() for method in operations} <= METHODS
    multipart = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert multipart["additionalProperties"] is False


def leaves(
    schema: dict[str, Any], document: dict[str, Any], at: str, seen: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Every place in a schema where a value can stand: its path, and what may stand there."""
    reference = schema.get("$ref")
    if reference is not None:
        if reference not in seen:
            name = reference.rpartition("/")[2]
            yield from leaves(document["components"]["schemas"][name], document, at, (*seen, reference))
        return
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    for one in inner:
        yield from leaves(one, document, at, seen)
    for name, one in schema.get("properties", {}).items():
        yield from leaves(one, document, f"{at}/{name}", seen)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], document, f"{at}/*", seen)
    if not inner and "properties" not in schema:
        yield at, schema


def holds_little(schema: dict[str, Any]) -> bool:
    """Whether what may stand here is too small to be data, and no address of any."""
    if "enum" in schema or "const" in schema:
        return True
    kind = schema.get("type")
    if kind == "string":
        return "format" not in schema and ("pattern" in schema or schema.get("maxLength", 10**9) <= LONGEST_TEXT)
    if kind == "array":
        return int(schema.get("maxItems", MOST_NUMBERS)) <= MOST_NUMBERS
    return kind in {"integer", "number", "boolean", "null", "object"}


@pytest.mark.parametrize("model", ["JobSpec", "JobRequest"])
def test_no_value_of_a_spec_is_large_enough_for_data_or_says_where_some_is(
    document: dict[str, Any], model: str
) -> None:
    found = list(leaves(document["components"]["schemas"][model], document, "", ()))
    assert len(found) > 50
    assert [at for at, schema in found if not holds_little(schema)] == []
    words = {part for at, _ in found for part in at.split("/")}
    assert words.isdisjoint({"data", "dataset", "images", "labels_file", "samples_url", "url", "path"})


@pytest.mark.parametrize("name", ["data", "images", "dataset", "calibration"])
def test_a_part_with_data_is_refused_and_nothing_of_it_is_kept(service: Service, name: str) -> None:
    before = holdings(service)
    parts = [("spec", spec_text(SPEC)), (name, b"\x00" * 10_000), ("teacher", onnx_teacher(seed=9))]
    problem = problem_of(post_parts(service.http, parts))
    assert (problem["status"], problem["code"]) == (400, "unexpected-part")
    assert holdings(service) == before


@pytest.mark.parametrize("where", ["", "teacher", "distillation"])
def test_a_spec_with_data_is_refused(http: httpx.Client, teacher: bytes, where: str) -> None:
    data = {"data": [[0.0] * 32] * 32}
    spec = {**SPEC, **({where: data} if where else data)}
    problem = problem_of(post_parts(http, [("spec", spec_text(spec)), ("teacher", teacher)]))
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, f"{where and '/' + where}/data")
