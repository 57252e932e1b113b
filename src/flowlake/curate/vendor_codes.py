"""What other vendors call the exchanges and the sale conditions of OPRA, in the ids that the lake uses.

The lake's exchange id is 300 + the place of the OPRA letter in the alphabet; its condition ids are those of `conditions`. An id
that a table lacks is unknown: exchange 0, and a condition that no policy counts. Sources: the vendors' own lists of codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

UNKNOWN_EXCHANGE = 0
UNKNOWN_CONDITION = "unknown"

_AMEX, _BOX, _CBOE, _EMLD, _EDGX, _GEMX, _ISE, _MRX, _MIAX, _ARCA = 300, 301, 302, 303, 304, 307, 308, 309, 312, 313
_PEARL, _NOM, _SPHR, _BX, _MEMX, _C2, _PHLX, _BZX = 315, 316, 318, 319, 320, 322, 323, 325

DATABENTO_VENUES: Mapping[int, int] = {
    20: _AMEX,
    21: _BOX,
    22: _CBOE,
    23: _EMLD,
    24: _EDGX,
    25: _GEMX,
    26: _ISE,
    27: _MRX,
    28: _MIAX,
    29: _ARCA,
    31: _PEARL,
    32: _NOM,
    33: _BX,
    34: _C2,
    35: _PHLX,
    36: _BZX,
    37: _MEMX,
    61: _SPHR,
}
"""Publisher ids of the dataset OPRA.PILLAR. 30 is the consolidated feed: no venue."""
DATABENTO_CONSOLIDATED = 30

_NANEX_EXCHANGES = {
    1: _NOM,
    4: _AMEX,
    5: _CBOE,
    6: _ISE,
    7: _ARCA,
    9: _PHLX,
    11: _BOX,
    22: _MRX,
    31: _GEMX,
    42: _C2,
    43: _MIAX,
    47: _BX,
    60: _BZX,
    65: _EDGX,
    69: _PEARL,
}
"""ThetaData and DataShop grew from one list; the exchanges that opened later have an id of their own at each."""
THETADATA_EXCHANGES: Mapping[int, int] = {**_NANEX_EXCHANGES, 46: _EMLD, 73: _MEMX, 76: _SPHR}
DATASHOP_EXCHANGES: Mapping[int, int] = {**_NANEX_EXCHANGES, 71: _EMLD, 120: _MEMX}

_AUTOMATIC, _SPREAD, _BUY_WRITE, _SINGLE_LEG_AUCTION, _COMPRESSION, _EXTENDED_HOURS = 209, 232, 240, 227, 247, 248
_OLD_CONDITIONS = {
    0: _AUTOMATIC,  # OPRA prints nothing for a regular trade and the lake has no id for it; both decode as `regular`
    2: 202,
    5: 208,
    6: 206,
    13: 204,
    18: _AUTOMATIC,
    21: 210,
    35: _SPREAD,
    36: _SPREAD,  # straddle
    37: _BUY_WRITE,
    38: _SPREAD,  # combination
    40: 201,
    41: 203,
    42: 205,
    43: 207,
    44: 201,  # of a stopped trade, for which OPRA has no letter
    95: 219,
}
_LETTERS = 20
"""Conditions a to t, which both vendors number one after the other, in the order of OPRA."""
THETADATA_CONDITIONS: Mapping[int, int] = {
    **_OLD_CONDITIONS,
    118: _EXTENDED_HOURS,
    **{125 + i: _SINGLE_LEG_AUCTION + i for i in range(_LETTERS)},
    147: _COMPRESSION,
    148: _EXTENDED_HOURS,
}
THETADATA_NONE = 255
"""Stands in `ext_condition1` to `ext_condition4` where there is no further condition."""
DATASHOP_CONDITIONS: Mapping[int, int] = {
    **_OLD_CONDITIONS,
    **{114 + i: _SINGLE_LEG_AUCTION + i for i in range(_LETTERS)},
    136: _COMPRESSION,
    137: _EXTENDED_HOURS,
}


def exchange(column: str, table: Mapping[int, int]) -> pl.Expr:
    """The lake's exchange id of a vendor's; 0 for one that the table lacks."""
    return pl.col(column).replace_strict(table, default=UNKNOWN_EXCHANGE, return_dtype=pl.Int64)


def condition(column: str, table: Mapping[int, int], none: int | None = None) -> pl.Expr:
    """The lake's condition id as text; `unknown` for one that the table lacks, null where there is none or it is `none`."""
    texts = {vendor: str(ours) for vendor, ours in table.items()}
    told = pl.col(column).replace_strict(texts, default=UNKNOWN_CONDITION, return_dtype=pl.String)
    return pl.when(pl.col(column).is_not_null() & pl.col(column).ne_missing(none)).then(told)
