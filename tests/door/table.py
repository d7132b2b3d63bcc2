"""The table of bad inputs: each row has a name and what is sent, or where another test covers it, or why none does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of bad input."""

    name: str
    group: str
    sent: str
    elsewhere: tuple[str, ...] = ()  # tests of other rooms
    excused: str | None = None  # why it is sent nowhere


def _rows(group: str, *rows: tuple[str, str]) -> list[Row]:
    return [Row(name, group, sent) for name, sent in rows]


_LIMIT = "tests/worker/supervision/test_supervisor.py::test_too_long_a_run_fails_with_time_limit"

TABLE: dict[str, Row] = {
    row.name: row
    for row in [
        *_rows(
            "transport",
            ("B-001", "no credential, 1 GB body"),
            ("B-002", "wrong, truncated, expired or revoked key; key in the query"),
            ("B-003", "key without the scope"),
            ("B-004", "key of 10 KB, not ASCII, with NUL"),
            ("B-005", "Expect: 100-continue without a key"),
            ("B-006", "Content-Length above the limit"),
            ("B-007", "chunked body that exceeds the limit while it arrives"),
            ("B-008", "Content-Length larger than what is sent, then the end"),
            ("B-009", "Content-Length and Transfer-Encoding; two Content-Lengths"),
            ("B-010", "Content-Length that is not a number of bytes"),
            ("B-011", "body at a byte a second"),
            ("B-012", "70 KB of headers; 1,000 headers"),
            ("B-013", "3 MB in chunks of one byte"),
            ("B-014", "Content-Encoding: gzip"),
            ("B-015", "other media types; no boundary"),
            ("B-016", "broken or excessive multipart"),
            ("B-017", "repeated and unknown parts"),
            ("B-018", "a part missing"),
            ("B-019", "`teacher` before `spec`"),
            ("B-020", "other methods"),
            ("B-021", "strange request lines and hosts"),
            ("B-022", "declared digest differs"),
            ("B-023", "no Idempotency-Key"),
            ("B-024", "invalid Idempotency-Keys"),
            ("B-025", "used key, other request"),
            ("B-026", "key of a request that still runs"),
            ("B-027", "another tenant's Idempotency-Key"),
            ("B-028", "more requests than allowed"),
            ("B-029", "over quota"),
        ),
        *_rows(
            "names",
            ("B-030", "file name ../../../etc/passwd"),
            ("B-031", "file name /etc/cron.d/x"),
            ("B-032", "Windows paths as file names"),
            ("B-033", "percent-encoded paths as file names"),
            ("B-034", "NUL, CR/LF, quotes, RTL, 4 KB, nothing as file names"),
            ("B-035", "CON, ., .., -rf, a;id as file names"),
            ("B-036", "a file name of another format"),
        ),
        *_rows(
            "spec",
            ("B-040", "NaN, infinities, 1e999"),
            ("B-041", "lone surrogates"),
            ("B-042", "NUL in a string"),
            ("B-043", "duplicate keys"),
            ("B-044", "UTF-16, byte-order mark, invalid UTF-8"),
            ("B-045", "nothing, null, a list, trailing garbage, comments, single quotes"),
            ("B-046", "100,000 nested lists; integers of thousands of digits"),
            ("B-047", "10 MB string; 10⁶ items; 200,000 bad items"),
            ("B-048", 'true, "7", 1.0 where an integer is due'),
            ("B-049", "unknown keys, __class__, __proto__"),
            ("B-050", "tenant, state, id, priority, worker set by the client"),
            ("B-051", "steps 0, -1, 10⁹, 2⁶³"),
            ("B-052", "learning rate 0, -1, 1e308, 5e-324"),
            ("B-053", "temperatures and shares out of range"),
            ("B-054", "batch size 0, 1, 2³¹"),
            ("B-055", "seed -1, 2⁶⁴, 0.5, null"),
            ("B-056", "a student that is not smaller, or nothing"),
            ("B-057", "architectures that do not exist, import paths"),
            ("B-058", "parameter bombs"),
            ("B-059", "image sizes, channels, classes out of range"),
            ("B-060", "classes or shape that are not the teacher's"),
        ),
        Row("B-061", "spec", "a data set's id", excused="there are no data sets: the key is unknown (B-068)"),
        *_rows(
            "spec",
            ("B-062", "URLs of data or models"),
            ("B-063", "webhook URLs"),
            ("B-064", "names meant for regular expressions, shells, SQL, HTML, terminals"),
            ("B-065", "deadlines"),
            ("B-066", "resources"),
            ("B-067", "spec_version"),
            ("B-068", "callbacks, environment, commands, code"),
        ),
        *_rows(
            "files",
            ("B-070", "0, 1, 7 bytes"),
            ("B-071", "HTML, PNG, archives, PDF, ELF, text"),
            ("B-072", "pickles with a canary, joblib, NumPy"),
            ("B-073", "torch.save, new and old, with a canary"),
            ("B-074", ".pt2 with use_pickle or a library"),
            ("B-075", "TorchScript"),
            ("B-076", "Keras, HDF5, SavedModel, .mar, .nemo, GGUF, TFLite, Core ML, TensorRT"),
            ("B-077", "polyglots"),
            ("B-078", "safetensors in an archive with ../ and links"),
            ("B-079", "zeros"),
            ("B-080", "state dict: stride-0 tensor of 2⁴⁰ elements"),
            ("B-081", "state dict: deflated members"),
            ("B-082", "state dict: sparse tensors with indices out of range"),
            ("B-083", "state dict: shared lists, deep nesting"),
            ("B-084", "state dict: 70,000 members, false sizes in the archive"),
            ("B-085", "state dict: storage shorter than its tensor"),
            ("B-086", "state dict: opcode soup"),
            ("B-087", "state dict: globals outside of any list"),
            ("B-088", "state dict: strange devices and types"),
        ),
        *_rows(
            "safetensors",
            ("B-090", "length of the header: 2⁶³, 200 MB, > file, 0, 16 MiB + 1"),
            ("B-091", "header that is not a JSON object, is nested 100,000 deep, or names a tensor twice"),
            ("B-092", "shapes that overflow, negative, fractional, 2⁴⁰ × 0"),
            ("B-093", "offsets with holes, overlaps, beyond the end, reversed"),
            ("B-094", "trailing bytes; a byte too few"),
            ("B-095", "data types"),
            ("B-096", "names of tensors"),
            ("B-097", "100,000 dimensions"),
            ("B-098", "10⁶ tensors"),
            ("B-099", "90 MB of metadata; metadata that are not strings"),
            ("B-100", "tensors missing, too many, of another shape"),
            ("B-101", "NaN, infinity, zeros, 1e38 as weights"),
            ("B-102", "a good file of another architecture"),
        ),
        *_rows(
            "ONNX",
            ("B-110", "text, random bytes, truncated, groups, unknown fields"),
            ("B-111", "external data, everywhere"),
            ("B-112", "false dimensions"),
            ("B-113", "130 bytes that need more than the memory"),
            ("B-114", "Loop, Scan, If, SequenceMap"),
            ("B-115", "functions, doubling and recursive"),
            ("B-116", "10⁶ nodes, 10⁵ inputs, cycles, names, nested graphs"),
            ("B-117", "custom domains, training operators"),
            ("B-118", "opsets and IR versions"),
            ("B-119", "_ORT_MEM_ADDR_ markers"),
            ("B-120", "strings, sparse, quantised, complex; only fp16 is accepted"),
            ("B-121", "inputs and outputs that are not a classifier's; a fixed batch is rewritten"),
        ),
        Row("B-122", "ONNX", "slower than its number of operations suggests", elsewhere=(_LIMIT,)),
        *_rows("ONNX", ("B-123", "100 MB of metadata, paths, HTML")),
        *_rows(
            "other routes",
            ("O-01", "invalid and unknown ids on every route"),
            ("O-02", "ranges"),
            ("O-03", "limits and cursors"),
            ("O-04", "downloads before the end of a job and after retention"),
            ("O-05", "queries and headers of every route"),
        ),
    ]
}
PLANNED = 111
"""The number of rows of the plan, B-001 to B-123; the other rows are additions of ours."""
