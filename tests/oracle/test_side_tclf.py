"""The classical rules against the package `tclf`, an implementation of its own: every rule, on random tapes with holes in them."""

from __future__ import annotations

import numpy as np
import pytest
from tclf.classical_classifier import ClassicalClassifier

from flowlake.core.arrays import Float
from flowlake.flow import side
from flowlake.flow._side import Sides

COUNT = 4_000
Tape = dict[str, Float]


def neighbour(price: Float) -> Float:
    """The last price before each that differs, found by looking back one by one."""
    found = np.full(price.size, np.nan)
    for i in range(price.size):
        for j in range(i - 1, -1, -1):
            if price[j] != price[i] and not np.isnan(price[j]) and not np.isnan(price[i]):
                found[i] = price[j]
                break
    return found


def tape(seed: int, unit: float) -> Tape:
    """Prints at, between, on and outside their quotes; some quotes locked, crossed, one-sided or absent; sizes often equal.

    `unit` 1 counts in whole ticks; 0.01 makes dollars, with all that doubles do to midpoints.
    """
    rng = np.random.default_rng(seed)
    made: Tape = {}
    for subset in ("best", "ex"):
        bid = rng.integers(95, 105, COUNT).astype(np.float64)
        ask = bid + rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 10.0], COUNT, p=[0.03, 0.03, 0.1, 0.2, 0.2, 0.14, 0.2, 0.1])
        bid[rng.random(COUNT) < 0.05] = np.nan
        ask[rng.random(COUNT) < 0.05] = np.nan
        made |= {f"bid_{subset}": bid * unit, f"ask_{subset}": ask * unit}
        made |= {f"{s}_size_{subset}": rng.choice([1.0, 2.0, 5.0, 10.0, np.nan], COUNT) for s in ("bid", "ask")}
    made["trade_price"] = rng.integers(2 * 92, 2 * 115, COUNT) / 2.0 * unit
    at = rng.random(COUNT)
    made["trade_price"] = np.select(
        [at < 0.2, at < 0.4, at < 0.55, at < 0.6],
        [made["bid_best"], made["ask_best"], 0.5 * (made["bid_best"] + made["ask_best"]), made["bid_ex"]],
        made["trade_price"],
    )
    made["trade_price"] = np.where(np.isnan(made["trade_price"]), 100.0 * unit, made["trade_price"])
    made["trade_size"] = rng.choice([1.0, 2.0, 5.0, 10.0], COUNT)
    made["price_all_lag"] = neighbour(made["trade_price"])
    made["price_all_lead"] = neighbour(made["trade_price"][::-1])[::-1]
    return made | {"price_best_lag": made["price_all_lag"], "price_best_lead": made["price_all_lead"]}


def oracle(made: Tape, *layers: tuple[str, str]) -> Sides:
    columns = list(made)
    table = np.column_stack([made[column] for column in columns])
    classifier = ClassicalClassifier(layers=list(layers), features=columns, strategy="const")
    return np.asarray(classifier.fit(table).predict(table), dtype=np.int8)


def ours(rule: str, made: Tape) -> Sides:
    price, bid, ask = made["trade_price"], made["bid_best"], made["ask_best"]
    sizes = (made["bid_size_best"], made["ask_size_best"])
    match rule:
        case "tick":
            return side.tick(price)
        case "rev_tick":
            return side.reverse_tick(price)
        case "quote":
            return side.quote(price, bid, ask)
        case "lr":
            return side.lee_ready(price, bid, ask)
        case "emo":
            return side.emo(price, bid, ask)
        case "clnv":
            return side.clnv(price, bid, ask)
        case "depth":
            return side.depth(price, bid, ask, *sizes)
        case _:
            return side.trade_size(price, made["trade_size"], *sizes)


@pytest.mark.parametrize("unit", [1.0, 0.01], ids=["ticks", "dollars"])
@pytest.mark.parametrize("rule", ["tick", "rev_tick", "quote", "lr", "emo", "clnv", "depth", "trade_size"])
def test_every_rule(rule: str, unit: float) -> None:
    made = tape(7, unit)
    subset = "all" if "tick" in rule else "best"
    expected = oracle(made, (rule, subset))
    found = ours(rule, made)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)
    assert {-1, 1} <= set(found.tolist())


@pytest.mark.parametrize("unit", [1.0, 0.01], ids=["ticks", "dollars"])
def test_the_stacked_rule(unit: float) -> None:
    made = tape(8, unit)
    layers = (("trade_size", "ex"), ("quote", "best"), ("quote", "ex"), ("depth", "best"), ("depth", "ex"))
    sizes = ("bid_size_best", "ask_size_best")
    arguments = [made[c] for c in ("trade_price", "trade_size", "bid_best", "ask_best", *sizes)]
    venue = [made[c] for c in ("bid_ex", "ask_ex", "bid_size_ex", "ask_size_ex")]
    np.testing.assert_array_equal(side.gsu(*arguments, *venue), oracle(made, *layers, ("rev_tick", "all")))
    np.testing.assert_array_equal(side.gsu(*arguments, *venue, look_ahead=False), oracle(made, *layers, ("tick", "all")))
    alone = (("trade_size", "best"), ("quote", "best"), ("depth", "best"), ("rev_tick", "all"))
    np.testing.assert_array_equal(side.gsu(*arguments), oracle(made, *alone))
