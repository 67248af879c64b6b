"""Tables in box-drawing characters: header centred and in capitals, cells to the right."""

from __future__ import annotations


def table(header: list[str], rows: list[list[str]]) -> str:
    """The drawn table, a newline at its end."""
    titles = [title.replace("_", " ").upper() for title in header]
    widths = [max(map(_width, column)) for column in zip(titles, *rows, strict=True)]
    lines = [
        _rule("┌┬┐", widths),
        _row([_centred(title, width) for title, width in zip(titles, widths, strict=True)]),
        _rule("├┼┤", widths) if rows else "",
        *(
            _row([" " * (width - _width(cell)) + cell for cell, width in zip(row, widths, strict=True)])
            for row in rows
        ),
        _rule("└┴┘", widths),
    ]
    return "".join(line + "\n" for line in lines if line)


def _rule(corners: str, widths: list[int]) -> str:
    return corners[0] + corners[1].join("─" * (width + 2) for width in widths) + corners[2]


def _row(cells: list[str]) -> str:
    return "│" + "│".join(f" {cell} " for cell in cells) + "│"


def _centred(text: str, width: int) -> str:
    room = width - _width(text)
    return " " * (room // 2) + text + " " * (room - room // 2)


def _width(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
