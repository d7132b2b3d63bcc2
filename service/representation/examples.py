"""Worked examples for the OpenAPI document. A test checks them against the schemas.

Responses contain only the name of their example. `openapi.py` replaces it by the value, because FastAPI drops values
that are null.
"""

from typing import Any

from service.representation.teacher_example import TEACHER, TEACHER_ID

Document = dict[str, Any]  # Any: JSON

STUDENT_ID = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
JOB_ID = "7f0e3c52-5d9a-4f0c-9a35-0d7f2f1c6b1e"

SPEC: Document = {
    "name": "digits for the edge",
    "labels": {"team": "vision"},
    "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.1307], "std": [0.3081]}},
    "student": {"architecture": "lenet5_half"},
    "accept": {"agreement": {"min": 0.95}, "on_miss": "deliver"},
    "distillation": {"method": "pre_dfkd", "memory": "vae", "seed": 7, "budget": {"steps": 6000}},
}

REQUEST: Document = {**SPEC, "teacher": {"id": TEACHER_ID, **SPEC["teacher"]}}

CREATE_JOB_BODY: Document = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["teacher", "spec"],
                "additionalProperties": False,
                "properties": {
                    "teacher": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "The ONNX or safetensors file.",
                    },
                    "spec": {"$ref": "#/components/schemas/JobSpec"},
                },
            },
            "encoding": {
                "teacher": {"contentType": "application/octet-stream"},
                "spec": {"contentType": "application/json"},
            },
        },
        "application/json": {
            "schema": {"$ref": "#/components/schemas/JobRequest"},
            "examples": {"known-teacher": {"summary": "A teacher that was uploaded before", "value": "REQUEST"}},
        },
    },
}

CONTINUE_JOB_BODY: Document = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "object", "description": "The part of the spec that changes."},
            "examples": {"more-steps": {"value": "CONTINUATION"}},
        }
    },
}

PLAN: Document = {
    "teacher": {"name": None, "parameters": 61706, "macs": 416520, "bytes": 248913},
    "student": {"name": "lenet5_half", "parameters": 15738, "macs": 108460, "bytes": 84952},
    "worker_classes": [
        {"name": "cpu-2", "device": "cpu", "memory_bytes": 25_000_000_000, "slots": 1, "precision": "fp32"}
    ],
    "options": [
        {
            "effort": "standard",
            "method": "auto",
            "resolves_to": "pre_dfkd",
            "because": "the teacher has no BatchNorm statistics, so shapes matter more than refinement",
            "chosen": True,
            "steps": 6000,
            "estimate": [{"worker_class": "cpu-2", "seconds": 480.0, "memory_bytes": 930_000_000}],
            "fits": True,
            "misses": [],
        }
    ],
    "advice": None,
    "warnings": [],
}

PLANNED: Document = {
    "description": "What the job would take.",
    "content": {"application/json": {"examples": {"plan": {"value": "PLAN"}}}},
}

CONTINUATION: Document = {"distillation": {"budget": {"steps": 12000, "max_seconds": 7200}}}

UPLOAD_TEACHER_BODY: Document = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["teacher"],
                "additionalProperties": False,
                "properties": {
                    "teacher": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "The ONNX or safetensors file.",
                    },
                    "spec": {"$ref": "#/components/schemas/UploadSpec"},
                },
            },
            "encoding": {
                "teacher": {"contentType": "application/octet-stream"},
                "spec": {"contentType": "application/json"},
            },
        },
    },
}

DIGEST_HEADERS: list[Document] = [
    {
        "name": "Repr-Digest",
        "in": "header",
        "required": False,
        "description": "RFC 9530: the service compares `sha-256=:base64:` with the bytes that arrived.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Content-SHA256",
        "in": "header",
        "required": False,
        "description": "The sha256 of the file in hexadecimal.",
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
    },
]

LAST_EVENT_ID: list[Document] = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "It takes precedence over `after`. Browsers send it when they reconnect to a stream.",
        "schema": {"type": "integer", "minimum": 0},
    }
]

TRACEPARENT: list[Document] = [
    {
        "name": "traceparent",
        "in": "header",
        "required": False,
        "description": "W3C Trace Context. The job and the log keep it; an invalid value is ignored.",
        "schema": {"type": "string", "maxLength": 200},
    }
]

RUNNING_JOB: Document = {
    "id": JOB_ID,
    "name": "digits for the edge",
    "labels": {"team": "vision"},
    "state": "running",
    "terminal": False,
    "stage": "distill",
    "queue_position": None,
    "progress": {
        "fraction": 0.41,
        "step": 2460,
        "total_steps": 6000,
        "eta_seconds": 301.2,
        "agreement": 0.962,
        "message": "student updates 2 460 of 6 000",
    },
    "best": {"step": 2400, "agreement": 0.962},
    "attempt": 1,
    "warnings": [],
    "error": None,
    "durations": {"queued_seconds": 0.2, "running_seconds": 209.3},
    "estimate": [{"worker_class": "cpu-2", "seconds": 480.0, "memory_bytes": 930_000_000}],
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:03:29Z",
    "started_at": "2026-01-31T12:00:00.2Z",
    "finished_at": None,
    "heartbeat_at": "2026-01-31T12:03:28Z",
    "revision": 231,
    "retried_from": None,
    "continued_from": None,
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "spec": SPEC,
    "teacher": TEACHER,
    "artifacts": [],
    "links": {
        "self": f"/jobs/{JOB_ID}",
        "events": f"/jobs/{JOB_ID}/events",
        "artifacts": f"/jobs/{JOB_ID}/artifacts",
        "cancel": f"/jobs/{JOB_ID}/cancel",
        "pause": f"/jobs/{JOB_ID}/pause",
        "resume": f"/jobs/{JOB_ID}/resume",
        "retry": f"/jobs/{JOB_ID}/retry",
        "continue": f"/jobs/{JOB_ID}/continue",
    },
}

