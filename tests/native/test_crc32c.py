"""CRC-32C against the vectors of RFC 3720 (appendix B.4) and a plain table-driven twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd._native import crc32c

VECTORS = [
    (b"", 0),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (b"123456789", 0xE3069283),
]


def twin(data: bytes, crc: int = 0) -> int:
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_known_vectors(data, crc):
    assert crc32c(data) == crc


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_continued_anywhere(first, second):
    assert crc32c(second, crc32c(first)) == twin(first + second)


def test_every_kind_of_buffer():
    data = bytes(range(200))
    assert crc32c(bytearray(data)) == crc32c(memoryview(data)) == crc32c(data)
    assert crc32c(memoryview(data)[50:150]) == crc32c(data[50:150])


def test_what_is_not_contiguous_bytes_is_refused():
    with pytest.raises(BufferError):
        crc32c(memoryview(bytes(10))[::2])
    with pytest.raises(TypeError):
        crc32c("text")  # type: ignore[arg-type]
