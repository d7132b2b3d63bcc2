"""B-110 to B-123: ONNX. A change of a small classifier each, or a graph of a few nodes."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from onnx import AttributeProto, TensorProto, helper

from tests.dfkd_core.onnx_models import classifier, flattened, model, node
from tests.door.door import Door, Input, Octets, Reply, Send
from tests.door.graphs import (
    Content,
    asks_for_much,
    chain,
    changed,
    control,
    externally,
    field,
    fixed_batch,
    functions,
    half,
    hiding,
    in_graph,
    nested,
    outside,
    stored,
    typed,
    varint,
    with_metadata,
)

BROKEN = (422, "teacher-invalid")
OPERATOR = (422, "teacher-op-unsupported")
SECRETS = ("canary.bin", "passwd")


def shown(content: Callable[[], bytes]) -> Send:
    """An accepted teacher, as it is shown afterwards."""

    def send(door: Door) -> Reply:
        reply = door.teacher(content())
        assert reply.status == 201, reply.text
        return door.send("GET", f"/teachers/{reply.json['id']}")

    return send


def bad(
    row: str, files: Mapping[str, Content], code: tuple[int, str] = BROKEN, *, hint: bool = False
) -> Iterator[Input]:
    for number, (what, content) in enumerate(files.items()):
        yield Input(row, what, Octets(content), *code, hint=hint, secrets=SECRETS, slow=number > 0)


WHOLE = stored(classifier())

INPUTS = [
    *bad(
        "B-110",
        {
            "half": WHOLE[: len(WHOLE) // 2],
            "a byte too few": WHOLE[:-1],
            "two graphs": WHOLE + field(7, b""),
            "100,000 groups": lambda: WHOLE + b"\x9b\x06" * 100_000,
            "an unknown field of 50 MB": lambda: WHOLE + field(99, bytes(50_000_000)),
            "a length of 2⁶³": WHOLE + b"\x3a" + varint(2**63),
            "a number of 11 bytes": WHOLE + b"\x08" + b"\xff" * 10 + b"\x01",
            "field 0": WHOLE + b"\x02\x00",
            "wire type 7": WHOLE + b"\x0f\x00",
        },
    ),
    Input("B-110", "text", Octets(b"ONNX model\n" * 99), 415, "format-unsupported", hint=True),
    Input(
        "B-110", "random bytes", Octets(np.random.default_rng(1).bytes(10_000)), 415, "format-unsupported", hint=True
    ),
    *bad(
        "B-111",
        {
            "relative": externally(location="weights.bin"),
            "..": externally(location="../canary.bin"),
            "x/../../": externally(location="x/../../canary.bin"),
            "absolute": externally(location="/etc/passwd"),
            "huge offset": externally(location="canary", offset="99999999999999", length="-1"),
            "unknown keys": externally(location="canary", canary="x"),
            "no location": externally(),
            "location without the flag": changed(
                lambda made: made.graph.initializer[0].external_data.add(key="location", value="../canary.bin")
            ),
            "in a Constant": asks_for_much(
                helper.make_node("Constant", [], ["c"], value=outside()), node("Add", ["images", "c"])
            ),
            "in a list of tensors": hiding(AttributeProto(name="t", type=AttributeProto.TENSORS, tensors=[outside()])),
            "in a tensor that says it is a number": hiding(
                AttributeProto(name="alpha", type=AttributeProto.FLOAT, t=outside())
            ),
        },
    ),
    *bad(
        "B-111",
        {
            "in a sub-graph": hiding(
                AttributeProto(name="g", type=AttributeProto.GRAPH, g=helper.make_graph([], "g", [], [], [outside()]))
            ),
            "in a sparse tensor": hiding(
                AttributeProto(
                    name="s",
                    type=AttributeProto.SPARSE_TENSOR,
                    sparse_tensor=helper.make_sparse_tensor(
                        helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [4]
                    ),
                )
            ),
        },
        OPERATOR,
        hint=True,
    ),
    *bad(
        "B-112",
        {
            "2⁴⁰ without data": changed(lambda made: made.graph.initializer[0].dims.__setitem__(0, 2**40)),
            "negative": changed(lambda made: made.graph.initializer[0].dims.__setitem__(0, -8)),
            "product of 2⁶⁴ + 288": changed(lambda made: made.graph.initializer[0].dims.extend([2**32, 2**32])),
            "a byte too many": changed(
                lambda made: setattr(made.graph.initializer[0], "raw_data", made.graph.initializer[0].raw_data + b"x")
            ),
            "a byte too few": changed(
                lambda made: setattr(made.graph.initializer[0], "raw_data", made.graph.initializer[0].raw_data[1:])
            ),
            "raw and typed": changed(lambda made: made.graph.initializer[0].float_data.append(1.0)),
            "nine dimensions": changed(lambda made: made.graph.initializer[0].dims.extend([1] * 8)),
            "segments": changed(lambda made: setattr(made.graph.initializer[0].segment, "begin", 1)),
            "NaN": changed(
                lambda made: setattr(
                    made.graph.initializer[0], "raw_data", b"\xff" * len(made.graph.initializer[0].raw_data)
                )
            ),
        },
    ),
    *bad(
        "B-113",
        {
            "ConstantOfShape": asks_for_much(
                node("ConstantOfShape", ["huge"], ["zeros"]), node("Add", ["images", "zeros"])
            ),
            "Expand": asks_for_much(node("Expand", ["images", "huge"])),
            "Tile": asks_for_much(node("Tile", ["images", "huge"])),
            "Pad": asks_for_much(node("Pad", ["images", "pads"]), pads=np.array([0, 0, 0, 0, 0, 0, 2**20, 2**20])),
            "Range": asks_for_much(
                node("Range", ["low", "high", "step"], ["r"]),
                node("Add", ["images", "r"]),
                low=np.float32(0),
                high=np.float32(1e12),
                step=np.float32(1),
            ),
            "Resize": asks_for_much(
                node("Resize", ["images", "", "", "sizes"], mode="nearest"), sizes=np.array([2, 4, 2**20, 2**20])
            ),
            "Gather, 64 MB": lambda: asks_for_much(
                node("Gather", ["images", "where"], axis=3), where=np.zeros((2**11, 2**12), np.int64)
            ),
            "Conv": asks_for_much(
                node("Conv", ["images", "kernel"], pads=[2**15] * 4), kernel=np.zeros((1, 4, 1, 1), np.float32)
            ),
            "MaxPool": asks_for_much(node("MaxPool", ["images"], kernel_shape=[1, 1], pads=[2**15] * 4)),
            "images of 4096 × 4096 × 4096": stored(
                flattened([node("Relu", ["images"])], shape=["batch", 4096, 4096, 4096])
            ),
            "a Transpose": stored(
                flattened([node("Transpose", ["images"], perm=[0, 1, 3, 2])], shape=["batch", 4, 4096, 4096])
            ),
            "outer product of constants": lambda: asks_for_much(
                node("Add", ["a", "b"], ["c"]),
                node("Add", ["images", "c"]),
                a=np.zeros((2**18, 1), np.float32),
                b=np.zeros((1, 2**18), np.float32),
            ),
        },
        OPERATOR,
        hint=True,
    ),
    *bad(
        "B-113",
        {
            "64 values of 30 million": stored(
                flattened(
                    [
                        node("Exp", ["images" if at == 0 else f"e{at - 1}"], [f"e{at}" if at < 63 else "out"])
                        for at in range(64)
                    ],
                    shape=["batch", 4, 2700, 2700],
                )
            ),
            "10¹² multiply-adds": lambda: stored(
                flattened(
                    [node("Conv", ["images", "k0"], ["c"], pads=[32] * 4), node("Conv", ["c", "k1"], pads=[32] * 4)],
                    {"k0": np.zeros((16, 4, 65, 65), np.float32), "k1": np.zeros((16, 16, 65, 65), np.float32)},
                    shape=["batch", 4, 1600, 1600],
                )
            ),
        },
    ),
    *bad(
        "B-114",
        {
            "Loop of 2⁶⁰": control("Loop", ["trips", "", "images"], body="body"),
            "Scan": control("Scan", ["images"], body="body", num_scan_inputs=1),
            "If": control("If", ["yes"], then_branch="body", else_branch="body"),
            "SequenceMap": control("SequenceMap", ["images"], body="body"),
        },
        OPERATOR,
        hint=True,
    ),
    *bad(
        "B-115",
        {"30 doubling": functions(30), "recursive": functions(2, recursive=True), "one, not called": functions(1)},
        hint=True,
    ),
    *bad(
        "B-116",
        {
            "60,000 nodes": lambda: in_graph(field(1, field(4, b"Relu")) * 60_000),
            "10⁶ nodes": lambda: in_graph(field(1, field(4, b"Relu")) * 10**6),
            "250,000 inputs": lambda: in_graph(field(11, field(1, b"x")) * 250_000),
            "30,000 tensors": lambda: in_graph(field(5, b"") * 30_000),
            "cycle": changed(lambda made: made.graph.node[0].input.__setitem__(0, "p")),
            "undefined": changed(lambda made: made.graph.node[0].input.__setitem__(0, "canary")),
            "defined twice": changed(lambda made: made.graph.node.append(made.graph.node[0])),
            "name of 1 MB": lambda: changed(lambda made: setattr(made.graph.node[0], "name", "n" * 10**6)),
            "name with NUL": changed(lambda made: setattr(made.graph.initializer[0], "name", "a\0b")),
            "name with an escape": changed(lambda made: setattr(made.graph.node[0], "name", "\x1b[31m")),
            "10⁶ inputs of a node": lambda: in_graph(field(1, field(1, b"x") * 10**6 + field(4, b"Relu"))),
            "10⁶ attributes": lambda: in_graph(field(1, field(5, b"") * 10**6 + field(4, b"Relu"))),
        },
    ),
    *bad("B-116", {"20 graphs in graphs": nested(20)}, OPERATOR, hint=True),
    *bad("B-116", {"1,000 graphs in graphs": nested(1000)}),
    *bad(
        "B-117",
        {
            domain: stored(classifier([helper.make_node(op, ["scores"], ["logits"], domain=domain)]))
            for domain, op in {
                "com.acme": "Fancy",
                "com.microsoft": "EPContext",
                "ai.onnx.ml": "TreeEnsemble",
                "ai.onnx.preview.training": "Adam",
                "pkg.PythonOp": "PythonOp",
            }.items()
        },
        OPERATOR,
        hint=True,
    ),
    *bad(
        "B-117",
        {"unknown in the default domain": stored(classifier([node("PythonOp", ["scores"], ["logits"])]))},
        OPERATOR,
        hint=True,
    ),
    *bad("B-117", {"a training graph": changed(lambda made: made.training_info.add())}, hint=True),
    *bad(
        "B-118",
        {
            "999": changed(lambda made: setattr(made.opset_import[0], "version", 999)),
            "0": changed(lambda made: setattr(made.opset_import[0], "version", 0)),
            "-1": changed(lambda made: setattr(made.opset_import[0], "version", -1)),
            "none": changed(lambda made: made.ClearField("opset_import")),
            "two": changed(lambda made: made.opset_import.append(helper.make_opsetid("ai.onnx", 17))),
        },
        hint=True,
    ),
    *bad("B-118", {"IR version 999": changed(lambda made: setattr(made, "ir_version", 999))}),
    *bad(
        "B-119",
        {
            "as a location": externally(location="*/_ORT_MEM_ADDR_/*", offset="1234", length="288"),
            "as a name": changed(lambda made: setattr(made.graph.initializer[0], "name", "*/_ORT_MEM_ADDR_/*")),
        },
    ),
    *bad(
        "B-120",
        {
            "strings": typed(TensorProto.STRING, string_data=[b"canary"] * 288),
            "complex": typed(TensorProto.COMPLEX64, float_data=[1.0] * 576),
            "float8": typed(TensorProto.FLOAT8E4M3FN, raw_data=bytes(288)),
            "bfloat16": typed(TensorProto.BFLOAT16, raw_data=bytes(576)),
            "int4": typed(TensorProto.INT4, raw_data=bytes(144)),
            "undefined": typed(0, raw_data=bytes(288)),
            "2³¹ - 1": typed(2**31 - 1, raw_data=b""),
            "sparse": changed(lambda made: made.graph.sparse_initializer.add()),
        },
    ),
    Input(
        "B-120",
        "quantised",
        Octets(
            stored(
                flattened(
                    [node("DequantizeLinear", ["q", "scale"], ["w"]), node("Add", ["images", "w"])],
                    {"q": np.zeros(6, np.int8), "scale": np.float32(1)},
                )
            )
        ),
        *OPERATOR,
        hint=True,
        slow=True,
    ),
    Input("B-120", "float16 alone is taken", Octets(half()), 201),
    *bad(
        "B-121",
        {
            "no output": changed(lambda made: made.graph.ClearField("output")),
            "no input": changed(lambda made: made.graph.ClearField("input")),
            "two inputs": changed(
                lambda made: made.graph.input.append(helper.make_tensor_value_info("other", 1, [1, 3]))
            ),
            "rank 0": stored(classifier(shape=[])),
            "rank 5": stored(classifier(shape=["batch", 1, 4, 4, 6])),
            "no type": changed(lambda made: made.graph.input[0].ClearField("type")),
            "size 0": stored(classifier(shape=["batch", 4, 0, 6])),
            "whole numbers": stored(classifier(element=TensorProto.INT32)),
            "images back": stored(model([node("Relu", ["images"], ["logits"])])),
        },
    ),
    Input(
        "B-121", "size -1, as exporters write open sizes", Octets(stored(classifier(shape=["batch", 4, -1, 6]))), 201
    ),
    Input(
        "B-121",
        "two outputs",
        Octets(changed(lambda made: made.graph.output.append(helper.make_tensor_value_info("c", 1, None)))),
        422,
        "teacher-mismatch",
        pointer="/teacher/output",
        hint=True,
    ),
    Input(
        "B-121",
        "rank 3",
        Octets(stored(classifier(shape=["batch", 4, 4]))),
        422,
        "teacher-mismatch",
        pointer="/teacher/input/shape",
        hint=True,
    ),
    Input(
        "B-121",
        "flattened images whose last axis alone looks like channels",
        Octets(
            stored(
                model(
                    [node("Flatten", ["images"], ["flat"]), node("MatMul", ["flat", "m"], ["logits"])],
                    {"m": np.ones((64 * 3, 5), np.float32)},
                    shape=["batch", 8, 8, 3],
                )
            )
        ),
        422,
        "teacher-mismatch",
        pointer="/teacher/input/layout",
        hint=True,
    ),
    *bad("B-121", {"a batch of 2³¹": stored(classifier(shape=[2**31, 4, 4, 6]))}, OPERATOR, hint=True),
    Input(
        "B-121",
        "nothing but dynamic dimensions, and no shape given",
        lambda door: door.parts(
            ("spec", b'{"student": {"architecture": "lenet5_half"}}'),
            ("teacher", stored(classifier(shape=["n", "c", "h", "w"]))),
        ),
        422,
        "teacher-mismatch",
        pointer="/teacher/input",
        hint=True,
    ),
    Input("B-121", "a batch of 7 is rewritten", Octets(fixed_batch()), 201),
    Input("B-122", "1,000 Identity: the job's limit will tell", Octets(lambda: chain(1000)), 201),
    Input(
        "B-123",
        "1 MB, a path, HTML: none of it is told",
        shown(lambda: with_metadata(10**6)),
        200,
        secrets=("canary", "passwd"),
    ),
    Input("B-123", "90 MB", shown(lambda: with_metadata(9 * 10**7)), 200, secrets=("canary", "passwd"), slow=True),
]
