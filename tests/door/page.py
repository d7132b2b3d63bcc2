"""docs/security.md: the table of what `make door` found, written by `--update`."""

import json
from pathlib import Path
from typing import Any

from tests.door.inputs import INPUTS
from tests.door.scorecard import unsent
from tests.door.table import TABLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
RESULT = ROOT / "benchmarks" / "results" / "door.json"
BEGIN, END = "<!-- results: written by `python -m tests.door --update` -->\n", "<!-- end of results -->"


def table(result: dict[str, Any]) -> str:
    """The answers by rows, in Markdown."""
    hardware, answers = result["hardware"], result["answers"]
    passed = sum(found["verdict"] == "passed" for found in answers)
    written = [
        f"{passed} of {len(answers)} inputs were answered as promised on {result['date']}, in "
        f"{result['seconds'] / 60:.0f} minutes on {hardware['cores_visible']} cores of a machine that did other work "
        f"besides ({hardware['cpu']}, "
        f"Python {hardware['python']}).",
        "",
        "| row | sent | inputs | answers | passed | slowest |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in TABLE.items():
        found = [answer for answer in answers if answer["row"] == name]
        if not found:
            written.append(f"| {name} | {row.sent} | – | {unsent(name)} | – | – |")
            continue
        kinds = ", ".join(dict.fromkeys(answer["answer"] for answer in found))
        good = sum(answer["verdict"] == "passed" for answer in found)
        slowest = max(answer["seconds"] for answer in found)
        written.append(f"| {name} | {row.sent} | {len(found)} | {kinds} | {good} | {slowest:.2f} s |")
    written += ["", "Tests beside the table:", ""]
    written += [f"- {verdict}: `{name}`" for name, verdict in result["others"].items()]
    if "flood" in result:
        written += ["", *flood_lines(result["flood"])]
    if "timing" in result:
        written += ["", *timing_lines(result["timing"])]
    return "\n".join(["", *written, ""])


def flood_lines(flood: dict[str, Any]) -> list[str]:
    """The flood, in a few sentences."""
    sent, wrong = sum(flood["inputs"].values()), len(flood["answered_otherwise"])
    return [
        f"The flood: {sent} bad inputs in {flood['seconds']:.0f} s, {flood['sent_per_second']} of the "
        f"{flood['wanted_per_second']} a second that were wanted, at a load of {flood['load']}.",
        f"The good tenant's {flood['polls']} polls took {flood['poll_p50_ms']} ms (median) and "
        f"{flood['poll_p99_ms']} ms (99 %).",
        f"The service's memory grew by {flood['memory_growth_bytes'] / 1e6:.0f} MB; {wrong} answers differed from "
        f"the table. {'Broken: ' + '; '.join(flood['broken']) if flood['broken'] else 'The promise was kept.'}",
    ]


def timing_lines(timing: dict[str, Any]) -> list[str]:
    """What the time of an answer tells: a table of means, and the pair that is furthest apart."""
    hardware = timing["hardware"]
    lines = [
        f"The time of an answer, {timing['samples']} samples of each question in random order (seed {timing['seed']}), "
        f"on {timing['date']}, {hardware['cores_visible']} cores at a load of {timing['load']} ({hardware['cpu']}). "
        "Promised: in a line no two means differ by 5 ms, 95 % interval included, and all answers have the same words.",
        "",
        "| asked | means (medians) | furthest apart | difference (95 %) | same words |",
        "|---|---|---|---|---|",
    ]
    for subject in timing["subjects"]:
        pair = max(subject["differences"], key=lambda pair: abs(pair["ms"]))
        medians = subject["median_ms"]
        means = ", ".join(f"{kind} {mean:.2f} ms ({medians[kind]:.2f})" for kind, mean in subject["mean_ms"].items())
        low, high = pair["interval_ms"]
        lines.append(
            f"| `{subject['asked']}` | {means} | {' and '.join(pair['of'])} | {pair['ms']:+.2f} ms "
            f"({low:+.2f} to {high:+.2f}) | {'yes' if subject['alike'] else 'no'} |"
        )
    broken = "; ".join(timing["broken"])
    return [*lines, "", f"Not kept, or not shown: {broken}." if broken else "The promise was kept."]


def with_table(text: str, result: dict[str, Any]) -> str:
    """The page with the table in its place."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table(result) + "\n" + END + rest.partition(END)[2]


def write(result: dict[str, Any]) -> None:
    """Keep the result, with what was found before of inputs that were not sent now, and bring the page up to date."""
    before: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    answers = {(found["row"], found["what"]): found for found in (*before.get("answers", []), *result["answers"])}
    sent = [answers[entry.row, entry.what] for entry in INPUTS if (entry.row, entry.what) in answers]
    if before and len(result["answers"]) < len(INPUTS):  # a few rows were sent: the figures of the whole run stay
        result = {**result, **{name: before[name] for name in ("date", "seconds", "hardware")}}
    keep({**result, "answers": sent, "others": {**before.get("others", {}), **result["others"]}})


def keep(found: dict[str, Any]) -> None:
    """Keep this, and what was found before of everything else."""
    before: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result = {**before, **found}
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), result))
