"""Where the lake's bytes lie: a local folder or an S3 prefix, behind the same few operations.

Every write is atomic: a reader sees the old object or the new one. Paths are relative to the root, with `/`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from flowlake.core.errors import StorageError, UsageError
from flowlake.core.settings import S3Access

STAGING = "_staging"


@dataclass(frozen=True)
class Stat:
    """`stamp` changes whenever the object does: an ETag, or inode, size and modification time."""

    path: str
    size: int
    stamp: str


class Store(Protocol):
    @property
    def root(self) -> str: ...

    def list(self, prefix: str) -> Iterator[Stat]: ...

    def stat(self, path: str) -> Stat | None: ...

    def read(self, path: str) -> bytes: ...

    def read_tail(self, path: str, count: int) -> bytes: ...

    def write(self, path: str, body: bytes) -> Stat: ...

    def copy(self, source: str, target: str) -> None: ...

    def delete(self, path: str) -> None: ...

    def uri(self, path: str) -> str: ...


def open_store(root: str, access: S3Access) -> Store:
    """The store of a lake root: a folder, or `s3://bucket/prefix`."""
    if root.startswith("s3://"):
        return S3Store(root, access)
    if "://" in root:
        raise UsageError(f"the lake {root!r} is neither a folder nor s3://", "set FLOWLAKE_LAKE to a folder or s3://bucket/prefix")
    return LocalStore(Path(absolute_root(root)))


def absolute_root(root: str) -> str:
    """The root as it reads from any folder."""
    return root if "://" in root else str(Path(root).resolve())


def storage_error(what: str, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left while {what}", "free space or move the lake, then run again: nothing was lost")
    return StorageError(f"{what} failed: {error.strerror or error}", "check the folder's permissions and run again")


class LocalStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> str:
        return str(self._root)

    def _at(self, path: str) -> Path:
        return self._root / path

    def uri(self, path: str) -> str:
        return str(self._at(path))

    def list(self, prefix: str) -> Iterator[Stat]:
        base = self._at(prefix)
        for folder, folders, files in os.walk(base):
            folders.sort()
            for name in sorted(files):
                full = Path(folder, name)
                found = self._stat(full)
                if found is not None:
                    yield found

    def _stat(self, full: Path) -> Stat | None:
        try:
            status = full.stat()
        except FileNotFoundError:
            return None
        return Stat(full.relative_to(self._root).as_posix(), status.st_size, _stamp(status))

    def stat(self, path: str) -> Stat | None:
        return self._stat(self._at(path))

    def read(self, path: str) -> bytes:
        try:
            return self._at(path).read_bytes()
        except OSError as error:
            raise storage_error(f"reading {path}", error) from error

    def read_tail(self, path: str, count: int) -> bytes:
        try:
            with self._at(path).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - count))
                return file.read()
        except OSError as error:
            raise storage_error(f"reading {path}", error) from error

    def write(self, path: str, body: bytes) -> Stat:
        target = self._at(path)
        staged = self._root / STAGING / f"{uuid.uuid4().hex}.tmp"
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
                status = os.fstat(file.fileno())
            staged.replace(target)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise storage_error(f"writing {path}", error) from error
        return Stat(path, status.st_size, _stamp(status))

    def copy(self, source: str, target: str) -> None:
        """A hard link where the file system has it: history costs no space until the original is replaced."""
        to = self._at(target)
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._at(source), to)
        except FileExistsError:
            return
        except OSError:
            try:
                part = to.with_name(f"{to.name}.{uuid.uuid4().hex}.tmp")
                shutil.copyfile(self._at(source), part)
                part.replace(to)
            except OSError as error:
                raise storage_error(f"keeping {source} under history", error) from error

    def delete(self, path: str) -> None:
        self._at(path).unlink(missing_ok=True)

    def remove_empty_folder(self, path: str) -> None:
        """Remove the folder of a deleted file, unless something else is in it."""
        try:
            self._at(path).parent.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise storage_error(f"removing the folder of {path}", error) from error

    def clean_staging(self, older_than_seconds: float, now: float) -> None:
        """Remove what a killed run left behind; what a running one is writing is younger."""
        for file in (self._root / STAGING).glob("*.tmp"):
            try:
                if now - file.stat().st_mtime > older_than_seconds:
                    file.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


class S3Store:
    """An S3 prefix. One PUT publishes; reads of a part carry If-Match, so that two versions never mix."""

    def __init__(self, root: str, access: S3Access) -> None:
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f"{root!r} names no bucket", "write s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.access = access
        self._local = threading.local()

    @property
    def root(self) -> str:
        return f"s3://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")

    def _client(self) -> Any:
        if not hasattr(self._local, "client"):
            self._local.client = s3_client(self.access)
        return self._local.client

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def uri(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._key(path)}"

    def _call(self, what: str, name: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client(), name)(Bucket=self._bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("404", "NoSuchKey", "NotFound"):
                raise FileNotFoundError(what) from None
            raise StorageError(
                f"{what} in {self.root} failed: {code}", "check the lake's keys (FLOWLAKE_LAKE_KEY_ID or the bucket's)"
            ) from None
        except BotoCoreError as error:
            raise StorageError(
                f"{what} in {self.root} failed: {type(error).__name__}", "check FLOWLAKE_LAKE_ENDPOINT and the network"
            ) from None

    def list(self, prefix: str) -> Iterator[Stat]:
        for path, entry in self._entries(prefix):
            yield Stat(path, entry["Size"], entry["ETag"].strip('"'))

    def modified(self, prefix: str) -> dict[str, datetime]:
        """Path -> when it was last written, by the server's clock, for everything below a prefix."""
        return {path: entry["LastModified"] for path, entry in self._entries(prefix)}

    def _entries(self, prefix: str) -> Iterator[tuple[str, Any]]:
        token: dict[str, str] = {}
        cut = len(self._prefix) + 1 if self._prefix else 0
        while True:
            page = self._call("listing", "list_objects_v2", Prefix=self._key(prefix), **token)
            for entry in page.get("Contents", ()):
                yield entry["Key"][cut:], entry
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, path: str) -> Stat | None:
        try:
            head = self._call(f"looking up {path}", "head_object", Key=self._key(path))
        except FileNotFoundError:
            return None
        return Stat(path, head["ContentLength"], head["ETag"].strip('"'))

    def read(self, path: str) -> bytes:
        from botocore.exceptions import BotoCoreError

        what = f"reading {path}"
        for attempt in range(4):
            try:
                body: bytes = self._call(what, "get_object", Key=self._key(path))["Body"].read()
                return body
            except FileNotFoundError:
                raise StorageError(f"{what}: it is gone", "run `flowlake verify`, then run again") from None
            except BotoCoreError:
                if attempt == 3:
                    raise StorageError(f"{what}: the connection broke four times", "check the network, run again") from None
        raise AssertionError("unreachable")

    def read_tail(self, path: str, count: int) -> bytes:
        stat = self.stat(path)
        if stat is None:
            raise StorageError(f"reading {path}: it is gone", "run `flowlake verify`, then run again")
        start = max(0, stat.size - count)
        body: bytes = self._call(
            f"reading {path}", "get_object", Key=self._key(path), Range=f"bytes={start}-", IfMatch=f'"{stat.stamp}"'
        )["Body"].read()
        return body

    def write(self, path: str, body: bytes) -> Stat:
        answer = self._call(f"writing {path}", "put_object", Key=self._key(path), Body=body)
        return Stat(path, len(body), answer["ETag"].strip('"'))

    def copy(self, source: str, target: str) -> None:
        self._call(
            f"keeping {source} under history",
            "copy_object",
            Key=self._key(target),
            CopySource={"Bucket": self._bucket, "Key": self._key(source)},
        )

    def delete(self, path: str) -> None:
        self._call(f"deleting {path}", "delete_object", Key=self._key(path))


def s3_client(access: S3Access) -> Any:
    """A boto3 client that works with Backblaze B2: no new checksum headers, signature version 4."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=access.endpoint or None,
        region_name=access.region or "us-east-1",
        aws_access_key_id=access.key_id.reveal() or None,
        aws_secret_access_key=access.secret.reveal() or None,
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": 6},
        ),
    )


def file_hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