QUEUED_JOB: Document = {
    **RUNNING_JOB,
    "state": "queued",
    "stage": "queued",
    "queue_position": 1,
    "progress": {
        "fraction": 0.0,
        "step": 0,
        "total_steps": 0,
        "eta_seconds": None,
        "agreement": None,
        "message": None,
    },
    "best": None,
    "attempt": 0,
    "durations": {"queued_seconds": 0.0, "running_seconds": 0.0},
    "updated_at": "2026-01-31T12:00:00Z",
    "started_at": None,
    "heartbeat_at": None,
    "revision": 1,
    "traceparent": None,
}


def _header(description: str) -> Document:
    return {"description": description, "schema": {"type": "string"}}


_POLL_HEADERS: Document = {
    "ETag": _header("A weak tag; send it back in If-None-Match."),
    "Retry-After": _header("Seconds to wait before the next request; absent once the job has ended."),
}

_REPLAYED = _header("`true` if this repeats the answer to an earlier request with the same key.")

JOB_ACCEPTED: Document = {
    "description": "The job is kept and queued.",
    "headers": {"Location": _header("The job."), "Idempotency-Replayed": _REPLAYED, **_POLL_HEADERS},
    "content": {"application/json": {"examples": {"accepted": {"value": "QUEUED_JOB"}}}},
}

JOB: Document = {
    "description": "The job as it is now.",
    "headers": _POLL_HEADERS,
    "content": {"application/json": {"examples": {"running": {"value": "RUNNING_JOB"}}}},
}

NOT_MODIFIED: Document = {"description": "Nothing changed since the ETag in If-None-Match."}

TEACHER_CREATED: Document = {
    "description": "The teacher is kept.",
    "headers": {"Location": _header("The teacher.")},
    "content": {"application/json": {"examples": {"onnx": {"value": "TEACHER"}}}},
}

PURGE: Document = {
    "kind": "job",
    "id": JOB_ID,
    "deleted_at": "2026-01-31T13:00:00Z",
    "rows": {"requests": 1, "artifacts": 3, "labels": 1, "events": 14, "jobs": 1},
    "files": [{"sha256": STUDENT_ID, "bytes": 96211, "was": ["student.onnx"]}],
    "kept": [
        {
            "sha256": TEACHER_ID,
            "was": ["teacher"],
            "because": "it was uploaded by itself, and is deleted by itself",
        }
    ],
}

PURGED: Document = {
    "description": "What was removed, and what stays and why.",
    "content": {"application/json": {"examples": {"receipt": {"value": "PURGE"}}}},
}

EVENT: Document = {
    "seq": 3,
    "kind": "published",
    "at": "2026-01-31T12:01:10Z",
    "fence": 1,
    "data": {"step": 1200, "agreement": 0.941},
}

EVENT_PAGE: Document = {"events": [EVENT], "last_seq": 3, "terminal": False}

EVENTS: Document = {
    "description": "A page of events, or a stream of them.",
    "content": {
        "application/json": {"examples": {"page": {"value": "EVENT_PAGE"}}},
        "text/event-stream": {"schema": {"type": "string", "description": "`id` is `seq`, `event` is `kind`."}},
    },
}

_FILE: Document = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_DOWNLOAD_HEADERS: Document = {
    "ETag": _header("A strong tag: the sha256 of the file."),
    "Repr-Digest": _header("The sha256 of the file in the form of RFC 9530."),
    "Accept-Ranges": _header("bytes"),
    "Content-Disposition": _header("`attachment` with the name of the file."),
}

DOWNLOAD: dict[int | str, Document] = {
    200: {
        "description": "The whole file.",
        "headers": _DOWNLOAD_HEADERS,
        "content": {
            "application/octet-stream": _FILE,
            "application/json": {"schema": {"type": "object"}},
            "image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}},
        },
    },
    206: {
        "description": "One range of the file.",
        "headers": {**_DOWNLOAD_HEADERS, "Content-Range": _header("bytes first-last/size")},
        "content": {"application/octet-stream": _FILE, "image/png": _FILE},
    },
    304: {"description": "The file has the ETag in If-None-Match."},
}

HEAD: dict[int | str, Document] = {
    200: {"description": "What a download would send.", "headers": _DOWNLOAD_HEADERS},
    206: {"description": "What a download of one range would send.", "headers": _DOWNLOAD_HEADERS},
    304: DOWNLOAD[304],
}

NAMED: dict[str, Document] = {
    "CONTINUATION": CONTINUATION,
    "EVENT_PAGE": EVENT_PAGE,
    "PLAN": PLAN,
    "PURGE": PURGE,
    "QUEUED_JOB": QUEUED_JOB,
    "REQUEST": REQUEST,
    "RUNNING_JOB": RUNNING_JOB,
    "TEACHER": TEACHER,
}
