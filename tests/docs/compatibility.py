"""docs/compatibility.md as data: the tables by their headings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
STATES = (
    "works",
    "accepted",
    "absent",
    "missing: issue 5",
    "missing: issue 6",
    "missing: issue 7",
    "beyond etcd",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: its first cell without backticks, the rest by the names of the columns."""

    name: str
    cells: dict[str, str]

    @property
    def state(self) -> str:
        return self.cells["state"]

    @property
    def is_missing(self) -> bool:
        return self.state.startswith("missing") or self.state == "absent"


def table(heading: str) -> dict[str, Row]:
    """All rows below a heading, its subheadings included. Each name is there once and has a state."""
    rows: dict[str, Row] = {}
    columns: list[str] = []
    level = 0
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            marks, _, text = line.partition(" ")
            if text == heading:
                level = len(marks)
            elif len(marks) <= level:
                break
            columns = []
        elif level and line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not columns:
                columns = cells
            elif not set(line) <= set("|- "):
                row = Row(cells[0].strip("`"), dict(zip(columns, cells, strict=True)))
                assert row.name not in rows, f"{row.name} is there twice"
                assert row.state in STATES, row
                rows[row.name] = row
    assert rows, f"no table below {heading!r}"
    return rows
