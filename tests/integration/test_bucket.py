"""The bucket against a real S3 server, and against a stub where a real server cannot be made to misbehave."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flowlake.core.errors import FlowlakeError, ObjectChangedError, SourceUnavailableError, StorageError
from flowlake.core.settings import S3Access, Secret
from flowlake.market.s3server import S3Server, s3_server
from flowlake.sources import bucket as bucket_module
from flowlake.sources.bucket import Bucket, Download, ObjectInfo, Retry

MEBIBYTE = 1 << 20
KEY_ID = "AKIDNEVERSHOWN"
SECRET = "secretnevershown"


def bucket_at(server: S3Server, prefix: str, name: str = "flowlake", retry: Retry | None = None) -> Bucket:
    return Bucket(server.access, name, prefix, retry=retry)


def the_object(bucket: Bucket, key: str) -> ObjectInfo:
    return next(info for info in bucket.objects(key) if info.key == key)


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class TestListing:
    def test_every_page_is_listed_in_order_and_relative_to_the_prefix(self, s3: S3Server) -> None:
        bucket = bucket_at(s3, "/many/")
        keys = [f"day/{n:04d}.csv" for n in range(1203)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: bucket.put(key, key.encode()), keys))
        bucket_at(s3, "many-not-this").put("x", b"x")
        found = list(bucket.objects())
        assert [info.key for info in found] == keys
        assert {info.size for info in found} == {len(keys[0])}
        assert found[0].etag == hashlib.md5(keys[0].encode()).hexdigest()
        assert found[0].last_modified.tzinfo is not None
        assert [info.key for info in bucket.objects("day/120")] == ["day/1200.csv", "day/1201.csv", "day/1202.csv"]
        assert list(bucket.objects("nothing/")) == []


class TestFetching:
    def test_content_size_and_progress(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "plain")
        body = content(3 * MEBIBYTE + 17)
        bucket.put("a b/ü+1.csv.gz", body)
        gained: list[int] = []
        download = bucket.fetch(the_object(bucket, "a b/ü+1.csv.gz"), tmp_path / "new" / "folder", gained.append)
        assert download.path.read_bytes() == body
        assert download.sha256 == hashlib.sha256(body).hexdigest()
        assert sum(gained) == len(body)
        assert list((tmp_path / "new" / "folder").iterdir()) == [download.path]

    def test_an_empty_object(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "empty")
        bucket.put("e.csv", b"")
        assert bucket.fetch(the_object(bucket, "e.csv"), tmp_path).path.read_bytes() == b""

    def test_an_aborted_download_goes_on_where_it_stopped(
        self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket = bucket_at(s3, "resume")
        body = content(5 * MEBIBYTE)
        bucket.put("big", body)
        info = the_object(bucket, "big")

        def abort(gained: int) -> None:
            if gained and next(tmp_path.glob("*.part")).stat().st_size >= 2 * MEBIBYTE:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bucket.fetch(info, tmp_path, abort)
        (part,) = tmp_path.iterdir()
        held = part.stat().st_size
        assert part.suffix == ".part"
        assert 2 * MEBIBYTE <= held < len(body)

        ranges = record_requests(bucket, monkeypatch)
        gained: list[int] = []
        assert bucket.fetch(info, tmp_path, gained.append).path.read_bytes() == body
        assert ranges == [f"bytes={held}-"]
        assert gained[0] == held
        assert sum(gained) == len(body)

        bucket.fetch(info, tmp_path)
        assert len(ranges) == 1, "what is whole and verified is not asked for again"

    def test_a_damaged_part_is_thrown_away(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "damage")
        body = content(2 * MEBIBYTE)
        bucket.put("big", body)
        info = the_object(bucket, "big")
        path = bucket.fetch(info, tmp_path).path
        path.with_suffix(".part").write_bytes(b"x" * 1000)
        path.unlink()
        gained: list[int] = []
        assert bucket.fetch(info, tmp_path, gained.append).path.read_bytes() == body
        assert sum(gained) == len(body)
        path.write_bytes(body + b"longer")
        assert bucket.fetch(info, tmp_path).path.read_bytes() == body

    def test_an_object_replaced_after_the_listing(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "replaced")
        bucket.put("o", content(1000))
        info = the_object(bucket, "o")
        bucket.put("o", content(1000, seed=2))
        with pytest.raises(ObjectChangedError, match="replaced/o was replaced while it was being read"):
            bucket.fetch(info, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_an_object_replaced_between_two_ranges(self, s3: S3Server, tmp_path: Path) -> None:
        """Half of the old object is here: the rest of the new one must not be joined to it."""
        bucket = bucket_at(s3, "halves")
        bucket.put("o", content(4 * MEBIBYTE))
        info = the_object(bucket, "o")

        def abort(gained: int) -> None:
            if gained:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bucket.fetch(info, tmp_path, abort)
        bucket.put("o", content(4 * MEBIBYTE, seed=2))
        with pytest.raises(ObjectChangedError):
            bucket.fetch(info, tmp_path)
        fresh = the_object(bucket, "o")
        assert bucket.fetch(fresh, tmp_path).path.read_bytes() == content(4 * MEBIBYTE, seed=2)

    def test_an_object_removed_after_the_listing(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "removed")
        bucket.put("there", b"1")
        gone = replace(the_object(bucket, "there"), key="gone")
        with pytest.raises(ObjectChangedError, match="was removed"):
            bucket.fetch(gone, tmp_path)

    def test_one_failure_does_not_lose_the_others(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "several")
        for n in range(12):
            bucket.put(f"{n:02d}", content(200_000, seed=n))
        infos = list(bucket.objects())
        infos[5] = replace(infos[5], etag="0" * 32)
        gained: list[int] = []
        done: list[Download | FlowlakeError] = []
        results = bucket.fetch_many(infos, tmp_path, 4, gained.append, done.append)
        assert isinstance(results[5], ObjectChangedError)
        for n, result in enumerate(results):
            if n != 5:
                assert isinstance(result, Download)
                assert result.info == infos[n]
                assert result.path.read_bytes() == content(200_000, seed=n)
        assert sum(gained) == 11 * 200_000
        assert len(done) == 12

    def test_an_interrupt_stops_what_is_under_way(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "interrupt")
        bucket.put("o", content(3 * MEBIBYTE))
        info = the_object(bucket, "o")

        def interrupt(result: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bucket.fetch_many([replace(info, etag="0" * 32), *[info] * 3], tmp_path, 1, None, interrupt)
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".part"]

    def test_a_full_disk(self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bucket = bucket_at(s3, "full")
        bucket.put("o", content(1000))

        class FullDisk(bucket_module.io.FileIO):
            def write(self, data: object) -> int:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(bucket_module.io, "FileIO", FullDisk)
        with pytest.raises(StorageError, match="no space left"):
            bucket.fetch(the_object(bucket, "o"), tmp_path)

    def test_a_folder_that_cannot_be_made(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = bucket_at(s3, "nofolder")
        bucket.put("o", b"1")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match="cannot be written"):
            bucket.fetch(the_object(bucket, "o"), tmp_path / "file")


class TestRefusals:
    def test_a_wrong_key_is_denied_at_once(self, s3: S3Server, tmp_path: Path) -> None:
        waits: list[float] = []
        for access in (
            replace(s3.access, secret=Secret(SECRET)),
            replace(s3.access, key_id=Secret(KEY_ID)),
        ):
            bucket = Bucket(access, "flowlake", retry=Retry(sleep=waits.append))
            info = ObjectInfo("k", 1, "0" * 32, datetime(2024, 1, 1, tzinfo=UTC))
            for action in (lambda b=bucket: list(b.objects()), lambda b=bucket, i=info: b.fetch(i, tmp_path)):
                with pytest.raises(SourceUnavailableError, match="denied access") as caught:
                    action()
                assert "FLOWLAKE_BUCKET_KEY_ID" in caught.value.cure
                assert_no_secret(str(caught.value), repr(caught.value), repr(bucket), repr(vars(bucket)))
        assert waits == []

    def test_a_missing_bucket(self, s3: S3Server) -> None:
        with pytest.raises(SourceUnavailableError, match="bucket absent does not exist") as caught:
            list(bucket_at(s3, "", name="absent").objects())
        assert "FLOWLAKE_BUCKET_NAME" in caught.value.cure

    def test_an_endpoint_out_of_reach(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
            waits: list[float] = []
            bucket = Bucket(stub_access(endpoint), "b", retry=Retry(attempts=4, sleep=waits.append))
            with pytest.raises(SourceUnavailableError, match="could not be reached") as caught:
                list(bucket.objects())
        assert len(waits) == 3
        assert endpoint in caught.value.what
        assert_no_secret(str(caught.value), repr(caught.value))

    def test_debug_logs_show_no_key(self, s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            bucket = bucket_at(s3, "logs")
            bucket.put("k", b"1")
            list(bucket.objects())
        shown = caplog.text
        assert s3.access.secret.reveal() not in shown
        assert s3.access.key_id.reveal() not in shown


class TestMisbehaviour:
    """A stub that answers as throttled, dying and careless servers do."""

    BODY = content(3 * MEBIBYTE, seed=3)
    ETAG = hashlib.md5(BODY).hexdigest()
    INFO = ObjectInfo("k", len(BODY), ETAG, datetime(2024, 1, 1, tzinfo=UTC))

    @pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (400, "RequestTimeout")])
    def test_throttling_is_waited_out(self, status: int, code: str, tmp_path: Path) -> None:
        answers = [refusal(status, code)] * 3 + [self.whole()]
        waits: list[float] = []
        with stub(answers) as server:
            retry = Retry(attempts=5, sleep=waits.append, uniform=lambda low, high: high)
            assert self.bucket(server, retry).fetch(self.INFO, tmp_path).path.read_bytes() == self.BODY
        assert waits == [1.0, 2.0, 4.0]

    def test_throttling_without_end_is_given_up(self, tmp_path: Path) -> None:
        waits: list[float] = []
        with stub([refusal(503, "SlowDown")] * 9) as server:
            bucket = self.bucket(server, Retry(attempts=4, sleep=waits.append))
            with pytest.raises(SourceUnavailableError, match=r"refused 4 times \(SlowDown\)") as caught:
                bucket.fetch(self.INFO, tmp_path)
        assert len(waits) == 3
        assert "FLOWLAKE_DOWNLOAD_WORKERS" in caught.value.cure

    def test_a_throttled_listing(self) -> None:
        waits: list[float] = []
        with stub([refusal(503, "SlowDown")] * 2 + [listing("a/k", 5)]) as server:
            bucket = self.bucket(server, Retry(sleep=waits.append))
            assert [(info.key, info.size, info.etag) for info in bucket.objects()] == [("a/k", 5, "e" * 32)]
        assert len(waits) == 2

    def test_the_server_says_how_long_to_wait(self, tmp_path: Path) -> None:
        waits: list[float] = []
        with stub([refusal(503, "SlowDown", retry_after="7"), self.whole()]) as server:
            self.bucket(server, Retry(sleep=waits.append, uniform=lambda low, high: low)).fetch(self.INFO, tmp_path)
        assert waits == [7.0]

    def test_a_broken_connection_is_taken_up_by_range(self, tmp_path: Path) -> None:
        first = self.whole(send=MEBIBYTE + 5)
        with stub([first, self.whole()]) as server:
            download = self.bucket(server, Retry(sleep=lambda s: None)).fetch(self.INFO, tmp_path)
            assert download.path.read_bytes() == self.BODY
            assert "Range" not in server.requests[0]
            assert server.requests[1]["Range"] == f"bytes={server.sent[0]}-"
            assert server.requests[1]["If-Match"] == f'"{self.ETAG}"'

    def test_many_breaks_are_borne_while_each_try_gains(self, tmp_path: Path) -> None:
        with stub([self.whole(send=MEBIBYTE)] * 2 + [self.whole()]) as server:
            bucket = self.bucket(server, Retry(attempts=2, sleep=lambda s: None))
            assert bucket.fetch(self.INFO, tmp_path).path.read_bytes() == self.BODY

    def test_a_server_that_ignores_ranges(self, tmp_path: Path) -> None:
        gained: list[int] = []
        with stub([self.whole(send=MEBIBYTE + 5), self.whole(ranges=False)]) as server:
            bucket = self.bucket(server, Retry(sleep=lambda s: None))
            assert bucket.fetch(self.INFO, tmp_path, gained.append).path.read_bytes() == self.BODY
        assert sum(gained) == len(self.BODY)

    def test_a_server_that_ignores_conditions(self, tmp_path: Path) -> None:
        with stub([self.whole()]) as server, pytest.raises(ObjectChangedError):
            self.bucket(server).fetch(replace(self.INFO, etag="1" * 32), tmp_path)

    def test_content_that_does_not_match_its_checksum(self, tmp_path: Path) -> None:
        info = replace(self.INFO, etag="1" * 32)
        with stub([self.whole(etag="1" * 32)] * 2) as server:
            with pytest.raises(SourceUnavailableError, match="does not match its checksum"):
                self.bucket(server).fetch(info, tmp_path)
            assert len(server.requests) == 2
        assert list(tmp_path.iterdir()) == []

    def test_an_etag_of_parts_is_no_checksum(self, tmp_path: Path) -> None:
        info = replace(self.INFO, etag="1" * 32 + "-3")
        with stub([self.whole(etag=info.etag)]) as server:
            assert self.bucket(server).fetch(info, tmp_path).sha256 == hashlib.sha256(self.BODY).hexdigest()

    def test_an_etag_under_a_managed_key_is_no_checksum(self, tmp_path: Path) -> None:
        info = replace(self.INFO, etag="1" * 32)
        with stub([self.whole(etag=info.etag, managed_key=True)]) as server:
            assert self.bucket(server).fetch(info, tmp_path).path.read_bytes() == self.BODY

    def test_what_a_server_repeats_is_not_shown(self, tmp_path: Path) -> None:
        with (
            stub([refusal(400, "Strange", message=f"{KEY_ID} {SECRET}")]) as server,
            pytest.raises(SourceUnavailableError, match="Strange") as caught,
        ):
            self.bucket(server).fetch(self.INFO, tmp_path)
        assert_no_secret(str(caught.value), repr(caught.value))
        assert caught.value.__suppress_context__

    def whole(self, *, send: int | None = None, etag: str | None = None, ranges: bool = True, managed_key: bool = False) -> Answer:
        def answer(handler: Handler) -> int:
            asked = handler.headers.get("Range") if ranges else None
            first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            handler.send_response(206 if asked else 200)
            handler.send_header("ETag", f'"{etag or self.ETAG}"')
            handler.send_header("Content-Length", str(len(self.BODY) - first))
            if managed_key:
                handler.send_header("x-amz-server-side-encryption", "aws:kms")
            if asked:
                handler.send_header("Content-Range", f"bytes {first}-{len(self.BODY) - 1}/{len(self.BODY)}")
            handler.end_headers()
            part = self.BODY[first:] if send is None else self.BODY[first : first + send]
            handler.wfile.write(part)
            handler.close_connection = True
            return first + len(part)

        return answer

    def bucket(self, server: Stub, retry: Retry | None = None) -> Bucket:
        return Bucket(stub_access(f"http://127.0.0.1:{server.server_port}"), "b", retry=retry)


class TestServer:
    def test_it_is_gone_with_its_files_when_the_block_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with s3_server(["one"]) as server:
            processes = processes_of(server)
            assert any("weed" in line for line in processes.values())
            assert {os.getpgid(pid) for pid in processes}.isdisjoint({os.getpgid(0)})
            assert len({os.getpgid(pid) for pid in processes}) == 1
            assert not [line for line in processes.values() if server.access.secret.reveal() in line]
            assert server.access.secret.reveal() not in repr(server)
            assert list(tmp_path.iterdir())
        assert not processes_of(server)
        assert not answers(server.access.endpoint)
        assert not list(tmp_path.iterdir())

    def test_it_does_not_outlive_a_killed_parent(self, tmp_path: Path) -> None:
        program = (
            "import time\nfrom flowlake.market.s3server import s3_server\n"
            "with s3_server() as server:\n    print(server.access.endpoint, flush=True)\n    time.sleep(60)\n"
        )
        environ = os.environ | {"TMPDIR": str(tmp_path)}
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environ) as parent:
            assert parent.stdout is not None
            endpoint = parent.stdout.readline().strip()
            assert answers(endpoint)
            parent.kill()
        until = time.monotonic() + 20
        while answers(endpoint) and time.monotonic() < until:
            time.sleep(0.1)
        assert not answers(endpoint)


def processes_of(server: S3Server) -> dict[int, str]:
    """Processes that mention the server's port, with their whole command lines."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    port = server.access.endpoint.rsplit(":", 1)[1]
    rows = [line.split(None, 1) for line in listed.splitlines()]
    return {int(row[0]): row[1] for row in rows if len(row) == 2 and f"-s3.port={port}" in row[1]}


