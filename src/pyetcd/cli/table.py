"""Tables in box-drawing characters, as etcd's tools draw them: header centred and in capitals, cells to the
right, one below the other what a cell has of lines.
"""

from __future__ import annotations

from itertools import zip_longest

TAB = "    "
REGIONAL_INDICATORS = ("\U0001f1e6", "\U0001f1ff")


def table(header: list[str], rows: list[list[str]]) -> str:
    """The drawn table, a newline at its end."""
    titles = [title.replace("_", " ").upper() for title in header]
    cells = [[_lines(cell) for cell in row] for row in rows]
    widths = [
        max(columns_of(title), *(columns_of(line) for row in cells for line in row[column]), 0)
        for column, title in enumerate(titles)
    ]
    drawn = [
        _rule("┌┬┐", widths),
        _row([_centred(title, width) for title, width in zip(titles, widths, strict=True)]),
    ]
    if rows:
        drawn.append(_rule("├┼┤", widths))
    for row in cells:
        for lines in zip_longest(*row, fillvalue=""):
            drawn.append(_row([_right(line, width) for line, width in zip(lines, widths, strict=True)]))
    drawn.append(_rule("└┴┘", widths))
    return "".join(line + "\n" for line in drawn)


def _lines(cell: str) -> list[str]:
    return cell.strip().replace("\t", TAB).split("\n")


def _rule(corners: str, widths: list[int]) -> str:
    return corners[0] + corners[1].join("─" * (width + 2) for width in widths) + corners[2]


def _row(cells: list[str]) -> str:
    return "│" + "│".join(f" {cell} " for cell in cells) + "│"


def _centred(text: str, width: int) -> str:
    room = width - columns_of(text)
    return " " * (room // 2) + text + " " * (room - room // 2)


def _right(text: str, width: int) -> str:
    return " " * (width - columns_of(text)) + text


def columns_of(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii() and text.isprintable():
        return len(text)
    from unicodedata import category, east_asian_width

    width = 0
    for rune in _without_colours(text):
        if REGIONAL_INDICATORS[0] <= rune <= REGIONAL_INDICATORS[1]:
            width += 2
        elif category(rune) not in ("Cc", "Cf", "Me", "Mn"):
            width += 2 if east_asian_width(rune) in "WF" else 1
    return width


def _without_colours(text: str) -> str:
    """Without terminal escapes such as `ESC[31m`."""
    first, *rest = text.split("\x1b[")
    return first + "".join(part.lstrip("0123456789;")[1:] for part in rest)
