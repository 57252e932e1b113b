"""Where an expiration date falls in the trading calendar."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

from flowlake.core import sessions

FIRST_EXPIRY = date(2000, 1, 1)
"""The two digits of the year in a symbol count from 2000."""
LAST_EXPIRY = sessions.CALENDAR_LAST - timedelta(days=62)
"""The end of the calendar, less the month that the neighbouring expirations need."""
_FRIDAY = 4


@cache
def settlement_session(expiry: date) -> date:
    """The session whose prices settle a contract: the expiry, or the last session before a Saturday or a holiday."""
    return sessions.sessions_between(expiry - timedelta(days=10), expiry)[-1]


@cache
def monthly_session(year: int, month: int) -> date:
    """The session of the standard monthly expiration: the third Friday, or the session before it on a holiday."""
    first = date(year, month, 1)
    third_friday = first + timedelta(days=(_FRIDAY - first.weekday()) % 7 + 14)
    return settlement_session(third_friday)


def is_monthly(expiry: date) -> bool:
    """Whether a contract of this expiration date settles with the standard monthlies (a Saturday before 2015-02)."""
    settled = settlement_session(expiry)
    return settled == monthly_session(settled.year, settled.month)


def is_vix_monthly(expiry: date) -> bool:
    """VIX monthlies settle 30 days before the S&P 500 monthlies of the following month, or the session before that."""
    settled = settlement_session(expiry)
    following = (settled.replace(day=1) + timedelta(days=32)).replace(day=1)
    return settled == settlement_session(monthly_session(following.year, following.month) - timedelta(days=30))
