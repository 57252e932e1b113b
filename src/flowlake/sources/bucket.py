"""The bucket of raw files, on any S3-compatible endpoint: list, fetch with resume, verify.

Set up for Backblaze B2: request checksums only where the protocol demands them, Signature Version 4, path-style addresses, the
region taken from the endpoint. Retries are ours and not botocore's, so that they are bounded, jittered and testable.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from flowlake.core.errors import FlowlakeError, ObjectChangedError, SourceUnavailableError, UsageError
from flowlake.core.settings import PREFIX, S3Access, Settings
from flowlake.sources.failures import (
    BROKEN_CONNECTION,
    Place,
    changed,
    explained,
    is_worth_retrying,
    seconds_asked_for,
    storage_failed,
)

OnBytes = Callable[[int], None]
"""Called with the number of bytes gained; negative where bytes at hand proved worthless and were thrown away."""

_CHUNK = 1 << 20
_CONNECTIONS = 64
_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
_REGION_IN_HOST = re.compile(r"s3[.-](?P<region>[a-z0-9-]+)\.(?:backblazeb2|amazonaws)\.com")
_FALLBACK_REGION = "us-east-1"
_FAILURES = (ClientError, BotoCoreError, *BROKEN_CONNECTION)


@dataclass(frozen=True)
class ObjectInfo:
    """One object as listed; `key` is relative to the bucket's prefix, `etag` is without quotes."""

    key: str
    size: int
    etag: str
    last_modified: datetime


@dataclass(frozen=True)
class Download:
    """An object on the local disk, verified; whoever asked for it deletes it."""

    info: ObjectInfo
    path: Path
    sha256: str


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with full jitter: before attempt n + 1 wait between 0 and min(cap, base x 2^n) seconds, or as long as
    the server asks for, up to the cap."""

    attempts: int = 6
    base_seconds: float = 0.5
    cap_seconds: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform

    def wait(self, failures: int, asked_for: float) -> None:
        drawn = self.uniform(0.0, min(self.cap_seconds, self.base_seconds * 2.0**failures))
        self.sleep(min(self.cap_seconds, max(drawn, asked_for)))


class _Stopped(Exception):  # noqa: N818 - no error: the download was called off
    pass


class Bucket:
    """A bucket, or the folder `prefix` in it. Safe to use from several threads.

    All methods raise SourceUnavailableError where the bucket is denied, missing, throttling or out of reach.
    """

    def __init__(self, access: S3Access, name: str, prefix: str = "", *, retry: Retry | None = None) -> None:
        self.endpoint = _endpoint(access.endpoint)
        self.name = name
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retry = retry or Retry()
        # At debug level botocore logs the Authorization header, which holds the access key.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=access.region or _region(self.endpoint),
            aws_access_key_id=access.key_id.reveal(),
            aws_secret_access_key=access.secret.reveal(),
            config=Config(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": "path"},
                max_pool_connections=_CONNECTIONS,
                connect_timeout=10,
                read_timeout=60,
                proxies={} if _is_loopback(self.endpoint) else None,
            ),
        )

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, prefix={self.prefix!r}, endpoint={self.endpoint!r})"

    def close(self) -> None:
        self._client.close()

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below `prefix` (relative to the bucket's own) in the order of the keys, without markers of folders."""
        request: dict[str, str] = {"Bucket": self.name, "Prefix": self.prefix + prefix}
        while True:
            page = self._call("", self._client.list_objects_v2, **request)
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):
                    key = item["Key"].removeprefix(self.prefix)
                    yield ObjectInfo(key, int(item["Size"]), item["ETag"].strip('"'), item["LastModified"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def put(self, key: str, body: bytes) -> None:
        """Write an object whole; the demo fills its bucket with it."""
        self._call(key, self._client.put_object, Bucket=self.name, Key=self.prefix + key, Body=body)

    def fetch(self, info: ObjectInfo, folder: Path, on_bytes: OnBytes | None = None) -> Download:
        """The object as listed, in `folder`, which is made if needed. One process at a time may use a folder.

        Bytes go to `<hash of key and ETag>.part`; what an earlier run left there is kept and the rest asked for by range, with
        If-Match on the ETag. The size is verified, and the content where the ETag is its MD5.
        Raises ObjectChangedError where the object was replaced or removed, StorageError where the folder cannot take it, and
        SourceUnavailableError also where the content does not match its checksum twice.
        """
        count = on_bytes or _ignore
        whole = folder / hashlib.sha256(f"{info.key}\n{info.etag}".encode()).hexdigest()
        part = whole.with_suffix(".part")
        with _storing(part):
            folder.mkdir(parents=True, exist_ok=True)
            if whole.exists():
                whole.replace(part)
        for _ in range(2):
            try:
                etag_is_md5 = self._complete(info, part, count)
            except ObjectChangedError:
                _discard(part, count)
                raise
            sha256, md5 = _digests(part)
            if md5 == info.etag or not etag_is_md5:
                with _storing(part):
                    part.replace(whole)
                return Download(info, whole, sha256)
            _discard(part, count)
        raise SourceUnavailableError(
            f"{self._place(info.key)}: the content does not match its checksum {info.etag}, twice",
            "run again; if it stays so, put the object into the bucket again",
        )

    def fetch_many(
        self,
        infos: Sequence[ObjectInfo],
        folder: Path,
        workers: int,
        on_bytes: OnBytes | None = None,
        on_done: Callable[[Download | FlowlakeError], None] | None = None,
    ) -> list[Download | FlowlakeError]:
        """Fetch in parallel; results in the order of `infos`, and in the place of a failed object its error.

        Callbacks come from worker threads, one at a time. On an interrupt what is under way stops and its parts are kept.
        """
        stopped = threading.Event()
        turn = threading.Lock()

        def count(gained: int) -> None:
            if stopped.is_set():
                raise _Stopped
            if on_bytes is not None:
                with turn:
                    on_bytes(gained)

        def fetched(info: ObjectInfo) -> Download | FlowlakeError:
            try:
                return self.fetch(info, folder, count)
            except FlowlakeError as error:
                return error

        def one(info: ObjectInfo) -> Download | FlowlakeError:
            try:
                result = fetched(info)
                if on_done is not None:
                    with turn:
                        on_done(result)
            except BaseException:
                # The thread that waits for the results may be slow to wake: until then the others would fetch on.
                stopped.set()
                raise
            return result

        with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="fetch") as pool:
            try:
                return list(pool.map(one, infos))
            finally:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, info: ObjectInfo, part: Path, count: OnBytes) -> bool:
        """Bring `part` to the object's size, over broken connections; whether the ETag should be the MD5 of the content."""
        count(_size(part))
        if _size(part) > info.size:
            _discard(part, count)
        failures = 0
        while True:
            held = _size(part)
            if held == info.size and part.exists():
                return _is_md5(info.etag)
            try:
                return self._append(info, part, held, count)
            except _FAILURES as error:
                # Many breaks are no reason to give up on a large object as long as each try brings it forward.
                failures = 1 if _size(part) - held >= _CHUNK else failures + 1
                self._wait_or_raise(error, info.key, failures)

    def _append(self, info: ObjectInfo, part: Path, held: int, count: OnBytes) -> bool:
        """One request for what `part` lacks, written to its end; returns as `_complete`."""
        request = {"Bucket": self.name, "Key": self.prefix + info.key, "IfMatch": f'"{info.etag}"'}
        if held:
            request["Range"] = f"bytes={held}-"
        response = self._client.get_object(**request)
        with closing(response["Body"]) as body:
            ranged = response["ResponseMetadata"]["HTTPStatusCode"] == 206
            total = int(response["ContentRange"].rsplit("/", 1)[-1]) if ranged else int(response["ContentLength"])
            if response["ETag"].strip('"') != info.etag or total != info.size:
                raise changed(self._place(info.key))
            if held and not ranged:  # the server ignores ranges and sends the whole again
                _discard(part, count)
            with _opened(part) as file:
                while chunk := body.read(_CHUNK):
                    _write(file, chunk, part)
                    count(len(chunk))
        # With a key of the key service the ETag has the form of an MD5 and is none.
        return _is_md5(info.etag) and response.get("ServerSideEncryption") != "aws:kms"

    def _call(self, key: str, operation: Callable[..., dict[str, Any]], **request: object) -> dict[str, Any]:
        failures = 0
        while True:
            try:
                return operation(**request)
            except _FAILURES as error:
                failures += 1
                self._wait_or_raise(error, key, failures)

    def _wait_or_raise(self, error: Exception, key: str, failures: int) -> None:
        if not is_worth_retrying(error) or failures >= self._retry.attempts:
            raise explained(error, self._place(key), failures) from None
        self._retry.wait(failures, seconds_asked_for(error))

    def _place(self, key: str) -> Place:
        return Place(self.endpoint, self.name, self.prefix + key if key else "")


