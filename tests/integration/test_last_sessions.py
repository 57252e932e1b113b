"""`--last N`: the newest sessions that the bucket lists, none of them before its decision time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowlake.core.errors import UsageError
from flowlake.core.sessions import actionable_at
from flowlake.pipeline.run import newest_sessions
from integration.conftest import CleanLake
from integration.market_bucket import call, command


def test_a_session_counts_from_its_decision_time_on(clean: CleanLake) -> None:
    days = clean.market.days
    ready = actionable_at(days[-1])
    assert newest_sessions(clean.settings, 2, ready) == (days[-2], days[-1])
    assert newest_sessions(clean.settings, 2, ready - timedelta(seconds=1)) == (days[-3], days[-2])
    assert newest_sessions(clean.settings, 99, ready) == (days[0], days[-1])
    with pytest.raises(UsageError, match="no session whose decision time has passed"):
        newest_sessions(clean.settings, 1, actionable_at(days[0]) - timedelta(seconds=1))


def test_the_command_takes_it_in_place_of_a_range(clean: CleanLake) -> None:
    said = call(command("status", "--last", 2, "--step", "curate_sessions", "--json"), clean.settings)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count('"fresh"') == 2
    both = call(command("status", "--last", 2, "--session", clean.market.days[0]), clean.settings)
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
