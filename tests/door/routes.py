"""The other routes: ids, ranges, cursors, downloads, queries. The same rules hold for each."""

import uuid
from collections.abc import Iterator

from tests.door.door import Door, Input, Reply, Send

NOBODY = str(uuid.UUID(int=7))
JOB_ROUTES = (
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/retry"),
    ("GET", "/events"),
    ("GET", "/artifacts"),
    ("GET", "/artifacts/student.onnx"),
    ("HEAD", "/artifacts/student.onnx"),
)
BAD_IDS = (
    NOBODY,
    NOBODY.upper(),
    "{" + NOBODY + "}",
    "0",
    "-1",
    "1 OR 1=1",
    "%00",
    "%f0%9f%98%80",
    "x" * 4000,
)
INVALID = (422, "validation-error")


def request(method: str, path: str, **headers: str) -> Send:
    return lambda door: door.send(method, path, headers=headers)


def continued(job_id: str) -> Send:
    return lambda door: door.send("POST", f"/jobs/{job_id}/continue", b"{}", {"Content-Type": "application/json"})


def same_for_all(method: str, rest: str) -> Send:
    """Ids that are none, one that nobody has and one that was deleted: the same answer, byte by byte but for its id."""

    def send(door: Door) -> Reply:
        deleted = door.deleted_job()
        replies = [door.send(method, f"/jobs/{job_id}{rest}") for job_id in (*BAD_IDS, deleted)]
        assert len({(reply.status, essence(reply)) for reply in replies}) == 1
        return replies[-1]

    return send


def essence(reply: Reply) -> str:
    """A problem without what differs from request to request."""
    request_id = reply.headers["x-request-id"]
    return reply.text.replace(request_id, "")


def of_a_file(**headers: str) -> Send:
    """A download of a finished job's report."""
    return lambda door: door.send("GET", f"/jobs/{door.finished_job()}/artifacts/report.json", headers=headers)


def of_a_job(rest: str, *, finished: bool = False, method: str = "GET", **headers: str) -> Send:
    def send(door: Door) -> Reply:
        job_id = door.finished_job() if finished else door.queued_job()
        return door.send(method, f"/jobs/{job_id}{rest}", headers=headers)

    return send


def queries() -> Iterator[Input]:
    for query in ("limit=0", "limit=-1", "limit=1000000000", "limit=x", "limit=1.5", "limit=", "limit=9" + "9" * 400):
        yield Input("O-03", query[:20], request("GET", f"/jobs?{query}"), *INVALID, secrets=("9999",))
    for cursor in ("x", "n", "n-1", "%00", "%ff", "'", "x" * 201, "bjEK", "bjk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ"):
        what = f"cursor={cursor[:20]}"
        yield Input("O-03", what, request("GET", f"/jobs?cursor={cursor}"), *INVALID, secrets=("xxxx",))
    for query in (
        "state=open", "state=%00", "state=queued,", "label=x", "label=%00=x", "label==", "label=a=b&label=a=c",
        "nonsense=1", "__class__=1", "&".join(["label=a=b"] * 40), "&".join(f"state={'x' * 90}" for _ in range(30)),
    ):  # fmt: skip
        yield Input("O-05", f"/jobs?{query[:24]}", request("GET", f"/jobs?{query}"), *INVALID, secrets=("xxxx",))
    for query in ("after=-1", "after=x", "after=99999999999999999999", "limit=0", "limit=1001"):
        yield Input("O-05", f"events?{query}", of_a_job(f"/events?{query}"), *INVALID)
    for query in ("channels=0", "height=x", "student_width=nan", "student_width=1e999", "num_classes=1", "depth=3"):
        yield Input("O-05", f"/menu?{query}", request("GET", f"/menu?{query}"), *INVALID)
    for value in ("-1", "x", "1e3", "9" * 400):
        yield Input("O-05", f"Last-Event-ID: {value[:9]}", of_a_job("/events", **{"Last-Event-ID": value}), *INVALID)


INPUTS = [
    *(
        Input(
            "O-01",
            f"{method} /jobs/ID{rest}",
            same_for_all(method, rest),
            404,
            None if method == "HEAD" else "job-not-found",
            secrets=(NOBODY,),
        )
        for method, rest in JOB_ROUTES
    ),
    Input("O-01", "POST /jobs/ID/continue", continued(NOBODY), 404, "job-not-found", secrets=(NOBODY,)),
    *(
        Input(
            "O-01",
            f"GET /teachers/{given[:12]}",
            request("GET", f"/teachers/{given}"),
            404,
            "teacher-not-found",
            secrets=(given,),
        )
        for given in ("0" * 64, "F" * 64, "xyz0", "%00")
    ),
    Input("O-01", "GET /jobs/..%2f..%2fetc", request("GET", "/jobs/..%2f..%2fetc"), 404, "not-found", hint=True),
    Input(
        "O-01",
        "a teacher's id that nobody has",
        lambda door: door.spec(teacher={"id": "0" * 64}),
        404,
        "teacher-not-found",
    ),
    Input("O-02", "5,000 ranges", of_a_file(Range="bytes=" + ",".join(f"{at}-{at}" for at in range(5000))), 200),
    Input("O-02", "9…9-", of_a_file(Range=f"bytes={'9' * 30}-"), 200),
    Input("O-02", "beyond the end", of_a_file(Range="bytes=999999-"), 416, "range-not-satisfiable"),
    Input("O-02", "-0", of_a_file(Range="bytes=-0"), 416, "range-not-satisfiable"),
    Input("O-02", "5-1", of_a_file(Range="bytes=5-1"), 200),
    Input("O-02", "another unit", of_a_file(Range="lines=1-2"), 200),
    Input("O-02", "50 KB of entity tags", of_a_file(**{"If-None-Match": '"a",' * 12_000}), 200),
    Input("O-02", "50 KB of quotes", of_a_file(**{"If-None-Match": '"' * 50_000}), 200),
    *queries(),
    Input("O-04", "before the end", of_a_job("/artifacts/student.onnx"), 409, "artifact-not-ready"),
    Input("O-04", "a file that jobs do not have", of_a_job("/artifacts/..%2f..%2fledger.sqlite3"), 404, "not-found"),
    Input("O-04", "a name that is a path", of_a_job("/artifacts/%2e%2e"), 404, "artifact-not-found"),
    Input("O-04", "after retention", of_a_job("/artifacts/student.onnx", finished=True), 410, "artifact-expired"),
    Input("O-04", "delete while it waits", of_a_job("", method="DELETE"), 409, "invalid-transition"),
    Input("O-05", "strange trace", of_a_job("", traceparent="00-" + "z" * 190), 200, secrets=("zzz",)),
    Input("O-05", "/problems/nothing", request("GET", "/problems/nothing%00"), 404, "not-found", secrets=("nothing",)),
    Input("O-05", "HEAD of nothing", request("HEAD", "/nothing"), 404),
    Input(
        "O-05",
        "websocket",
        request(
            "GET",
            "/jobs",
            Connection="Upgrade",
            Upgrade="websocket",
            **{"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
        ),
        200,
    ),
]
