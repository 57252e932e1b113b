"""Option roots whose terms their letters do not tell, and the underlyings that are indexes of volatility.

Source of the index terms: the contract specifications of Cboe and Nasdaq.
"""

from __future__ import annotations

_EUROPEAN_AM = ("european", "am")
_EUROPEAN_PM = ("european", "pm")
AMERICAN_PM = ("american", "pm")
KNOWN_ROOTS = {
    "SPX": ("SPX", *_EUROPEAN_AM),
    "SPXW": ("SPX", *_EUROPEAN_PM),
    "SPXPM": ("SPX", *_EUROPEAN_PM),
    "XSP": ("XSP", *_EUROPEAN_PM),
    "OEX": ("OEX", *AMERICAN_PM),
    "XEO": ("OEX", *_EUROPEAN_PM),
    "VIX": ("VIX", *_EUROPEAN_AM),
    "VIXW": ("VIX", *_EUROPEAN_AM),
    "NDX": ("NDX", *_EUROPEAN_AM),
    "NDXP": ("NDX", *_EUROPEAN_PM),
    "XND": ("XND", *_EUROPEAN_PM),
    "RUT": ("RUT", *_EUROPEAN_AM),
    "RUTW": ("RUT", *_EUROPEAN_PM),
    "MRUT": ("MRUT", *_EUROPEAN_PM),
    "DJX": ("DJX", *_EUROPEAN_AM),
    # The root cannot spell the dot of these share classes.
    "BRKB": ("BRK.B", *AMERICAN_PM),
    "BFB": ("BF.B", *AMERICAN_PM),
}
"""Root -> underlying, exercise, settlement."""
VOLATILITY_INDEXES = ("VIX",)
"""Underlyings of `KNOWN_ROOTS` that measure volatility: they rise where stocks fall, and their calls are bought against a fall."""
