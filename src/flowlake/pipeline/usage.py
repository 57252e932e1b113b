"""What memory a process has taken so far."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process since it began; None where the system has no such file (only Linux has).

    Not `ru_maxrss`: that also knows the memory of whoever started the process.
    """
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
    return next((int(words[1]) * 1024 for words in lines if words and words[0] == _PEAK), None)
