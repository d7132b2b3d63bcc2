"""The rules by which the code is counted, on code whose figures are known."""

from pathlib import Path

from benchmarks.legibility import comments, longest_chain, measure_room, module_imports


def test_the_longest_chain_counts_modules_and_a_circle_once() -> None:
    assert longest_chain({"a": {"b"}, "b": {"c", "numpy"}, "c": set(), "d": {"c"}}) == 3
    assert longest_chain({"a": {"b"}, "b": {"a"}}) == 2


def test_imports_inside_functions_and_for_the_type_checker_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    path = tmp_path / "room" / "one.py"
    path.write_text(
        "from room import two\nif TYPE_CHECKING:\n    import room.three\ndef act():\n    import room.four\n"
        "try:\n    import room.five\nexcept ImportError:\n    pass\n"
    )
    assert module_imports(tmp_path, path) == ("room.one", {"room", "room.two", "room.five"})


def test_a_room_is_counted_by_folder(tmp_path: Path) -> None:
    for name, text in {
        "__init__": '"""Room."""\n',
        "top": "import room.deep.below\n",
        "deep/__init__": "",
        "deep/below": "from room.deep import lowest\n\n\ndef act():\n    return 1\n",
        "deep/lowest": "X = 1\n",
    }.items():
        path = tmp_path / "room" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    facts = measure_room(tmp_path, "room")
    assert (facts.files_at_top, facts.largest_folder, facts.import_floors, facts.folder_floors) == (
        1,
        "room/deep 2",
        3,
        2,
    )
    assert (facts.files, facts.lines, facts.functions, facts.function_lines_p90) == (5, 8, 1, 2)


def test_comments_and_docstrings_are_counted_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text('"""Two\nlines."""\n\nX = 1  # why\n# because\n' + "Y = 2\n" * 5)
    assert comments([path]) == {"comments": 20.0, "docstrings": 20.0}
