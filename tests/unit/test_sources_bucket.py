"""What the bucket needs to be told, and what it works out by itself."""

from __future__ import annotations

import random

import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import S3Access, Secret, Settings, load_settings
from flowlake.sources.bucket import Bucket, Retry, open_bucket

B2 = "https://s3.us-west-004.backblazeb2.com"


def region_of(endpoint: str, region: str = "") -> str:
    bucket = Bucket(S3Access(endpoint, region, Secret("id"), Secret("secret")), "b")
    return str(bucket._client.meta.region_name)


def test_the_region_comes_from_the_endpoint() -> None:
    assert region_of(B2) == "us-west-004"
    assert region_of("s3.eu-central-003.backblazeb2.com") == "eu-central-003"
    assert region_of("https://s3.eu-west-1.amazonaws.com/") == "eu-west-1"
    assert region_of("http://127.0.0.1:9000") == "us-east-1"
    assert region_of(B2, "elsewhere-1") == "elsewhere-1"


def test_it_is_set_up_for_backblaze() -> None:
    config = Bucket(S3Access(B2, "", Secret("id"), Secret("secret")), "b")._client.meta.config
    assert config.signature_version == "s3v4"
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"
    assert config.retries["total_max_attempts"] == 1


@pytest.mark.parametrize("endpoint", ["ftp://host", "https://", "https://user:pass@host"])
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(UsageError, match="FLOWLAKE_BUCKET_ENDPOINT") as caught:
        Bucket(S3Access(endpoint, "", Secret("id"), Secret("secret")), "b")
    assert "pass@" not in str(caught.value)


def test_missing_settings_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        open_bucket(Settings(bucket_endpoint=B2, bucket_key_id=Secret("id")))
    assert "FLOWLAKE_BUCKET_NAME, FLOWLAKE_BUCKET_SECRET missing" in caught.value.what


def test_open_bucket() -> None:
    environ = {
        "FLOWLAKE_BUCKET_ENDPOINT": B2,
        "FLOWLAKE_BUCKET_NAME": "market",
        "FLOWLAKE_BUCKET_PREFIX": "/raw/flat/",
        "FLOWLAKE_BUCKET_KEY_ID": "idnevershown",
        "FLOWLAKE_BUCKET_SECRET": "secretnevershown",
    }
    bucket = open_bucket(load_settings(environ))
    assert (bucket.name, bucket.prefix, bucket.endpoint) == ("market", "raw/flat/", B2)
    assert "nevershown" not in repr(bucket) + repr(vars(bucket))


def test_backoff_is_exponential_with_full_jitter_and_a_cap() -> None:
    waits: list[float] = []
    retry = Retry(base_seconds=0.5, cap_seconds=20.0, sleep=waits.append, uniform=random.Random(7).uniform)
    for failures in range(1, 9):
        retry.wait(failures, 0.0)
    for failures, waited in enumerate(waits, start=1):
        assert 0.0 <= waited <= min(20.0, 0.5 * 2**failures)
    assert len(set(waits)) == 8
    retry.wait(1, 300.0)
    assert waits[-1] == 20.0
