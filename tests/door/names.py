"""B-030 to B-036: file names. The service ignores them, so these requests have the same answers as without."""

from tests.door.door import FORM, GOOD, Door, Input, Reply, Send
from tests.service.harness import BOUNDARY

NAMES: dict[str, dict[str, bytes]] = {
    "B-030": {"../../../etc/passwd": b'"../../../etc/passwd"'},
    "B-031": {"/etc/cron.d/x": b'"/etc/cron.d/x"'},
    "B-032": {"..\\..\\x": b'"..\\..\\x"', "C:\\x": b'"C:\\x"', "\\\\host\\share": b'"\\\\host\\share"'},
    "B-033": {"%2e%2e%2f": b'"%2e%2e%2fcanary"', "%252e%252e%252f": b'"%252e%252e%252fcanary"'},
    "B-034": {
        "NUL": b'"a\0canary.onnx"',
        "a quote": b'"a\\"canary.onnx"',
        "right-to-left override": '"canary\u202exnno"'.encode(),
        "3 KB": b'"' + b"canary" * 500 + b'"',
        "empty": b'""',
        "filename*": b"\"canary\"; filename*=UTF-8''%2e%2e%2fcanary",
    },
    "B-035": {name: f'"{name}"'.encode() for name in ("CON", ".", "..", "-rf", "a;id", "$(id)", "`id`")},
}
TOO_LONG = b'"' + b"canary" * 1000 + b'"'


def named(filename: bytes, teacher: bytes) -> bytes:
    """A body whose teacher has this file name."""
    return b"".join(
        [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="teacher"; filename='.encode(),
            filename,
            b"\r\n\r\n",
            teacher,
            f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="spec"\r\n\r\n'.encode(),
            GOOD,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
    )


def upload(filename: bytes, teacher: bytes | None = None) -> Send:
    """A teacher that is here already under this name, unless another is given."""

    def send(door: Door) -> Reply:
        reply = door.form(named(filename, door.known if teacher is None else teacher), FORM)
        data_dir = door.service.settings.data_dir
        assert not [path for path in data_dir.rglob("*") if "canary" in path.name or "passwd" in path.name]
        return reply

    return send


def injected(door: Door) -> Reply:
    """A line break in the name is a line break in the headers of the part: two headers."""
    return door.form(named(b'"a"\r\nX-Canary: b', door.known), FORM)


INPUTS = [
    *(
        Input(row, f"{what}: its name is not looked at", upload(filename), 202, secrets=("canary", "passwd"))
        for row, names in NAMES.items()
        for what, filename in names.items()
    ),
    Input("B-034", "CR/LF: another header of the part", injected, 202, secrets=("canary", "Canary")),
    Input("B-034", "6 KB", upload(TOO_LONG), 400, "malformed-multipart", secrets=("canary",)),
    Input("B-036", "model.onnx.pkl that is ONNX", upload(b'"model.onnx.pkl"'), 202),
    Input(
        "B-036",
        "model.safetensors that is a pickle",
        upload(b'"model.safetensors"', b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94."),
        415,
        "format-unsupported",
        hint=True,
    ),
    Input(
        "B-036", "model.onnx that is HTML", upload(b'"model.onnx"', b"<!doctype html><p>"), 415, "format-unsupported"
    ),
]
