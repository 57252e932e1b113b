"""The signature of a webhook: how it is made, and how a receiver checks it."""

from __future__ import annotations

import hashlib
import hmac

TIMESTAMP_HEADER = "X-Flowlake-Timestamp"
SIGNATURE_HEADER = "X-Flowlake-Signature"
IDEMPOTENCY_HEADER = "Idempotency-Key"
TOLERANCE_SECONDS = 300


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA256, in hexadecimal, of the timestamp, a full stop and the body."""
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_genuine(
    secret: str, timestamp: str, signature: str, body: bytes, now_unix: float, tolerance_seconds: float = TOLERANCE_SECONDS
) -> bool:
    """Whether the body is signed with the secret, and the timestamp (seconds since 1970) lies within the tolerance of now."""
    if not timestamp.isdigit() or abs(now_unix - int(timestamp)) > tolerance_seconds:
        return False
    return hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode())
