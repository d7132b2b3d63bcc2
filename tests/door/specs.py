"""B-040 to B-068: specs. Most name an uploaded teacher, so that no file needs an inspection."""

import json
from collections.abc import Iterator
from typing import Any

from tests.door.door import FRESH, GOOD, Door, Input, Reply, Send
from tests.door.transport import TOO_LARGE

INVALID = (422, "validation-error")
MALFORMED = (400, "malformed-json")
NOT_SMALLER = (422, "student-not-smaller")
INFEASIBLE = (422, "student-infeasible")
MISMATCH = (422, "teacher-mismatch")
STUDENT = '{"student": {"architecture": "lenet5_half"}, '


def text(spec: str | bytes) -> Send:
    """This text as the spec."""
    return lambda door: door.spec_text(spec if isinstance(spec, bytes) else spec.encode())


def within(rest: str) -> Send:
    """A good spec with more members, as text."""
    return text(STUDENT + rest + "}")


def spec(**members: Any) -> Send:
    """A good spec with members changed."""
    return lambda door: door.spec(**members)


def at(path: str, value: Any) -> dict[str, Any]:
    """Nested members from a dotted path."""
    name, _, rest = path.partition(".")
    return {name: at(rest, value) if rest else value}


def wrong(row: str, path: str, *values: Any, code: tuple[int, str] = INVALID) -> Iterator[Input]:
    """Values that the field at a dotted path must not have."""
    pointer = "/" + path.replace(".", "/")
    for value in values:
        shown = json.dumps(value)
        what = f"{path} = {shown if len(shown) < 30 else f'{shown[:24]}... ({len(shown)})'}"
        secrets = (value,) if isinstance(value, str) and len(value) > 3 else ()
        yield Input(row, what, spec(**at(path, value)), *code, pointer=pointer, secrets=secrets, hint=True)


def unknown(row: str, **members: Any) -> Iterator[Input]:
    """Keys that the API does not have."""
    for name, value in members.items():
        shown = json.dumps(value)
        secrets = (value,) if isinstance(value, str) and len(value) > 3 else ()
        yield Input(row, f"{name}: {shown[:40]}", spec(**{name: value}), *INVALID, pointer=f"/{name}", secrets=secrets)


def body(content: bytes) -> Send:
    """A JSON body as it is, without multipart around it."""
    return lambda door: door.send("POST", "/jobs", content, {"Content-Type": "application/json"})


def whole(door: Door) -> Reply:
    """A spec of 10 MB, sent to the end whatever is said."""
    return door.parts(("spec", STUDENT.encode() + b'"name": "' + b"x" * 10_000_000 + b'"}'), ("teacher", FRESH))


BOMB = "a" * 60 + "!"
URLS = (
    "http://127.0.0.1/",
    "http://169.254.169.254/latest",
    "http://[::ffff:7f00:1]/",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://localhost./",
    "file:///etc/passwd",
    "gopher://x/",
    "s3://bucket/key",
)
NAMES = (
    BOMB,
    "\x1b[31mred",
    "{{7*7}}",
    "%s%n",
    "'; drop table jobs; --",
    "<script>alert(1)</script>",
    "=cmd()",
    "a" * 65,
    "",
)

