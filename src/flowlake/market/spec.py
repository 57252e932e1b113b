"""What a synthetic market is made from, and the keys of the files that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

import numpy as np

from flowlake.core import sessions as calendar
from flowlake.core.errors import UsageError

OPTION_TRADES = "us_options_opra/trades_v1"
OPTION_MINUTES = "us_options_opra/minute_aggs_v1"
OPTION_DAYS = "us_options_opra/day_aggs_v1"
OPTION_QUOTES = "us_options_opra/quotes_v1"
STOCK_TRADES = "us_stocks_sip/trades_v1"
STOCK_MINUTES = "us_stocks_sip/minute_aggs_v1"
STOCK_DAYS = "us_stocks_sip/day_aggs_v1"
OPEN_INTEREST = "reference/open_interest"
CORPORATE_ACTIONS = "reference/corporate_actions.csv"
RATES = "reference/rates.csv"
CONTRACT_ROOTS = "reference/contract_roots.csv"
SECTORS = "reference/sectors.csv"

SESSION_DATASETS = (
    OPTION_TRADES,
    OPTION_MINUTES,
    OPTION_DAYS,
    OPTION_QUOTES,
    STOCK_TRADES,
    STOCK_MINUTES,
    STOCK_DAYS,
    OPEN_INTEREST,
)

DefectKind = Literal[
    "truncated_tape",
    "missing_minutes",
    "doubled_file",
    "stale_repeat",
    "republished_file",
    "bad_rows",
    "truncated_gzip",
    "missing_session",
    "missing_underlying",
    "holiday_file",
]

_NEEDS_MINUTES = frozenset({OPTION_TRADES, OPTION_MINUTES, OPTION_QUOTES, STOCK_TRADES, STOCK_MINUTES})


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong with one vendor file. The truth and all other files stay as they should be.

    - `truncated_tape`: the rows of `underlying` (all, when None) stop at `start_minute` after 09:30.
    - `missing_minutes`: the rows of `minutes` minutes from `start_minute` are absent.
    - `doubled_file`: every row is there twice, the second time after the first copy.
    - `stale_repeat`: the file repeats the rows of the session before (the session's own when it is the first).
    - `republished_file`: the first version lacks the last `fraction` of the rows; the whole file is version two.
    - `bad_rows`: `rows` rows carry a negative price, a zero size, an impossible ticker, a blank or a far-off time.
    - `truncated_gzip`: the compressed bytes stop after the first `1 - fraction`.
    - `missing_session`: the file is absent; with `dataset=None` every file of the session is.
    - `missing_underlying`: `underlying` has no row (the index fund of the market, when None).
    - `holiday_file`: a file for the first date after the session that is no session, with the session's rows.
    """

    kind: DefectKind
    session: int
    dataset: str | None = OPTION_TRADES
    underlying: str | None = None
    start_minute: int = 361
    minutes: int = 30
    fraction: float = 0.3
    rows: int = 12

    def __post_init__(self) -> None:
        if self.kind not in get_args(DefectKind):
            raise UsageError(f"unknown defect {self.kind!r}", f"known are {', '.join(get_args(DefectKind))}")
        if self.dataset is None and self.kind != "missing_session":
            raise UsageError(f"the defect {self.kind} names no dataset", "give the dataset whose file is to be wrong")
        if self.dataset is not None and self.dataset not in SESSION_DATASETS:
            raise UsageError(f"unknown dataset {self.dataset!r}", f"known are {', '.join(SESSION_DATASETS)}")
        if self.kind in ("truncated_tape", "missing_minutes") and self.dataset not in _NEEDS_MINUTES:
            raise UsageError(f"{self.dataset} has no times within a session", "choose trades, quotes or minute bars")
        if not 0.0 < self.fraction < 1.0:
            raise UsageError(f"a defect's fraction is {self.fraction}", "give a number between 0 and 1")


@dataclass(frozen=True, slots=True)
class MarketSpec:
    """Everything that decides the bytes of a market.

    `episodes` and `decoys` are densities: the expected number per 100 underlying-sessions (they are drawn in blocks
    of 12 sessions, so that a longer market begins with the shorter one). `trades_per_underlying_session` is the mean
    number of orders, before sweeps and packages multiply them into prints. `split_session` is the index of the
    session on which the fourth underlying splits 4:1, or None. Splits, dividends and episodes that fall after the
    last session do not show.

    `stock_tape_trades` is the mean number of stock trades per underlying-session of a whole tape with off-exchange stories in
    it, and bars made of it; 0 leaves stock trades to `include_stock_trades`, a sample of them.
    """

    seed: int = 44
    first_session: date = date(2024, 1, 2)
    sessions: int = 64
    underlyings: int = 12
    episodes: float = 2.0
    decoys: float = 3.0
    trades_per_underlying_session: int = 1200
    defects: tuple[Defect, ...] = ()
    include_stock: bool = True
    include_stock_trades: bool = False
    include_quotes: bool = False
    include_reference: bool = True
    split_session: int | None = 24
    stock_tape_trades: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}", "give a whole number of at least 0")
        if self.sessions < 1 or not 1 <= self.underlyings <= 400:
            raise UsageError(
                f"a market of {self.sessions} sessions and {self.underlyings} underlyings",
                "give at least one session and 1 to 400 underlyings",
            )
        if self.trades_per_underlying_session < 20:
            raise UsageError(f"trades_per_underlying_session is {self.trades_per_underlying_session}", "give at least 20")
        if self.stock_tape_trades < 0:
            raise UsageError(
                f"stock_tape_trades is {self.stock_tape_trades}", "give 0 for no whole tape, or a mean number of trades"
            )
        if not 0.0 <= self.episodes <= 8.0 or not 0.0 <= self.decoys <= 8.0:
            raise UsageError("episodes and decoys are counts per 100 underlying-sessions", "give numbers from 0 to 8")
        if not calendar.is_session(self.first_session):
            raise UsageError(f"first_session {self.first_session} is no trading day", "give a session of the exchange")
        for defect in self.defects:
            if not 0 <= defect.session < self.sessions:
                raise UsageError(
                    f"the defect {defect.kind} is on session {defect.session} of {self.sessions}",
                    "session counts from 0",
                )


@dataclass(frozen=True, slots=True)
class VendorFile:
    """One object of the bucket: its key and its bytes."""

    key: str
    body: bytes


def session_key(dataset: str, day: date) -> str:
    """The key of a dataset's file for a date: `{dataset}/YYYY/MM/YYYY-MM-DD.csv.gz`."""
    return f"{dataset}/{day:%Y/%m/%Y-%m-%d}.csv.gz"


Purpose = Literal[
    "universe", "market", "path", "tape", "story", "rates", "stock", "quotes", "open_interest", "defect", "stock_tape"
]
_PURPOSES: tuple[str, ...] = get_args(Purpose)


def generator(seed: int, purpose: Purpose, *position: int) -> np.random.Generator:
    """A random stream of its own for each purpose and position, so that no draw depends on how much else is drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _PURPOSES.index(purpose), *position])))