def open_bucket(settings: Settings, *, retry: Retry | None = None) -> Bucket:
    """The bucket that the settings name. Raises UsageError naming every `FLOWLAKE_BUCKET_*` setting that is missing."""
    needed = {
        "bucket_endpoint": settings.bucket_endpoint,
        "bucket_name": settings.bucket_name,
        "bucket_key_id": settings.bucket_key_id,
        "bucket_secret": settings.bucket_secret,
    }
    missing = [PREFIX + name.upper() for name, value in needed.items() if not value]
    if missing:
        raise UsageError(
            f"no bucket is set up: {', '.join(missing)} missing",
            "set it in the environment, for example FLOWLAKE_BUCKET_ENDPOINT=https://s3.<region>.backblazeb2.com",
        )
    return Bucket(settings.bucket_access, settings.bucket_name, settings.bucket_prefix, retry=retry)


def _endpoint(given: str) -> str:
    endpoint = (given if "://" in given else f"https://{given}").rstrip("/")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise UsageError(
            "FLOWLAKE_BUCKET_ENDPOINT is not an address without user and password",
            "give it like https://s3.us-west-004.backblazeb2.com; keys go into FLOWLAKE_BUCKET_KEY_ID and _SECRET",
        )
    return endpoint


def _region(endpoint: str) -> str:
    found = _REGION_IN_HOST.fullmatch(urlsplit(endpoint).hostname or "")
    return found["region"] if found else _FALLBACK_REGION


def _is_loopback(endpoint: str) -> bool:
    """Whether the endpoint is this machine, which no proxy of the environment can reach."""
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _ignore(gained: int) -> None:
    """Progress that nobody watches."""


def _is_md5(etag: str) -> bool:
    return _PLAIN_MD5.fullmatch(etag) is not None


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_failed(error, path) from None


def _size(path: Path) -> int:
    with _storing(path):
        return path.stat().st_size if path.exists() else 0


def _discard(part: Path, count: OnBytes) -> None:
    held = _size(part)
    with _storing(part):
        part.unlink(missing_ok=True)
    count(-held)


def _opened(part: Path) -> io.FileIO:
    with _storing(part):
        return io.FileIO(part, "ab")


def _write(file: io.FileIO, chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    with _storing(part):
        while rest:
            rest = rest[file.write(rest) :]


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, in hexadecimal."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with _storing(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()