INPUTS = [
    *(
        Input(
            "B-040",
            value,
            within(f'"distillation": {{"training": {{"learning_rate": {value}}}}}'),
            *INVALID,
            pointer="/distillation/training/learning_rate",
        )
        for value in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
    ),
    Input("B-041", "in a value", within('"name": "\\ud800"'), *INVALID, pointer="/name"),
    Input("B-041", "in an unknown key", within('"\\udfff": 1'), *INVALID),
    Input("B-041", "in a label", within('"labels": {"a": "\\ud83d"}'), *INVALID, pointer="/labels/a"),
    Input("B-041", "a pair the wrong way round", within('"name": "\\udc00\\ud800"'), *INVALID, pointer="/name"),
    Input("B-042", "in a name", within('"name": "a\\u0000b"'), *INVALID, pointer="/name"),
    Input("B-042", "in a key", within('"labels": {"a\\u0000": "b"}'), *INVALID, pointer="/labels"),
    Input("B-043", "at the root", within('"name": "a", "name": "b"'), *INVALID, pointer="/name"),
    Input("B-043", "deep", within('"distillation": {"seed": 1, "seed": 1}'), *INVALID, pointer="/distillation/seed"),
    Input("B-043", "escaped", within('"seed": 1, "\\u0073eed": 2'), *INVALID, pointer="/seed"),
    Input("B-044", "UTF-16", text(GOOD.decode().encode("utf-16")), *MALFORMED),
    Input("B-044", "UTF-32 without mark", text(GOOD.decode().encode("utf-32-le")), *MALFORMED),
    Input("B-044", "byte-order mark", text(b"\xef\xbb\xbf" + GOOD), *MALFORMED),
    Input("B-044", "invalid UTF-8", text(STUDENT.encode() + b'"name": "\xff"}'), *MALFORMED),
    Input("B-044", "overlong UTF-8", text(STUDENT.encode() + b'"name": "\xc0\xaf"}'), *MALFORMED),
    Input("B-044", "surrogate in UTF-8", text(STUDENT.encode() + b'"name": "\xed\xa0\x80"}'), *MALFORMED),
    Input("B-045", "nothing", text(""), *MALFORMED),
    Input("B-045", "null", text("null"), *INVALID),
    Input("B-045", "a list", text("[]"), *INVALID),
    Input("B-045", "a number", text("7"), *INVALID),
    *(
        Input("B-045", what, text(content), *MALFORMED)
        for what, content in {
            "trailing garbage": GOOD + b" x",
            "two documents": GOOD + GOOD,
            "comment": GOOD + b" // no",
            "single quotes": b"{'student': 1}",
            "trailing comma": GOOD[:-1] + b",}",
            "JSON5 key": b"{student: 1}",
            "a raw line break": b'{"a": "\n"}',
            "a raw NUL": b'{"a": "\0"}',
        }.items()
    ),
    Input("B-046", "60,000 × [", text("[" * 60_000), *MALFORMED),
    Input("B-046", "100,000 × [", text("[" * 100_000), *TOO_LARGE),
    Input("B-046", '10,000 × {"a":', text('{"a":' * 10_000), *MALFORMED),
    Input("B-046", "17 levels", text('{"a":' * 17 + "1" + "}" * 17), *INVALID),
    *(
        Input(
            "B-046",
            f"an integer of {digits:,} digits",
            within(f'"distillation": {{"seed": {"9" * digits}}}'),
            *INVALID,
            pointer="/distillation/seed",
            secrets=("999",),
        )
        for digits in (4000, 5000)
    ),
    Input("B-047", "a string of 10 MB", whole, *TOO_LARGE),
    Input("B-047", "10⁶ items", text(b"[" + b"0," * 10**6 + b"0]"), *TOO_LARGE),
    Input("B-047", "10⁶ items as a JSON body", body(b"[" + b"0," * 10**6 + b"0]"), *TOO_LARGE),
    Input(
        "B-047", "15,000 bad items", within('"teacher": {"input": {"shape": [' + '"x",' * 12_000 + '"x"]}}'), *INVALID
    ),
    *wrong("B-048", "distillation.seed", True, "7", 1.0),
    *wrong("B-048", "distillation.budget.steps", True, "7", 1.0, [7], {}),
    *wrong("B-048", "distillation.training.learning_rate", True, "0.1", None),
    *wrong("B-048", "distillation.compute.compile", 1, "true"),
    *wrong("B-048", "name", 7, ["x"]),
    *unknown("B-049", epochs=3, __class__="os", __proto__={"polluted": True}, constructor={}),
    Input(
        "B-049",
        "in the student",
        spec(student={"architecture": "lenet5_half", "__class__": 1}),
        *INVALID,
        pointer="/student/__class__",
        hint=True,
    ),
    Input("B-049", "a key of 10,000 letters", spec(**{"k" * 10_000: 1}), *INVALID, secrets=("kkkk",)),
    Input(
        "B-049",
        "an option of 10,000 letters",
        spec(student={"architecture": "lenet5_half", "options": {"k" * 10_000: 1}}),
        *INFEASIBLE,
        secrets=("k" * 100,),
    ),
    *unknown(
        "B-050",
        tenant_id="somebody",
        tenant="somebody",
        state="succeeded",
        id="x" * 36,
        priority=9,
        worker="mine",
        attempt=3,
        created_at="2020-01-01",
        artifacts=[],
    ),
    *wrong("B-051", "distillation.budget.steps", 0, -1, 10**9, 2**63),
    *wrong("B-052", "distillation.training.learning_rate", 0, -1, 1e308, 5e-324),
    *wrong("B-053", "distillation.training.temperature", 0, -1, 1e-300),
    *wrong("B-053", "distillation.training.replay_share", -0.1, 1.1),
    *wrong("B-053", "distillation.training.hard_weight", -0.1, 1e308),
    *wrong("B-054", "distillation.training.batch_size", 0, 1, 2**31, -5),
    *wrong("B-055", "distillation.seed", -1, 2**64, 2**63, 0.5, None),
    Input(
        "B-056",
        "student of the teacher's size",
        spec(student={"architecture": "resnet34"}),
        *NOT_SMALLER,
        pointer="/student/architecture",
        hint=True,
    ),
    *(
        Input(
            "B-056",
            f"the teacher at width {width}",
            spec(student={"architecture": "teacher", "width": float(width)}),
            *NOT_SMALLER,
            pointer="/student/width",
            hint=True,
        )
        for width in (1, 2)
    ),
    *wrong("B-056", "student.width", 0, -1, 17, code=INVALID),
    *(
        Input(
            "B-056",
            f"params {share}",
            spec(student={"architecture": "teacher", "params": share}),
            *INVALID,
            pointer="/student/params",
        )
        for share in ("100%", "-5%", "1e2%", 0, -1)
    ),
    *(
        Input(
            "B-056",
            f"params {share}",
            spec(student={"architecture": "teacher", "params": share}),
            *INFEASIBLE,
            pointer="/student/params",
        )
        for share in ("0%", "00.000%", "0.000001%")
    ),
    Input(
        "B-056",
        "more parameters than the teacher has",
        spec(student={"architecture": "teacher", "params": 10**9}),
        *NOT_SMALLER,
        pointer="/student/params",
        hint=True,
    ),
    *(
        Input(
            "B-057",
            name,
            spec(student={"architecture": name}),
            *INFEASIBLE,
            pointer="/student/architecture",
            hint=True,
            secrets=(name,),
        )
        for name in ("no_such_net", "torch.hub:x/y", "os.system", "../x", "__import__('os')")
    ),
    Input(
        "B-057",
        "of the teacher",
        spec(teacher={"architecture": "os.system"}),
        *MISMATCH,
        pointer="/teacher/architecture",
    ),
    *wrong("B-057", "student.architecture", "x" * 65, 7, None),
    *wrong("B-057", "distillation.method", "os.system", "../x"),
    Input(
        "B-058",
        "width 16",
        spec(student={"architecture": "resnet34", "width": 16.0}),
        *NOT_SMALLER,
        hint=True,
        pointer="/student/architecture",
    ),
    Input(
        "B-058",
        "width 10⁷",
        spec(student={"architecture": "resnet34", "width": 1e7}),
        *INVALID,
        pointer="/student/width",
    ),
    *(
        Input(
            "B-058",
            f"{name} {value:g}",
            spec(student={"architecture": "wrn_16_1", "options": {name: value}}),
            *INFEASIBLE,
            pointer=f"/student/options/{name}",
        )
        for name, value in (("depth", 1e6), ("widening", 1e7), ("dropout", 1e9))
    ),
    *wrong("B-058", "distillation.method_options.latent_dim", 10**7),
    *wrong("B-058", "distillation.procedural.capacity", 10**12),
    *wrong("B-059", "teacher.input.shape", [0, 32, 32], [1, -1, 32], [1, 32, 100_000]),
    *wrong("B-059", "teacher.input.shape", [], [1, 32], [1, 32, 32, 32], "1x32x32"),
    *wrong("B-059", "teacher.num_classes", 0, 1, 10**9),
    Input("B-060", "11 classes for 10", spec(teacher={"num_classes": 11}), *MISMATCH, pointer="/teacher/num_classes"),
    Input(
        "B-060",
        "3 channels for 1",
        spec(teacher={"input": {"shape": [3, 32, 32]}}),
        *MISMATCH,
        pointer="/teacher/input/shape",
    ),
    Input(
        "B-060",
        "64 pixels for 32",
        spec(teacher={"input": {"shape": [1, 64, 64]}}),
        *MISMATCH,
        pointer="/teacher/input/shape",
    ),
    *(entry for url in URLS for entry in unknown("B-062", dataset_url=url)),
    *(
        Input(
            "B-062", f"teacher.url: {url}", spec(teacher={"url": url}), *INVALID, pointer="/teacher/url", secrets=(url,)
        )
        for url in URLS[:3]
    ),
    Input(
        "B-062",
        "a URL as the teacher's id",
        spec(teacher={"id": URLS[0]}),
        *INVALID,
        pointer="/teacher/id",
        secrets=(URLS[0],),
    ),
    *(
        entry
        for url in (
            *URLS,
            "https://a@b/",
            "http://127.0.0.1:6379/",
            "https://x/" + "y" * 2000,
            "https://аpple.example/",
        )
        for entry in unknown("B-063", webhook_url=url)
    ),
    *wrong("B-064", "name", *NAMES),
    Input("B-064", "a name of 60 KB", spec(name="a" * 60_000), *INVALID, pointer="/name", secrets=("aaaa",)),
    Input("B-064", "a label that is code", spec(labels={"a": "<b>"}), *INVALID, pointer="/labels/a", secrets=("<b>",)),
    Input("B-064", "33 labels", spec(labels={f"k{number}": "v" for number in range(33)}), *INVALID, pointer="/labels"),
    *unknown("B-065", deadline="1999-01-01T00:00:00Z", not_after="10000-01-01", expires_at="2030-01-01T00:00:00"),
    *unknown("B-066", gpus=-1, resources={"gpus": 10**6, "memory": "1e9TB"}, memory="1e9TB"),
    *wrong("B-066", "device", "gpu:7", "tpu", 1, "cuda:0; rm -rf /"),
    *unknown("B-067", spec_version=2**31, version=99),
    *unknown(
        "B-068",
        callbacks=["http://x/"],
        env={"LD_PRELOAD": "/tmp/x.so"},
        command=["sh", "-c", "id"],
        code="import os",
        requirements=["evil"],
        script="x.py",
    ),
    Input("B-068", "a data set", spec(dataset={"id": "cifar10"}), *INVALID, pointer="/dataset", secrets=("cifar10",)),
]
