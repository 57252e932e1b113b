"""The part of Thrift's compact protocol that the headers and the footer of a Parquet file are written in.

A value is one byte with the protocol's code of its type, then its own bytes. Source: the Thrift compact protocol specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_TRUE, _FALSE, _I16, _I32, _I64, _BINARY, _LIST, _STRUCT = b"\x01", b"\x02", b"\x04", b"\x05", b"\x06", b"\x08", b"\x09", b"\x0c"
_SHORT_LIST = 15
_ONE_BYTE = [bytes([i]) for i in range(0x80)]


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def flag(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def i16(value: int) -> bytes:
    return _I16 + _zigzag(value)


def i32(value: int) -> bytes:
    return _I32 + _zigzag(value)


def i64(value: int) -> bytes:
    return _I64 + _zigzag(value)


def binary(value: bytes) -> bytes:
    return _BINARY + _varint(len(value)) + value


def text(value: str) -> bytes:
    return binary(value.encode())


def listed(values: Sequence[bytes]) -> bytes:
    """A list of values of one type; an empty one is of structs."""
    kind = values[0][0] if values else _STRUCT[0]
    head = bytes([len(values) << 4 | kind]) if len(values) < _SHORT_LIST else bytes([0xF0 | kind]) + _varint(len(values))
    return _LIST + head + b"".join([value[1:] for value in values])


def struct(fields: Mapping[int, bytes | None]) -> bytes:
    """Fields by ascending id; None leaves one out."""
    out = bytearray(_STRUCT)
    last = 0
    for number, value in fields.items():
        if value is None:
            continue
        # Ids of Parquet's structs never lie more than 15 apart, so the short form always does.
        out.append((number - last) << 4 | value[0])
        out += value[1:]
        last = number
    out.append(0)
    return bytes(out)
