"""Writes the settings table of docs/operations.md from `jobs.settings`; a test compares the two."""

from pathlib import Path

from jobs.settings import Settings

PAGE = Path(__file__).with_name("operations.md")
BEGIN, END = "<!-- settings: written by `make docs` -->\n", "<!-- end of settings -->"


def settings_table() -> str:
    """Markdown table: environment name, default, meaning of every field of `Settings`."""
    prefix = Settings.model_config["env_prefix"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "(none)" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with its settings table replaced by today's."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} has no settings section")
    return before + BEGIN + settings_table() + end + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
