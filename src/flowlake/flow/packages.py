"""Packages: prints of several contracts that are one order, and what the order is called.

The tape marks a print as the leg of a package, never which package. Legs of one package are printed by one exchange under one
condition within moments, so prints are put together by these, taken apart by size where two packages met, and named by right,
strike, expiry and ratio of the legs. Where a name needs sides, it is given with its probability; where they are not known, both
names that are possible are given. The two sides of a structure (bought or sold) are weighed together: a vertical has one leg bought
and one sold, so what is known of either says something about both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.datasets.packets import (
    LARGEST_RATIO,
    PACKAGE_GAP_MS,
    PACKAGE_SPAN_MS,
    ROLL_CONTRACTS,
    ROLL_DAYS,
    ROLL_SHARE,
    STRUCTURES,
)
from flowlake.quant._compile import kernel

NS_PER_MS = 1_000_000
SURE_PAIR = 0.6
"""Probability from which a call and a put are said to go together, or against each other."""
LEG_SLOPE = 2.0
"""Log odds that a leg was bought, per half spread that it was printed above the midpoint. A declared figure, far below the 6.5 that
the synthetic market gives: legs are priced to fit the package, and by any rule about half of them were misclassified in real index
options (Savickas and Wilson, Journal of Financial and Quantitative Analysis 38, 2003)."""
NAMELESS = ("", "other_legs_not_found", "sides_unknown", "no_structure_of_that_shape", "no_small_ratio")
"""Why a package has no name or two, by its number in `Named.nameless`."""

_CLAMP = 0.02
_VERTICAL, _RATIO, _STRADDLE, _STRANGLE, _SYNTHETIC, _RISK_REVERSAL = (
    STRUCTURES.index(name) for name in ("vertical", "ratio", "straddle", "strangle", "synthetic", "risk_reversal")
)
_STRADDLE_OR_SYNTHETIC, _STRANGLE_OR_RISK_REVERSAL = (
    STRUCTURES.index(name) for name in ("straddle_or_synthetic", "strangle_or_risk_reversal")
)
_CALENDAR, _DIAGONAL, _ROLL = (STRUCTURES.index(name) for name in ("calendar", "diagonal", "roll"))
_BUTTERFLY, _LADDER, _CONDOR, _IRON_CONDOR = (STRUCTURES.index(name) for name in ("butterfly", "ladder", "condor", "iron_condor"))
_STOCK_TIED, _OTHER = (STRUCTURES.index(name) for name in ("stock_tied", "other_package"))
_LONE_LEG, _SIDES_UNKNOWN, _NO_SHAPE, _NO_RATIO = range(1, len(NAMELESS))


@dataclass(frozen=True)
class Legs:
    """Legs of packages as arrays of one length, in the order of package, expiry, right (call first), strike and contract.

    `package` counts from 0 without a gap. `contract` and `root` are the caller's numbers, `adjusted` tells apart what contracts
    deliver (0: the ordinary), `size` contracts, `premium` unsigned (ten-thousandths
    of a dollar), `buy_probability` NaN where it is not known, `open_interest` of the close before, negative where it is not known.
    """

    package: Int
    contract: Int
    root: Int
    adjusted: Int
    expiry: Int
    right: Int
    strike: Int
    size: Int
    premium: Int
    buy_probability: Float
    open_interest: Int


@dataclass(frozen=True)
class Named:
    """What packages are. Per package: number in `STRUCTURES`, probability of the name (NaN: needs no sides, or none is given),
    number of packages (greatest common divisor), probability that who began it paid on balance, net premium expected
    (ten-thousandths of a dollar; both NaN where not known), number in `NAMELESS`. Per leg: ratio, and sign as who paid on balance
    holds it (0 unknown).
    """

    structure: Int
    name_probability: Float
    size: Int
    pay_probability: Float
    net_premium: Float
    nameless: Int
    ratio: Int
    sign: Int


def leg_probability(price: Int, bid: Int, ask: Int) -> Float:
    """Probability that each leg was bought, from its place between a bid and a higher ask; all in the same whole units."""
    place = np.clip((2.0 * price - bid - ask) / (ask - bid), -1.0, 1.0)
    return np.asarray(1.0 / (1.0 + np.exp(-LEG_SLOPE * place)))


def group(underlying: Int, venue: AnyArray, condition: Int, contract: Int, ts: Int, size: Int) -> Int:
    """Number of each print's package, from 0, whatever the order of the prints.

    All arguments have one entry per print; `ts` in nanoseconds.
    """
    order = np.lexsort((contract, ts, condition, venue, underlying))
    cluster = np.empty(order.size, np.int64)
    cluster[order] = _clusters(
        underlying[order],
        venue[order].astype(np.int64),
        condition[order],
        ts[order],
        PACKAGE_GAP_MS * NS_PER_MS,
        PACKAGE_SPAN_MS * NS_PER_MS,
    )
    order = np.lexsort((contract, size, cluster))
    package = np.empty(order.size, np.int64)
    package[order] = _parts(cluster[order], size[order], contract[order])
    return package


def name(legs: Legs, packages: int, session_days: int, stock_tied: Bool) -> Named:
    """Name each of the `packages`; `stock_tied` has one entry per package, `session_days` is the session in the unit of
    `expiry`."""
    start = np.searchsorted(legs.package, np.arange(packages + 1))
    p = np.clip(legs.buy_probability, _CLAMP, 1.0 - _CLAMP)
    structure, nameless, size = (np.zeros(packages, np.int64) for _ in range(3))
    alike = np.ones(packages, np.bool_)
    _alike(start, legs.root, legs.adjusted, legs.expiry, alike)
    named, paid, net = (np.full(packages, np.nan) for _ in range(3))
    ratio, sign = np.ones(legs.package.size, np.int64), np.zeros(legs.package.size, np.int64)
    _name(
        start, alike, legs.expiry, legs.right, legs.strike, legs.size, legs.premium, p, legs.open_interest, stock_tied,
        session_days + ROLL_DAYS, structure, named, size, paid, net, nameless, ratio, sign,
    )  # fmt: skip
    return Named(structure, named, size, paid, net, nameless, ratio, sign)


@kernel
def _clusters(underlying: Int, venue: Int, condition: Int, ts: Int, gap: int, span: int) -> Int:
    """Number of each print's cluster: one underlying, venue and condition, moments apart. In the order of these and time."""
    found = np.zeros(ts.size, np.int64)
    number, first = 0, 0
    for i in range(1, ts.size):
        if (
            underlying[i] != underlying[i - 1]
            or venue[i] != venue[i - 1]
            or condition[i] != condition[i - 1]
            or ts[i] - ts[i - 1] > gap
            or ts[i] - ts[first] > span
        ):
            number += 1
            first = i
        found[i] = number
    return found


