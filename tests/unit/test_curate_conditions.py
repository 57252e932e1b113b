"""The sale-condition policy."""

from __future__ import annotations

import polars as pl
import pytest

from flowlake.curate.conditions import OPRA_MASSIVE, decode

CANCELS = {201, 203, 205, 207}
LATE = {202, 204, 206}
SINGLE_LEG = {208, 209, 210, 219, 227, 228, 229, 230, 231}
VOLUME_ONLY = {246, 247, 248}


def ids(flag: str) -> set[int]:
    return set(OPRA_MASSIVE.frame().filter(flag)["id"])


def test_every_id_of_the_vendor_is_there_once() -> None:
    every = OPRA_MASSIVE.frame()["id"].to_list()
    assert every == [*range(201, 211), 219, *range(227, 249)]
    assert OPRA_MASSIVE.frame()["letter"].is_unique().all()


def test_volume_price_and_direction() -> None:
    every = set(OPRA_MASSIVE.frame()["id"])
    assert ids("is_cancel") == CANCELS
    assert ids("is_late") == LATE
    assert ids("in_volume") == every - CANCELS - LATE
    assert ids("sets_price") == every - CANCELS - LATE - VOLUME_ONLY
    assert ids("may_be_signed") == SINGLE_LEG


def test_marks() -> None:
    assert ids("is_iso") == {219, 228, 230}
    assert ids("is_auction") == {227, 228}
    assert ids("is_stock_tied") == {237, 240, 241, 242, 243, 244, 245}
    assert ids("is_multi_leg") == {232, 233, 234, 235, 236, 238, 239, 246}
    assert {229, 230} <= ids("is_cross")
    assert 231 in ids("is_floor")
    assert not ids("may_be_signed") & (ids("is_multi_leg") | ids("is_stock_tied") | ids("is_late") | ids("is_cancel"))


def decoded(text: str | None) -> dict[str, object]:
    return decode(pl.Series([text], dtype=pl.String)).row(0, named=True)


@pytest.mark.parametrize("text", [None, "", " "])
def test_a_blank_condition_counts_but_may_not_be_signed(text: str | None) -> None:
    row = decoded(text)
    assert (row["condition"], row["condition_group"]) == (0, "unreported")
    assert (row["in_volume"], row["sets_price"], row["may_be_signed"]) == (True, True, False)


@pytest.mark.parametrize(("text", "condition"), [("999", 999), ("abc", 0), ("²", 0), ("9" * 30, 0)])
def test_an_unknown_condition_neither_counts_nor_signs(text: str, condition: int) -> None:
    row = decoded(text)
    assert (row["condition"], row["condition_group"]) == (condition, "unknown")
    assert not any(row[flag] for flag in ("in_volume", "sets_price", "may_be_signed", "is_cancel"))


def test_of_several_conditions_all_must_allow_and_any_marks() -> None:
    row = decoded("219, 232")
    assert (row["condition"], row["condition_group"]) == (219, "iso")
    assert row["is_iso"]
    assert row["is_multi_leg"]
    assert row["in_volume"]
    assert not row["may_be_signed"]
    assert not decoded("209,202")["in_volume"]
    assert decoded("209,207")["is_cancel"]
    assert decoded("209,248")["is_extended_hours"]
