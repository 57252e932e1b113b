"""Zip archives, recognised by their first bytes and never by the name: one ends in `.zip.zip` and is a plain archive."""

from __future__ import annotations

import io
import zipfile
import zlib
from itertools import pairwise

from flowlake.core.errors import BadInputError

ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_CURE_FETCH = "fetch the object again; if it stays so, ask who publishes it to publish it again"


def members(key: str, body: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each file in a zip archive, by name. Folders are left out; checksums are verified.

    Raises BadInputError: `not_a_zip`, `truncated_zip`, `corrupt_zip`, `encrypted_zip`, `duplicate_member`, `empty_file`.
    """
    if not body:
        raise BadInputError(key, "empty_file", "the object has no bytes", _CURE_FETCH)
    if not body.startswith((ZIP_MAGIC, _EMPTY_ZIP)):
        raise BadInputError(key, "not_a_zip", f"the object starts with {body[:4]!r} and is no zip archive", _CURE_FETCH)
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            files = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
            if locked := [info.filename for info in files if info.flag_bits & 1]:
                what = f"member {locked[0]} is encrypted"
                raise BadInputError(key, "encrypted_zip", what, "publish the archive without a password")
            found = [(info.filename, archive.read(info)) for info in files]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        rule = "corrupt_zip" if zipfile.is_zipfile(io.BytesIO(body)) else "truncated_zip"
        raise BadInputError(key, rule, f"the archive is damaged or cut short ({error})", _CURE_FETCH) from error
    if not found:
        raise BadInputError(key, "empty_file", "the archive holds no file", _CURE_FETCH)
    names = [name for name, _ in found]
    if twice := [name for name, following in pairwise(names) if name == following]:
        raise BadInputError(key, "duplicate_member", f"member {twice[0]} appears more than once", _CURE_FETCH)
    return found


def single_file(key: str, body: bytes) -> bytes:
    """`body`, or the one file in it where it is a zip archive. Raises BadInputError as `members`, and `several_members`."""
    if not body.startswith((ZIP_MAGIC, _EMPTY_ZIP)):
        return body
    found = members(key, body)
    if len(found) > 1:
        what = f"the archive holds {len(found)} files, first {found[0][0]} and {found[1][0]}"
        raise BadInputError(key, "several_members", what, "publish one file per archive")
    return found[0][1]
