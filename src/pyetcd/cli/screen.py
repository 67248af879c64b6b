"""A whole terminal to draw on, by curses, which is given back as it was however the program goes on.

Only `Screen` loads curses, so that a Python without it lacks just this.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Line: TypeAlias = "tuple[str, str]"  # style and text

PLAIN, STRONG, TITLE, BAD = "plain", "strong", "title", "bad"


class NoScreen(Exception):
    """There is no terminal that can be drawn on. The message says why."""


class Screen:
    """The terminal, while this is entered; NoScreen when it cannot be."""

    _drawn = (0, 0)  # the size when it was drawn last

    def __enter__(self) -> Screen:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise NoScreen("standard input and output are not a terminal")
        try:
            import curses

            for name in ("COLUMNS", "LINES"):
                os.environ.pop(name, None)  # curses would believe them, for good
            curses.setupterm()  # initscr would end the program
        except ImportError:
            raise NoScreen("this Python has no curses") from None
        except curses.error as error:
            raise NoScreen(str(error)) from None
        if curses.tigetstr("cup") is None:
            raise NoScreen("the terminal cannot move its cursor")
        self._window = curses.initscr()
        try:
            curses.noecho()
            curses.cbreak()
            self._window.keypad(True)
            self._styles = {PLAIN: 0, STRONG: curses.A_BOLD, TITLE: curses.A_REVERSE, BAD: curses.A_BOLD}
            if curses.has_colors():
                curses.start_color()
                curses.use_default_colors()
                curses.init_pair(1, curses.COLOR_RED, -1)
                self._styles[BAD] |= curses.color_pair(1)
            curses.curs_set(0)
        except curses.error:
            pass  # it cannot hide its cursor, or has no colours
        except BaseException:
            curses.endwin()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import curses

        curses.endwin()

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        rows, columns = self._window.getmaxyx()
        return columns, rows

    def draw(self, lines: Sequence[Line]) -> None:
        """These lines, and nothing else. They fit."""
        import curses

        encoding = self._window.encoding
        if self.size() == self._drawn:
            self._window.erase()
        else:
            self._window.clear()  # a terminal whose size changes moves about what is on it
        self._drawn = self.size()
        for at, (style, text) in enumerate(lines):
            shown = text.encode(encoding, "replace").decode(encoding)
            try:
                self._window.addstr(at, 0, shown, self._styles[style])
            except curses.error:
                pass  # so says curses of the last place on a screen, or of one that has just become smaller
        self._window.refresh()

    def key(self, seconds: float) -> str:
        """What is typed within that time: a character, or nothing, as when the size changes."""
        began = time.monotonic()
        self._window.timeout(max(0, int(seconds * 1000)))
        code = self._window.getch()
        if code < 0:  # where the terminal is gone, this comes at once, and again and again
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        return chr(code) if 0 <= code < 0x80 else ""