def answers(endpoint: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))) == 0


def assert_no_secret(*shown: str) -> None:
    for text in shown:
        assert KEY_ID not in text
        assert SECRET not in text


def stub_access(endpoint: str) -> S3Access:
    return S3Access(endpoint, "", Secret(KEY_ID), Secret(SECRET))


def record_requests(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The `Range` of every object request from now on."""
    ranges: list[str | None] = []
    inner = bucket._client.get_object

    def recorded(**request: str) -> object:
        ranges.append(request.get("Range"))
        return inner(**request)

    monkeypatch.setattr(bucket._client, "get_object", recorded)
    return ranges


class Stub(ThreadingHTTPServer):
    """Gives its answers one after the other, and remembers what it was asked and how far it sent."""

    daemon_threads = True

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = iter(answers)
        self.requests: list[dict[str, str]] = []
        self.sent: list[int] = []


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        self.server.sent.append(next(self.server.answers)(self))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the tests look at `requests`."""


Answer = Callable[[Handler], int]


def refusal(status: int, code: str, *, retry_after: str = "", message: str = "no") -> Answer:
    def answer(handler: Handler) -> int:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/xml")
        handler.send_header("Content-Length", str(len(body)))
        if retry_after:
            handler.send_header("Retry-After", retry_after)
        handler.end_headers()
        handler.wfile.write(body)
        return 0

    return answer


def listing(key: str, size: int) -> Answer:
    def answer(handler: Handler) -> int:
        body = (
            "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents>"
            f"<Key>{key}</Key><Size>{size}</Size><ETag>&quot;{'e' * 32}&quot;</ETag>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
        ).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return len(body)

    return answer


@contextmanager
def stub(answers: list[Answer]) -> Iterator[Stub]:
    with Stub(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
