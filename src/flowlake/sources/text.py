"""From an object's bytes to plain text: inflate, drop the byte order mark, one kind of line ending, checked encoding."""

from __future__ import annotations

import zlib

from flowlake.core.errors import BadInputError

GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"
_GZIP_WINDOW = 31  # zlib's code for "a gzip header and checksum around 32 kB windows"
_CURE_FETCH = "fetch the object again; if it stays so, ask the vendor to publish the file again"


def plain_text(key: str, body: bytes) -> bytes:
    """UTF-8 text with `\\n` line endings, without blank lines at its end, from plain or gzipped `body`.

    Gzip is recognised by its first bytes, never by the name. CR, LF and CRLF may be mixed.
    Raises BadInputError: `empty_file`, `truncated_gzip`, `corrupt_gzip`, `trailing_garbage`, `encoding`.
    """
    if not body:
        raise _empty(key, "the object has no bytes")
    text = inflate(key, body) if body.startswith(GZIP_MAGIC) else body
    text = text.removeprefix(_UTF8_BOM)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if text.endswith(b"\n\n"):
        text = text.rstrip(b"\n")
    if not text or text.isspace():
        raise _empty(key, "the file holds no text")
    _check_encoding(key, text)
    return text


def inflate(key: str, body: bytes) -> bytes:
    """The content of all gzip members of `body`, checksums verified. Zero bytes of padding at the end are allowed."""
    parts: list[bytes] = []
    rest = body
    while rest:
        if not rest.startswith(GZIP_MAGIC):
            return _end_of_gzip(key, parts, rest)
        member = zlib.decompressobj(wbits=_GZIP_WINDOW)
        try:
            parts.append(member.decompress(rest))
        except zlib.error as error:
            what = f"gzip member {len(parts) + 1} is damaged ({error})"
            raise BadInputError(key, "corrupt_gzip", what, _CURE_FETCH) from error
        if not member.eof:
            what = f"the gzip stream ends early, after {len(parts[-1]):,} bytes of text"
            raise BadInputError(key, "truncated_gzip", what, _CURE_FETCH)
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _end_of_gzip(key: str, parts: list[bytes], rest: bytes) -> bytes:
    if rest.strip(b"\0"):
        what = f"{len(rest):,} bytes after the end of the gzip stream are not part of it"
        raise BadInputError(key, "trailing_garbage", what, _CURE_FETCH)
    return b"".join(parts)


def _check_encoding(key: str, text: bytes) -> None:
    if text.isascii():
        return
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        what = f"line {line} holds the byte 0x{text[error.start]:02x}, which is not UTF-8"
        raise BadInputError(key, "encoding", what, "publish the file as UTF-8 text") from error


def _empty(key: str, what: str) -> BadInputError:
    return BadInputError(key, "empty_file", what, "fetch or publish the file again; delete it if it has nothing to say")