@kernel
def _parts(cluster: Int, size: Int, contract: Int) -> Int:
    """Number of each print's package. In the order of cluster, size and contract.

    Prints of one size are a package where every size of the cluster covers several contracts: then several packages met. Sizes that
    cover the same contracts are fills of one package. Where a size has but one contract, its legs have a ratio: the cluster is one.
    """
    count = cluster.size
    found = np.zeros(count, np.int64)
    number = 0
    i = 0
    while i < count:
        end = i
        while end < count and cluster[end] == cluster[i]:
            end += 1
        # Classes of equal size: where each begins, and what stands for its set of contracts.
        begins = np.empty(end - i + 1, np.int64)
        sets = np.empty(end - i, np.uint64)
        classes = 0
        is_apart = True
        j = i
        while j < end:
            begins[classes] = j
            covered = 0
            mixed = np.uint64(1469598103934665603)
            k = j
            while k < end and size[k] == size[j]:
                if k == j or contract[k] != contract[k - 1]:
                    covered += 1
                    mixed = (mixed ^ np.uint64(contract[k])) * np.uint64(1099511628211)
                k += 1
            is_apart = is_apart and covered > 1
            sets[classes] = mixed
            classes += 1
            j = k
        begins[classes] = end
        if not is_apart or classes == 1:
            found[i:end] = number
            number += 1
        else:
            own = np.empty(classes, np.int64)
            for c in range(classes):
                own[c] = -1
                for earlier in range(c):
                    if sets[earlier] == sets[c]:
                        own[c] = own[earlier]
                        break
                if own[c] < 0:
                    own[c] = number
                    number += 1
                found[begins[c] : begins[c + 1]] = own[c]
        i = end
    return found


@kernel
def _divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@kernel
def _alike(start: Int, root: Int, adjusted: Int, expiry: Int, alike: Bool) -> None:
    """False for packages of legs that no structure has together: of what an adjusted and an ordinary contract deliver, and of two
    roots that end on one day, which settle at its opening and at its close."""
    for k in range(alike.size):
        for j in range(start[k] + 1, start[k + 1]):
            if adjusted[j] != adjusted[j - 1] or (root[j] != root[j - 1] and expiry[j] == expiry[j - 1]):
                alike[k] = False


