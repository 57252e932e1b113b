"""Whether a service is healthy: `healthy.py URL [PART ...]`, for the healthchecks of containers.

Exit code 0 when the address answers with success and each PART of its JSON answer has the status "healthy", else 1 with the reason.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence

ANSWER_SECONDS = 10.0


def problem(url: str, parts: Sequence[str]) -> str:
    """What is not as it should be, or nothing."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            said = answer.read()
        health = json.loads(said) if parts else {}
        unhealthy = [part for part in parts if health[part]["status"] != "healthy"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{url}: {type(error).__name__} {error}"
    return f"{url}: not healthy: {', '.join(unhealthy)}" if unhealthy else ""


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1], sys.argv[2:]) or 0)
