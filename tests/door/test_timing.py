"""The measurement of response times: its requests and its verdicts. No time is judged here."""

from pathlib import Path
from typing import Any

from tests.door import page, timing
from tests.door.guarded import guarded_door


def a_subject(low: float, high: float, *, alike: bool = True) -> dict[str, Any]:
    pair = {"of": ["foreign", "absent"], "ms": (low + high) / 2, "interval_ms": [low, high]}
    times = {"foreign": 2.0, "absent": 1.0}
    return {"asked": "GET /jobs/ID", "mean_ms": times, "median_ms": times, "differences": [pair], "alike": alike}


def test_every_question_gets_the_same_words(tmp_path: Path) -> None:
    with guarded_door(tmp_path / "data") as door:
        found = timing.timed(door, samples=2)
    assert [subject["alike"] for subject in found["subjects"]] == [True] * (len(timing.OPERATIONS) + 1)
    pairs = {subject["asked"]: len(subject["differences"]) for subject in found["subjects"]}
    assert pairs == {**{f"{method} /jobs/ID{rest}": 3 for method, rest in timing.OPERATIONS}, "GET /jobs": 10}


def test_a_whole_interval_has_to_be_below_the_limit() -> None:
    assert timing.verdict([a_subject(-4.9, 4.9)]) == []
    assert timing.verdict([a_subject(5.0, 6.0)]) == ["GET /jobs/ID: foreign and absent differ by 5.5 ms"]
    assert timing.verdict([a_subject(-9.0, 1.0)]) == [
        "GET /jobs/ID: foreign and absent may differ, undecided at -4.0 ms"
    ]
    assert timing.verdict([a_subject(0.0, 0.1, alike=False)]) == ["GET /jobs/ID: the answers differ"]


def test_a_difference_comes_with_its_interval() -> None:
    found = timing.difference([0.001, 0.003] * 50, [0.001] * 100)
    assert found["ms"] == 1.0
    assert found["interval_ms"] == [0.803, 1.197]


def test_the_page_names_the_pair_that_is_furthest_apart() -> None:
    hardware = {"cores_visible": 1, "cpu": "a CPU"}
    found = {"samples": 2, "seed": 1, "date": "2026-01-31", "load": 1.0, "hardware": hardware, "broken": ["x"]}
    text = "\n".join(page.timing_lines({**found, "subjects": [a_subject(0.5, 1.5)]}))
    assert "| foreign and absent | +1.00 ms (+0.50 to +1.50) | yes |" in text
    assert text.endswith("Not kept, or not shown: x.")