@kernel
def _name(
    start: Int, alike: Bool, expiry: Int, right: Int, strike: Int, size: Int, premium: Int, p: Float, open_interest: Int,
    stock_tied: Bool, roll_until: int, structure: Int, named: Float, packages: Int, paid: Float, net: Float, nameless: Int,
    ratio: Int, sign: Int,
) -> None:  # fmt: skip
    """Fill the arrays of `Named`. `start` has one more entry than there are packages; `p` is within its clamp, or NaN."""
    for k in range(packages.size):
        a, b = start[k], start[k + 1]
        n = b - a
        common = size[a]
        for j in range(a + 1, b):
            common = _divisor(common, size[j])
        packages[k] = common
        largest, sided = 0, 0
        for j in range(a, b):
            ratio[j] = size[j] // common
            largest = max(largest, ratio[j])
            sided += 0 if math.isnan(p[j]) else 1
        one_right, one_expiry, even, rising = True, True, True, True
        for j in range(a + 1, b):
            one_right = one_right and right[j] == right[a]
            one_expiry = one_expiry and expiry[j] == expiry[a]
            even = even and ratio[j] == ratio[a]
            rising = rising and (right[j] != right[j - 1] or expiry[j] != expiry[j - 1] or strike[j] > strike[j - 1])
        found, why = _OTHER, 0
        if n == 1:
            why = _LONE_LEG
            sign[a] = 1
        elif largest > LARGEST_RATIO:
            why = _NO_RATIO
        elif not (alike[k] and rising):
            why = _NO_SHAPE
        elif n == 2 and one_right and one_expiry:
            found = _VERTICAL if even else _RATIO
            sign[a], sign[a + 1] = 1, -1
        elif n == 2 and one_right and not even:
            found = _RATIO
            sign[a], sign[a + 1] = 1, -1
        elif n == 2 and one_right:
            found = _CALENDAR if strike[a] == strike[a + 1] else _DIAGONAL
            moved = ROLL_SHARE * open_interest[a] <= size[a] <= open_interest[a]
            if expiry[a] <= roll_until and size[a] >= ROLL_CONTRACTS and moved:
                found = _ROLL
            sign[a], sign[a + 1] = -1, 1
        elif n == 2 and one_expiry and even:
            together = math.nan
            if sided == 2:
                together = p[a] * p[a + 1] + (1.0 - p[a]) * (1.0 - p[a + 1])
            same_strike = strike[a] == strike[a + 1]
            if together >= SURE_PAIR:
                found = _STRADDLE if same_strike else _STRANGLE
                sign[a], sign[a + 1] = 1, 1
                named[k] = together
            elif together <= 1.0 - SURE_PAIR:
                found = _SYNTHETIC if same_strike else _RISK_REVERSAL
                sign[a], sign[a + 1] = 1, -1
                named[k] = 1.0 - together
            else:
                found = _STRADDLE_OR_SYNTHETIC if same_strike else _STRANGLE_OR_RISK_REVERSAL
                why = _SIDES_UNKNOWN
        elif n == 3 and one_right and one_expiry:
            if ratio[a + 1] == ratio[a] + ratio[a + 2]:
                found = _BUTTERFLY
                sign[a], sign[a + 1], sign[a + 2] = 1, -1, 1
            elif even:
                found = _LADDER
                is_call = right[a] > 0
                sign[a], sign[a + 1], sign[a + 2] = 1 if is_call else -1, -1, -1 if is_call else 1
        elif n == 4 and one_expiry and even:
            if one_right:
                found = _CONDOR
                sign[a], sign[a + 1], sign[a + 2], sign[a + 3] = 1, -1, -1, 1
            elif right[a] > 0 and right[a + 1] > 0 and right[a + 2] < 0 and strike[a + 3] <= strike[a]:
                found = _IRON_CONDOR
                sign[a], sign[a + 1], sign[a + 2], sign[a + 3] = -1, 1, 1, -1
        if stock_tied[k]:
            found, why = _STOCK_TIED, 0
            named[k] = math.nan
            for j in range(a, b):
                sign[j] = sign[j] if n == 1 else 0
        structure[k] = found
        nameless[k] = _NO_SHAPE if found == _OTHER and why == 0 else why
        if sign[a] == 0:
            total = 0.0
            for j in range(a, b):
                if not math.isnan(p[j]):
                    total += (2.0 * p[j] - 1.0) * premium[j]
            if sided:
                net[k] = total
            continue
        balance, weight = 0, 0.0
        for j in range(a, b):
            balance += sign[j] * premium[j]
            if not math.isnan(p[j]):
                weight += sign[j] * math.log(p[j] / (1.0 - p[j]))
        if balance < 0:
            balance, weight = -balance, -weight
            for j in range(a, b):
                sign[j] = -sign[j]
        if sided:
            paid[k] = round(1e6 / (1.0 + math.exp(-weight))) / 1e6
            net[k] = (2.0 * paid[k] - 1.0) * balance
