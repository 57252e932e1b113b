"""The sale-condition policies: what each says, that no version is edited, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings, load_settings
from flowlake.curate import trades
from flowlake.curate.conditions import (
    ALL_MUST_ALLOW,
    FLAGS,
    OPRA_CONSOLIDATED,
    OPRA_CONSOLIDATED_1,
    OPRA_MASSIVE,
    OPRA_MASSIVE_1,
    POLICIES,
    ConditionPolicy,
    decode,
    policy_given,
    policy_named,
    sale_conditions,
)
from flowlake.curate.vendor_codes import DATASHOP_CONDITIONS, THETADATA_CONDITIONS
from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.policies import CONDITION_POLICY, LATE_IN_BARS, SALE_CONDITIONS
from flowlake.lake.hashing import data_hash
from flowlake.quality.audit import audit

SESSION = date(2024, 3, 4)
CANCELS = {201, 203, 205, 207}
UNCOUNTED = {202, 204, 206}
LATE_OPENING = {208}
LATE = UNCOUNTED | LATE_OPENING
SINGLE_LEG = {209, 210, 219, 227, 228, 229, 230, 231}
VOLUME_ONLY = {246, 247, 248}
COMPRESSION = {247}


def ids(flag: str, policy: ConditionPolicy = OPRA_MASSIVE) -> set[int]:
    return set(policy.frame().filter(flag)["id"])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.label)
def test_every_id_of_the_vendor_is_there_once(policy: ConditionPolicy) -> None:
    every = policy.frame()["id"].to_list()
    assert every == [*range(201, 211), 219, *range(227, 249)]
    assert policy.frame()["letter"].is_unique().all()


def test_volume_price_and_direction() -> None:
    every = set(OPRA_MASSIVE.frame()["id"])
    assert ids("is_cancel") == CANCELS
    assert ids("is_late") == LATE
    assert ids("in_volume") == every - CANCELS - UNCOUNTED
    assert ids("sets_price") == every - CANCELS - UNCOUNTED - VOLUME_ONLY
    assert ids("may_be_signed") == SINGLE_LEG
    assert ids("in_baseline") == every - CANCELS - LATE - COMPRESSION


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.label)
def test_marks(policy: ConditionPolicy) -> None:
    is_first = policy.version == 1
    assert ids("is_single_leg", policy) == (SINGLE_LEG | LATE_OPENING if is_first else SINGLE_LEG)
    assert ids("is_iso", policy) == {219, 228, 230}
    assert ids("is_auction", policy) == ({227, 228} if is_first else {227, 228, 233, 237, 238, 244})
    assert ids("is_cross", policy) == {229, 230, 234, 241}
    assert ids("is_floor", policy) == {231, 235, 239, 242, 245, 246}
    assert ids("is_stock_tied", policy) == {237, 240, 241, 242, 243, 244, 245}
    assert ids("is_multi_leg", policy) == {232, 233, 234, 235, 236, 238, 239, 246}
    legs = [ids(flag, policy) for flag in ("is_single_leg", "is_multi_leg", "is_stock_tied")]
    assert sum(map(len, legs)) == len(set.union(*legs)), "one kind of legs each"
    assert not ids("may_be_signed", policy) & (legs[1] | legs[2] | ids("is_late", policy) | ids("is_cancel", policy))
    assert ids("may_be_signed", policy) <= ids("in_baseline", policy) <= ids("in_volume", policy)
    assert ids("sets_price", policy) <= ids("in_volume", policy)


def test_the_policies_differ_in_late_prints_alone() -> None:
    assert ids("in_volume", OPRA_CONSOLIDATED) - ids("in_volume") == UNCOUNTED
    assert ids("sets_price", OPRA_CONSOLIDATED) - ids("sets_price") == {204}, "the only one that is in sequence"
    same = [flag for flag in FLAGS if flag not in ("in_volume", "sets_price")]
    assert OPRA_CONSOLIDATED.frame().select("id", *same).equals(OPRA_MASSIVE.frame().select("id", *same))


@pytest.mark.parametrize(
    ("first", "second"), [(OPRA_MASSIVE_1, OPRA_MASSIVE), (OPRA_CONSOLIDATED_1, OPRA_CONSOLIDATED)], ids=lambda p: p.label
)
def test_the_second_versions_tell_late_openings_and_auctions_of_legs(first: ConditionPolicy, second: ConditionPolicy) -> None:
    changed = {flag: ids(flag, first) ^ ids(flag, second) for flag in FLAGS if ids(flag, first) != ids(flag, second)}
    lateness = dict.fromkeys(("is_late", "may_be_signed", "in_baseline", "is_single_leg"), LATE_OPENING)
    assert changed == {**lateness, "is_auction": {233, 237, 238, 244}}
    assert {"in_volume", "sets_price"}.isdisjoint(changed), "bars agree as before"
    groups = (policy.frame().select("id", "group").rows() for policy in (first, second))
    assert set(next(groups)) ^ set(next(groups)) == {(208, "regular"), (208, "late")}


def test_what_the_bars_count_of_late_prints() -> None:
    """`opra-massive` follows the vendor of the bars."""
    assert ids("is_late") & ids("in_volume") == LATE_IN_BARS


HASHES = {
    "opra-massive@1": "cab87c569c83052c",
    "opra-consolidated@1": "4cbc54ccb1b7cbad",
    "opra-massive@2": "0272309bd294d7bf",
    "opra-consolidated@2": "39c6afb698d21993",
}


def test_a_version_is_never_edited() -> None:
    """A change of the rows below is a new version beside the old one: partitions name the version that they were made with."""
    assert {policy.label: data_hash(policy.table())[:16] for policy in POLICIES} == HASHES


# --- The dataset ---------------------------------------------------------------------------------------------------


def test_the_dataset_has_a_row_per_policy_version_and_condition() -> None:
    table = SALE_CONDITIONS.conform(sale_conditions({}, SESSION).tables["sale_conditions"], SESSION)
    assert audit(SALE_CONDITIONS, table, SESSION).success
    assert table.height == len(POLICIES) * 34
    late = table.filter(pl.col("letter") == "D").select("policy", "version", "in_volume", "sets_price", "in_baseline")
    assert late.rows() == [
        *(("opra-consolidated", version, True, True, False) for version in (1, 2)),
        *(("opra-massive", version, False, False, False) for version in (1, 2)),
    ]
    blank = table.filter((pl.col("condition") == 0) & (pl.col("policy") == "opra-massive"))
    assert blank.select("condition_group", "in_volume", "may_be_signed", "is_single_leg").row(0) == (
        "unreported",
        True,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("column", "codes"), [("thetadata_ids", THETADATA_CONDITIONS), ("datashop_ids", DATASHOP_CONDITIONS)], ids=str
)
def test_the_dataset_says_what_vendors_call_a_condition(column: str, codes: Mapping[int, int]) -> None:
    """Every id of the table that translates is there once in each policy, and no other."""
    table = SALE_CONDITIONS.conform(sale_conditions({}, SESSION).tables["sale_conditions"], SESSION)
    for policy in POLICIES:
        rows = table.filter((pl.col("policy") == policy.name) & (pl.col("version") == policy.version))
        told = rows.select("condition", column).explode(column).drop_nulls().rows()
        assert sorted((vendor, ours) for ours, vendor in told) == sorted(codes.items())


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.label)
def test_a_policy_survives_as_a_table(policy: ConditionPolicy) -> None:
    assert policy_given({CONDITION_POLICY: policy.table()}) == policy
    assert policy_given({}) == OPRA_MASSIVE


def test_a_print_without_a_condition_decodes_as_its_row_says() -> None:
    row = OPRA_MASSIVE.table().filter(pl.col("condition") == 0).row(0, named=True)
    assert {flag: decoded(None)[flag] for flag in FLAGS} == {flag: row[flag] for flag in FLAGS}


def test_a_policy_is_chosen_by_name_or_version() -> None:
    assert policy_named("opra-massive") == policy_named("opra-massive@2") == OPRA_MASSIVE
    assert policy_named("opra-massive@1") == OPRA_MASSIVE_1
    assert policy_named(Settings().condition_policy) == OPRA_MASSIVE
    assert policy_named(load_settings({"FLOWLAKE_CONDITION_POLICY": "opra-consolidated"}).condition_policy) == OPRA_CONSOLIDATED
    for text in ("opra", "opra-massive@3", "@1", "", "opra-massive@"):
        with pytest.raises(UsageError, match="there is no condition policy"):
            policy_named(text)


# --- Decoding ------------------------------------------------------------------------------------------------------


def decoded(text: str | None, policy: ConditionPolicy = OPRA_MASSIVE) -> dict[str, object]:
    return decode(pl.Series([text], dtype=pl.String), policy).row(0, named=True)


@pytest.mark.parametrize("text", [None, "", " "])
def test_a_blank_condition_counts_but_may_not_be_signed(text: str | None) -> None:
    row = decoded(text)
    assert (row["condition"], row["condition_group"]) == (0, "unreported")
    assert (row["in_volume"], row["sets_price"], row["may_be_signed"]) == (True, True, False)
    assert (row["in_baseline"], row["is_single_leg"]) == (True, False)


@pytest.mark.parametrize(("text", "condition"), [("999", 999), ("abc", 0), ("²", 0), ("9" * 30, 0)])
def test_an_unknown_condition_neither_counts_nor_signs(text: str, condition: int) -> None:
    row = decoded(text)
    assert (row["condition"], row["condition_group"]) == (condition, "unknown")
    assert not any(row[flag] for flag in (*ALL_MUST_ALLOW, "is_cancel"))


def test_of_several_conditions_all_must_allow_and_any_marks() -> None:
    row = decoded("219, 232")
    assert (row["condition"], row["condition_group"]) == (219, "iso")
    assert row["is_iso"]
    assert row["is_multi_leg"]
    assert row["in_volume"]
    assert not row["may_be_signed"]
    assert not row["is_single_leg"]
    assert not decoded("209,202")["in_volume"]
    assert not decoded("209,247")["in_baseline"]
    assert decoded("209,207")["is_cancel"]
    assert decoded("209,248")["is_extended_hours"]


def test_the_other_policy_keeps_what_was_reported_late() -> None:
    massive, consolidated = (decoded("204", policy) for policy in (OPRA_MASSIVE, OPRA_CONSOLIDATED))
    assert (massive["in_volume"], massive["sets_price"]) == (False, False)
    assert (consolidated["in_volume"], consolidated["sets_price"]) == (True, True)
    for row in (massive, consolidated):
        assert (row["is_late"], row["may_be_signed"], row["in_baseline"]) == (True, False, False)
    assert not decoded("204,247", OPRA_CONSOLIDATED)["sets_price"]


def test_curation_follows_the_policy_that_it_is_given() -> None:
    raw = pl.DataFrame(
        {
            "ticker": ["O:SPY240315C00500000"] * 4,
            "conditions": ["209", "204", "202", "208"],
            "correction": ["0"] * 4,
            "exchange": [302] * 4,
            "participant_timestamp": [None] * 4,
            "price": [1.0, 2.0, 3.0, 4.0],
            "sip_timestamp": [1_709_566_200_000_000_000 + i * 10**9 for i in range(4)],
            "size": [1.0, 2.0, 3.0, 4.0],
            "row": [0, 1, 2, 3],
            "session": [SESSION] * 4,
        },
        schema_overrides={"participant_timestamp": pl.Int64},
    )
    contracts = pl.DataFrame(
        {
            "contract": ["SPY240315C00500000"],
            "underlying": ["SPY"],
            "root": ["SPY"],
            "expiry": [date(2024, 3, 15)],
            "right": ["C"],
            "strike": [500.0],
            "multiplier": [100.0],
        }
    )
    counted = {}
    for policy in POLICIES:
        inputs = {trades.SOURCE: raw, "contracts": contracts, CONDITION_POLICY: policy.table()}
        table = OPTION_TRADES.conform(trades.option_trades(inputs, SESSION).tables["option_trades"], SESSION)
        assert audit(OPTION_TRADES, table, SESSION).success
        flags = ("in_volume", "sets_price", "in_baseline", "may_be_signed", "is_late")
        counted[policy.label] = [[i for i, held in enumerate(table[flag]) if held] for flag in flags]
    assert counted == {
        "opra-massive@1": [[0, 3], [0, 3], [0, 3], [0, 3], [1, 2]],
        "opra-consolidated@1": [[0, 1, 2, 3], [0, 1, 3], [0, 3], [0, 3], [1, 2]],
        "opra-massive@2": [[0, 3], [0, 3], [0], [0], [1, 2, 3]],
        "opra-consolidated@2": [[0, 1, 2, 3], [0, 1, 3], [0], [0], [1, 2, 3]],
    }
