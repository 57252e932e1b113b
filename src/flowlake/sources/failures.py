"""What went wrong at the bucket: worth another try, or an error with its cure.

Texts are ours and name the endpoint, the bucket and the key. What the server or botocore wrote is left out: it can repeat an
access key or a signature.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
    SSLError,
)
from urllib3.exceptions import HTTPError

from flowlake.core.errors import FlowlakeError, ObjectChangedError, SourceUnavailableError, StorageError

BROKEN_CONNECTION = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError, OSError)
"""What reading from a socket raises, by way of botocore or past it."""
_THROTTLED = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "InternalError",
    }
)
_TRY_AGAIN_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Unauthorized", "UnauthorizedAccess"})


@dataclass(frozen=True)
class Place:
    """What a request was about, for the error's text."""

    endpoint: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else f"bucket {self.bucket}"


def is_worth_retrying(error: Exception) -> bool:
    """Throttling, a server's fault, and broken connections; never a certificate that does not fit."""
    if isinstance(error, ClientError):
        return code_of(error) in _THROTTLED or status_of(error) in _TRY_AGAIN_STATUS
    return isinstance(error, BROKEN_CONNECTION) and not isinstance(error, SSLError)


def seconds_asked_for(error: Exception) -> float:
    """The `Retry-After` of a refusal, 0 where there is none."""
    if not isinstance(error, ClientError):
        return 0.0
    value = str(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
    return float(value) if value.isdigit() else 0.0


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def explained(error: Exception, place: Place, attempts: int) -> FlowlakeError:
    """The error that a user sees for a failed request."""
    if isinstance(error, ClientError):
        return _refused(error, place, attempts)
    if isinstance(error, SSLError):
        return SourceUnavailableError(
            f"{place.endpoint} does not show a valid certificate", "check the host name in FLOWLAKE_BUCKET_ENDPOINT"
        )
    if isinstance(error, NoCredentialsError):
        return _denied(place, "no credentials")
    if isinstance(error, BROKEN_CONNECTION):
        return SourceUnavailableError(
            f"{place}: {place.endpoint} could not be reached or broke off, {attempts} times ({type(error).__name__})",
            "check the network and FLOWLAKE_BUCKET_ENDPOINT, then run again: what was fetched is kept",
        )
    if isinstance(error, BotoCoreError):
        return SourceUnavailableError(
            f"{place}: the request could not be made ({type(error).__name__})",
            "check FLOWLAKE_BUCKET_ENDPOINT, FLOWLAKE_BUCKET_NAME and FLOWLAKE_BUCKET_REGION",
        )
    raise error


def _refused(error: ClientError, place: Place, attempts: int) -> FlowlakeError:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return SourceUnavailableError(
            f"{place} does not exist at {place.endpoint}", "check FLOWLAKE_BUCKET_NAME and FLOWLAKE_BUCKET_ENDPOINT"
        )
    if code in _DENIED or status in (401, 403):
        return _denied(place, code or str(status))
    if status in (412, 416) or code in ("PreconditionFailed", "InvalidRange"):
        return changed(place)
    if status == 404 and place.key:
        return ObjectChangedError(f"{place} was removed after it was listed", "run again: the bucket is listed anew")
    if is_worth_retrying(error):
        return SourceUnavailableError(
            f"{place}: {place.endpoint} refused {attempts} times ({code or status})",
            "wait and run again, with a smaller FLOWLAKE_DOWNLOAD_WORKERS if it throttles; what was fetched is kept",
        )
    return SourceUnavailableError(
        f"{place}: {place.endpoint} refused the request ({code or 'no code'}, HTTP {status})",
        "check FLOWLAKE_BUCKET_ENDPOINT, FLOWLAKE_BUCKET_NAME and FLOWLAKE_BUCKET_REGION",
    )


def _denied(place: Place, why: str) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"{place}: {place.endpoint} denied access ({why})",
        "check FLOWLAKE_BUCKET_KEY_ID and FLOWLAKE_BUCKET_SECRET, and that the key may list and read this bucket and prefix",
    )


def changed(place: Place) -> ObjectChangedError:
    return ObjectChangedError(f"{place} was replaced while it was being read", "run again: the new version is listed and fetched")


def storage_failed(error: OSError, path: Path) -> StorageError:
    """The error for a download that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path.parent}: no space left for the download", "free space, or set FLOWLAKE_SCRATCH elsewhere")
    return StorageError(
        f"{path.parent}: the download cannot be written ({error.strerror or type(error).__name__})",
        "check the folder and its permissions, or set FLOWLAKE_SCRATCH elsewhere",
    )
