"""What has changed between two values of a key, line by line, in the most readable form that both have.

The forms, the best first: an object of Kubernetes in YAML, where that was asked for; JSON, indented; text; a
dump of bytes. A form in which two values look the same, though they differ, is passed over. What a terminal
could take for more than text is escaped. The time that a comparison takes is bounded: where too many lines
differ, all of them are shown, the old ones before the new ones.
"""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from itertools import islice

from pyetcd.cli import gotext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    Form: TypeAlias = "Callable[[bytes], list[str] | None]"  # None: the value has no such form
    Forms: TypeAlias = "Sequence[Form]"

CONTEXT = 3  # lines around what differs
COMPARED_LINES_MAX = 2000  # on either side
DUMPED_LINES_MAX = 64  # of one change
DUMPED_BYTES = 16  # a line


def forms(decoding: str) -> Forms:
    """The forms that values are shown in, with `--decode` or without."""
    return (_object, _json, _text, _dump) if decoding else (_json, _text, _dump)


def plain(value: bytes, in_forms: Forms) -> Iterator[str]:
    """The lines of one value, with a space before each."""
    texts, is_dump = _in_one_form([value], in_forms)
    shown = (f" {line}" for line in texts[0])
    return _shortened(shown) if is_dump else shown


def change(old: bytes | None, new: bytes | None, in_forms: Forms) -> Iterator[str]:
    """The way from one value to another, None where there is none: lines that begin with `-`, `+` or,
    unchanged, a space, and `@@` before those that do not follow the last."""
    if old == new:
        return iter(())
    texts, is_dump = _in_one_form([value for value in (old, new) if value is not None], in_forms)
    shown = _change([] if old is None else texts[0], [] if new is None else texts[-1])
    return _shortened(shown) if is_dump else shown


def _shortened(lines: Iterator[str]) -> Iterator[str]:
    yield from islice(lines, DUMPED_LINES_MAX)
    rest = sum(1 for _ in lines)
    if rest:
        yield f"… {rest} more lines"


def _in_one_form(values: list[bytes], in_forms: Forms) -> tuple[list[list[str]], bool]:
    """Each value's lines, in the first form that all have and that tells them apart; and whether it is a
    dump."""
    for form in in_forms:
        texts = [text for text in map(form, values) if text is not None]
        if len(texts) == len(values) and (len(texts) < 2 or texts[0] != texts[1]):
            return texts, form is _dump
    raise AssertionError("a dump tells any two values apart")


def _change(old: list[str], new: list[str]) -> Iterator[str]:
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    first, last = max(0, head - CONTEXT), max(0, tail - CONTEXT)
    old, new = old[first : len(old) - last], new[first : len(new) - last]
    around = head - first, tail - last
    if max(len(old), len(new)) > COMPARED_LINES_MAX:
        groups = [[("replace", around[0], len(old) - around[1], around[0], len(new) - around[1])]]
    else:
        groups = list(SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT))
    for group in groups:
        if first or group[0][3]:
            yield f"@@ line {first + group[0][3] + 1} @@"
        for what, old_begin, old_end, new_begin, new_end in group:
            if what == "equal":
                yield from (f" {line}" for line in new[new_begin:new_end])
                continue
            yield from (f"-{line}" for line in old[old_begin:old_end])
            yield from (f"+{line}" for line in new[new_begin:new_end])


def _common(old: list[str], new: list[str]) -> int:
    """How many lines are the same from the beginning on."""
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


def _object(value: bytes) -> list[str] | None:
    from pyetcd.cli.etcdctl import kubernetes, output_yaml

    try:
        shown = kubernetes.decode(value)
    except kubernetes.NoObject:
        return None
    return _escaped(output_yaml.document(shown).removesuffix("\n"))


def _json(value: bytes) -> list[str] | None:
    if not value.startswith((b"{", b"[")):
        return None
    try:
        return _escaped(json.dumps(json.loads(value), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return None


def _text(value: bytes) -> list[str] | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if any(rune < " " and rune not in "\t\n\r" for rune in text) else _escaped(text)


def _escaped(text: str) -> list[str]:
    """The lines of a text, with what is not printable as Go writes it."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text.split("\n")
    return "".join(map(_rune, text)).split("\n")


def _rune(rune: str) -> str:
    return rune if rune in "\t\n" or rune.isprintable() else gotext.quote(rune)[1:-1]


def _dump(value: bytes) -> list[str]:
    """Offset, bytes in hexadecimal, and what of them is ASCII."""
    shown = []
    for at in range(0, len(value), DUMPED_BYTES):
        line = value[at : at + DUMPED_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        shown.append(f"{at:08x}  {line.hex(' '):<{DUMPED_BYTES * 3}} {text}")
    return shown
