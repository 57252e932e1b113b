"""Whether a file was touched lately: `recent.py FILE SECONDS`, for the healthcheck of a service that answers no port.

Exit code 0 when it was, else 1 with the reason.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def problem(path: Path, seconds: float) -> str:
    """What is not as it should be, or nothing."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path}: touched {age:.0f} s ago" if age > seconds else ""


if __name__ == "__main__":
    sys.exit(problem(Path(sys.argv[1]), float(sys.argv[2])) or 0)
