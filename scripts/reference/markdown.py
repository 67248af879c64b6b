"""The few forms of Markdown that generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(columns), _row(["---"] * len(columns)), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(text: str) -> str:
    """Inline code; nothing for nothing. Bars would end the cell."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def prose(text: str) -> str:
    """A sentence of the code as text: what Markdown or HTML would take for its own is not."""
    for character in ("\\", "<", "*", "_", "|", "[", "$"):
        text = text.replace(character, "\\" + character if character != "<" else "&lt;")
    return text


def block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"
