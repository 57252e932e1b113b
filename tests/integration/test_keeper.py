"""The shell that starts our servers: when its standard input closes, nothing of what it started stays."""

from __future__ import annotations

import os
import subprocess
import time

import psutil
import pytest

from flowlake.market.s3server import KEEPER

STUBBORN = "trap '' TERM; sleep 300 & while :; do sleep 0.1; done"
LEAVES_A_CHILD = "sleep 300 & sleep 300"


def alive(group: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize(("program", "seconds"), [("exec sleep 300", 2.0), (LEAVES_A_CHILD, 2.0), (STUBBORN, 20.0)])
def test_nothing_stays(program: str, seconds: float) -> None:
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", KEEPER, "sh", "/bin/sh", "-c", program], stdin=subprocess.PIPE, start_new_session=True
    )
    assert keeper.stdin is not None
    time.sleep(0.3)
    assert alive(keeper.pid) != []
    keeper.stdin.close()
    keeper.wait(seconds)
    end = time.monotonic() + 5.0
    while alive(keeper.pid):
        assert time.monotonic() < end, alive(keeper.pid)
        time.sleep(0.05)
