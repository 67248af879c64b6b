"""Go's forms of values, read and printed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cli import gotext
from pyetcd.cli.flag import split_list


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-5", -5), ("+7", 7), ("0x1F", 31), ("0b101", 5), ("017", 15), ("0o17", 15), ("1_000", 1000)],
)
def test_an_integer_literal_is_read_as_go_reads_it(text: str, value: int) -> None:
    assert gotext.parse_int(text) == value


@pytest.mark.parametrize("text", ["", "x", "0x", "1__0", "_1", "1_", "9.5", " 1", "08", "--1", "1e3"])
def test_what_is_no_integer_is_refused_in_gos_words(text: str) -> None:
    with pytest.raises(gotext.GoValueError) as caught:
        gotext.parse_int(text)
    assert str(caught.value) == f'strconv.ParseInt: parsing "{text}": invalid syntax'


def test_a_number_out_of_range_is_told_apart() -> None:
    assert gotext.parse_int(str(gotext.INT64_MIN), 10) == gotext.INT64_MIN
    assert gotext.parse_uint("f" * 16, 16) == gotext.UINT64_MAX
    with pytest.raises(gotext.GoValueError, match="value out of range"):
        gotext.parse_int(str(gotext.INT64_MAX + 1), 10)
    with pytest.raises(gotext.GoValueError, match="invalid syntax"):
        gotext.parse_uint("-1", 16)
    with pytest.raises(gotext.GoValueError, match="invalid syntax"):
        gotext.parse_int("0x10", 16)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (4_384_192, "4.384192ms"),
        (2_000_000_000, "2s"),
        (90_500_000_000, "1m30.5s"),
        (3_600_000_000_000, "1h0m0s"),
        (-250_000_000, "-250ms"),
    ],
)
def test_a_duration_is_printed_and_read_back(ns: int, text: str) -> None:
    assert gotext.duration(ns) == text
    assert gotext.parse_duration_ns(text) == ns


@given(ns=st.integers(-(1 << 62), 1 << 62))
def test_every_duration_reads_back(ns: int) -> None:
    assert gotext.parse_duration_ns(gotext.duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        (".s", 'time: invalid duration ".s"'),
        ("1.2.3s", 'time: invalid duration "1.2.3s"'),
    ],
)
def test_a_bad_duration_is_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(gotext.GoValueError) as caught:
        gotext.parse_duration_ns(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", '"plain"'),
        (b'q"\\', '"q\\"\\\\"'),
        (b"\a\b\f\n\r\t\v\x01\x7f", '"\\a\\b\\f\\n\\r\\t\\v\\x01\\x7f"'),
        (b"\xff\xc3\xa9", '"\\xffé"'),
        ("\u200b\U000e0001".encode(), '"\\u200b\\U000e0001"'),
    ],
)
def test_bytes_are_quoted_as_by_go(data: bytes, text: str) -> None:
    assert gotext.quote(data) == text


@given(data=st.binary(max_size=30))
def test_what_is_quoted_can_be_unquoted(data: bytes) -> None:
    value, rest = gotext.unquote(gotext.quote(data) + " rest")
    assert (value.encode("utf-8", "surrogateescape"), rest) == (data, " rest")


@pytest.mark.parametrize("text", ["x", '"', '"a', '"\\q"', '"\\x1"', '"\\400"', '"\\ud800"', '"a\nb"'])
def test_a_bad_quotation_is_refused(text: str) -> None:
    with pytest.raises(gotext.GoValueError):
        gotext.unquote(text)


@given(text=st.text(max_size=30))
def test_a_json_string_means_the_text(text: str) -> None:
    assert json.loads(gotext.json_string(text)) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (10, "10 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (2147483648, "2.1 GB"),
        (999_949, "1000 kB"),
    ],
)
def test_a_size_is_rounded_to_two_digits_or_three(n: int, text: str) -> None:
    assert gotext.bytes_size(n) == text


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a,", ["a", ""]),
        ('"a,b",c', ["a,b", "c"]),
        ('"say ""hi"""', ['say "hi"']),
        ("a\nb", ["a"]),
    ],
)
def test_a_list_is_split_at_commas_outside_quotes(text: str, items: list[str]) -> None:
    assert split_list(text) == items


@pytest.mark.parametrize("text", ['"a', 'a"b', '"a"b'])
def test_a_list_with_stray_quotes_is_refused(text: str) -> None:
    with pytest.raises(gotext.GoValueError, match="parse error on line 1, column"):
        split_list(text)
