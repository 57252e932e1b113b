"""Fixtures of the integration tests: one real S3 server for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowlake.market.s3server import S3Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server with the buckets `flowlake` and `other`; tests keep apart by their own prefixes."""
    with s3_server(["flowlake", "other"]) as server:
        yield server
