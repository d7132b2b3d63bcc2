"""The OpenAPI document: FastAPI derives it, and this module adds our schemas, problems, scopes and examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from dfkd.wire.problem import Problem
from jobs.identity import Scope
from jobs.models import JobSpec
from service.intake.said_before import UploadSpec
from service.intake.spec_parsing import JobRequest
from service.middleware.authentication import scope_for
from service.problems.handlers import MEDIA_TYPE
from service.problems.table import BY_CODE, TABLE, Row
from service.representation.examples import NAMED
from service.representation.json_schemas import untag

Document = dict[str, Any]  # Any: JSON
_REF = "#/components/schemas/{model}"
KEY_REFUSALS = ("request-in-progress", "idempotency-key-reused")
"""Every POST that takes an Idempotency-Key may refuse it with these codes. A malformed key is a validation-error."""

LIMIT_REFUSALS = ("quota-exceeded", "rate-limited")
"""Every request that creates a job or a teacher may be refused with these codes."""
KEY: Document = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "dfkd_ID_SECRET",
    "description": "An API key from `dfkd keys create`. Each operation names the scope that the key needs. A service "
    "that only its own machine can reach asks for no key until the first key exists.",
}

_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def problems(*codes: str) -> dict[int | str, Document]:
    """Return the `responses` of an operation that may refuse with these codes, by status."""
    by_status: dict[int, list[Row]] = {}
    for code in codes:
        row = BY_CODE[code]
        assert row.status is not None, f"{code} never answers a request"
        by_status.setdefault(row.status, []).append(row)
    return {status: _problem_response(rows) for status, rows in by_status.items()}


def install(app: FastAPI) -> None:
    """Make `app.openapi()` return our document, which is built once."""

    def openapi() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> Document:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, ours = models_json_schema(
        [(JobSpec, "validation"), (JobRequest, "validation"), (UploadSpec, "validation"), (Problem, "serialization")],
        ref_template=_REF,
    )
    schemas.update(ours["$defs"])
    untag(schemas)
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"]["properties"]["code"]["enum"] = [row.code for row in TABLE if row.status]
    schemas["JobView"]["properties"]["spec"] |= {"$ref": _REF.format(model="JobSpec")}
    document["components"]["securitySchemes"] = {"key": KEY}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _secure(operation, scope_for(method.upper(), path))
            _correct(operation["responses"])
            _name_examples(operation)
    return document


def _secure(operation: Document, scope: Scope | None) -> None:
    """Add the scope that the key needs, and the refusals of a request whose key is missing or lacks the scope."""
    operation["security"] = [] if scope is None else [{"key": [scope]}]
    if scope is not None:
        refusals = problems("unauthenticated", "insufficient-scope")
        operation["responses"] |= {str(status): response for status, response in refusals.items()}


def _correct(responses: dict[str, Document]) -> None:
    """Remove the 422 response that FastAPI adds by itself, and add a default response for all other problems."""
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("HTTPValidationError"):
        del responses["422"]
    responses["default"] = {
        "description": "Any other problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }


def _name_examples(operation: Document) -> None:
    """Replace each name of an example by the example itself."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for media in body.get("content", {}).values():
            for example in media.get("examples", {}).values():
                if isinstance(example["value"], str):
                    example["value"] = NAMED[example["value"]]


def _problem_response(rows: list[Row]) -> Document:
    return {
        "description": "; ".join(f"`{row.code}`: {row.meaning}" for row in rows),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": _REF.format(model="Problem")},
                "examples": {row.code: {"value": _example(row)} for row in rows},
            }
        },
    }


def _example(row: Row) -> Document:
    request_id = "5c1a8e0e-64cf-4c0b-9d0e-3b0f4f1f0c55"
    return {
        "type": row.type,
        "title": row.title,
        "status": row.status,
        "code": row.code,
        "detail": row.meaning,
        "instance": f"urn:uuid:{request_id}",
        "request_id": request_id,
    }
