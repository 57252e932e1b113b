"""The compiled part of `american`: what early exercise is worth, on a grid in price and time.

The stock without its escrowed dividends, over its forward, is a lognormal martingale M that starts at 1. On the nodes
M = exp(j h), j = -20 to 19, it moves up, down or not at all in a step; the probabilities keep the first two moments, and h is such
that a full step stays with probability 2/3, where the fourth moment is right as well (Kamrad and Ritchken, "Multinomial
approximating models for options with k state variables", Management Science 37, 1991, the case lambda^2 = 3). M has no drift, so
nothing happens to it at an ex-date, and steps of unequal length share the nodes: every span between two ex-dates is divided into
steps of its own, and a step ends on each ex-date. On the first and the last node the value is taken as linear in M.

Three values are rolled back side by side: A may be exercised after every step, B after every second step, E never. The first step
before the expiry is the European formula, which smooths the payoff. The answer is

    European formula + (2 A - B - E):

E takes away the error that the grid makes without exercise, 2 A - B the error of exercising at steps only, which is linear in the
length of a step (Geske and Johnson, "The American put option valued analytically", Journal of Finance 39, 1984). A call without
yield is exercised just before an ex-date or never: it needs neither B nor the grid after the last ex-date, where the European
formula is right. There the larger of two values has a kink between two nodes; both are raised by what makes sums over the nodes
equal to the integral (Euler and Maclaurin).

Apart from what `_black` and `_nodes` lend it stands in one file, because numba's cache looks for changes in the file of the kernel
that is called and nowhere else: whoever changes those touches this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import Float
from flowlake.quant._black import (
    ABOVE_MAXIMUM,
    BAD_INPUT,
    BELOW_INTRINSIC,
    EPSILON,
    MILLS_HIGH,
    MILLS_SHIFT,
    OK,
    PHI_ZERO,
    SMALLEST,
    exponential,
    log_moneyness,
    mills,
    normal_cdf,
    search_vol,
)
from flowlake.quant._compile import by_address, inlined, kernel, part
from flowlake.quant._instructions import fma, magnitude, maximum, minimum, number
from flowlake.quant._nodes import NODES, larger, line, load, store, waited

# Steps from today to the last time at which exercise is looked at. More of them where it is worth more, by the interest or yield up
# to the expiry and by the dividends; the number does not depend on the volatility, in which the value has to be smooth.
STEPS = 32
STEPS_PER_DIVIDEND = 8
STEPS_PER_INTEREST = 800
MOST_STEPS = 80
# At STEPS the 40 nodes reach 6 standard deviations to either side, at MOST_STEPS 3.9; E carries the same loss as A and B.
CENTRE = NODES // 2
# Rows of the workspace. All lie in one array at fixed distances, so that the compiler sees that they do not overlap.
M = 0 * NODES
A = 1 * NODES
B = 2 * NODES
E = 3 * NODES
PREMIUM = 4 * NODES
WORKSPACE = 5 * NODES

# When early exercise can be worth something.
NEVER = 0
EX_DATES = 1
ALWAYS = 2

LOWEST_VOL = 1e-4
HIGHEST_VOL = 10.0
# Beyond this the nodes would overflow.
LARGEST_TOTAL_VOL = 30.0
# A dividend nearer than this, in years, 30 microseconds, is taken to be as far: a step has to have a length.
NEAREST = 1e-12
# The part of the extrapolation that decides on exercise today.
DECIDING = 0.75
# A rate or yield times years beyond this has no meaning.
LARGEST_CARRY = 100.0
# Half the width of the difference that gives vega, relative, wide enough to even out what the grid adds; the width of that for rho.
VOL_BUMP = 0.05
# Below this share of the value the difference that gives vega is taken to one side.
SMALL_PREMIUM = 0.01
RATE_BUMP = 1e-3
# Half the width of the difference that gives charm, as a share of the time to expiry.
TIME_BUMP = 0.05
# A last correction of the volatility is smaller than this, relative; the error of a secant goes with the product of the last two.
LAST_STEP = 1e-5
LAST_ERROR = 1e-10
# And it is this much smaller than the one before: where the slope of the value jumps, corrections do not shrink so fast.
SHRINKING = 0.01
# Rounding of a price, relative to the sizes of its legs.
NOISE = 1e-13

# What `premiums` is to the kernels that call it.
Grid = Callable[[Float, float, float, float, float, float, float, float, Float, int, int, int], tuple[float, float]]


@inlined
def tail(z: float) -> float:
    """Phi(-|z|), zero beyond 9."""
    a = minimum(magnitude(z), MILLS_HIGH)
    return PHI_ZERO * exponential(-0.5 * a * a) * mills(1.0 / (a + MILLS_SHIFT))


@inlined
def excess(jump: float, beyond: float) -> float:
    """What a sum over the nodes lacks to the integral where the slope per node jumps at the fraction `beyond` between two."""
    return 0.5 * jump * (1.0 / 6.0 - beyond * (1.0 - beyond))


@inlined
def blacks(work: Float, to: int, forward: float, strike: float, h: float, s: float, right: float, discount: float) -> None:
    """European values on all nodes, for total volatility s and the forward of the middle node."""
    x = log_moneyness(forward, strike)
    inverse = 1.0 / s
    for j in range(NODES):
        f = forward * work[M + j]
        d1 = fma(j - CENTRE, h, x) * inverse + 0.5 * s
        d2 = d1 - s
        tail1 = tail(d1)
        tail2 = tail(d2)
        asset = f * (tail1 if (d1 > 0.0) != (right > 0.0) else 1.0 - tail1)
        bond = strike * (tail2 if (d2 > 0.0) != (right > 0.0) else 1.0 - tail2)
        work[to + j] = discount * right * (asset - bond)
    # The kink of the payoff, as far as s leaves it one: the first harmonic of what `excess` gives is all that matters.
    place = CENTRE - x / h
    if 1.0 < place < NODES - 2.0:
        left = math.floor(place)
        beyond = place - left
        raised = discount * excess(strike * h, beyond) * math.exp(-2.0 * (math.pi * s / h) ** 2)
        work[to + int(left)] += raised * (1.0 - beyond)
        work[to + int(left) + 1] += raised * beyond


@inlined
def exercise(work: Float, row: int, slope: float, level: float, reach: float, h: float) -> None:
    """The better of waiting and exercise for slope M + level, mended for the kink between two nodes.

    The mending makes sums right: there has to be a sum over nodes between here and today, `reach` in variance.
    """
    mends = reach > h * h / 6.0
    at = -1
    left = 0.0
    right = 0.0
    for j in range(1, NODES - 2):
        gain = fma(slope, work[M + j], level) - work[row + j]
        following = fma(slope, work[M + j + 1], level) - work[row + j + 1]
        if mends and (gain > 0.0) != (following > 0.0):
            before = fma(slope, work[M + j - 1], level) - work[row + j - 1]
            after = fma(slope, work[M + j + 2], level) - work[row + j + 2]
            at = j
            right = gain / (gain - following)
            left = 1.0 - right
            jump = magnitude(following - gain + 0.5 * (right - 0.5) * (after - following - gain + before))
            raised = excess(jump, right)
            left *= raised
            right *= raised
            break
    for j in range(NODES):
        work[row + j] = maximum(work[row + j], fma(slope, work[M + j], level))
    if at >= 0:
        work[row + at] += left
        work[row + at + 1] += right


@part
def gather(
    times: Float, amounts: Float, row: int, strike: float, years: float, right: float, rate: float, dividend_yield: float,
    ahead: Float,
) -> tuple[int, int, int]:  # fmt: skip
    """Copy the dividends up to the expiry into `ahead`: times, amounts and 1 where exercise has to be looked at; one for a time.

    Gives how many there are, NEVER, EX_DATES or ALWAYS as early exercise can be worth something, and the steps that it takes.
    """
    count = 0
    _, most = times.shape
    for m in range(most):
        t, amount = times[row, m], amounts[row, m]
        if not (0.0 < t <= years and amount > 0.0):
            continue
        t = minimum(maximum(t, NEAREST), years)
        if count > 0 and ahead[0, count - 1] == t:
            ahead[1, count - 1] += amount
        else:
            ahead[0, count], ahead[1, count], ahead[2, count] = t, amount, 1.0
            count += 1
    interest = maximum(magnitude(rate), magnitude(dividend_yield)) * years
    steps = int(minimum(STEPS + STEPS_PER_DIVIDEND * count + STEPS_PER_INTEREST * interest, MOST_STEPS))
    if right < 0.0:
        return count, NEVER if rate <= 0.0 <= dividend_yield else ALWAYS, steps
    if rate < 0.0 or dividend_yield > 0.0:
        return count, ALWAYS, steps
    # Exercise gains a dividend, waiting up to just before the next one gains the interest on the strike.
    looked_at = 0
    following = years
    for m in range(count - 1, -1, -1):
        pays = ahead[1, m] > -strike * math.expm1(-rate * (following - ahead[0, m]))
        ahead[2, m] = 1.0 if pays else 0.0
        looked_at += pays
        following = ahead[0, m]
    return count, EX_DATES if looked_at else NEVER, steps


@inlined
def escrow(after: float, rate: float, ahead: Float, count: int) -> float:
    """Value at time `after` of the dividends later than that."""
    total = 0.0
    for m in range(count):
        if ahead[0, m] > after:
            total += ahead[1, m] * math.exp(-rate * (ahead[0, m] - after))
    return total


@inlined
def preceding(ahead: Float, m: int) -> int:
    """The last dividend before m at which exercise is looked at; -1 for today."""
    m -= 1
    while m >= 0 and ahead[2, m] == 0.0:
        m -= 1
    return m


@inlined
def pairs_between(since: float, until: float, full: float) -> int:
    return int(maximum(1.0, math.ceil(0.5 * (until - since) / full - 1e-9)))


@inlined
def discounted(forward: float, strike: float, s: float, right: float, discount: float) -> float:
    """The European formula, to all digits also far out of the money."""
    side = 1.0 if forward <= strike else -1.0
    d1 = log_moneyness(forward, strike) / s + 0.5 * s
    out = maximum(side * (forward * normal_cdf(side * d1) - strike * normal_cdf(side * (d1 - s))), 0.0)
    return discount * (maximum(right * (forward - strike), 0.0) + out)


# Compiled by `compiled_premiums`.
def premiums(
    work: Float, spot: float, strike: float, years: float, vol: float, right: float, rate: float, dividend_yield: float,
    ahead: Float, count: int, when: int, steps: int,
) -> tuple[float, float]:  # fmt: skip
    """The European value, and what early exercise adds; row PREMIUM has that also for the nodes beside today's.

    Where exercise is never worth anything, PREMIUM is left as it is.
    """
    if when == NEVER:
        forward = (spot - escrow(0.0, rate, ahead, count)) * math.exp((rate - dividend_yield) * years)
        return discounted(forward, strike, vol * math.sqrt(years), right, math.exp(-rate * years)), 0.0
    a_row, b_row, e_row = number(A), number(B), number(E)
    held = spot - escrow(0.0, rate, ahead, count)
    carry = rate - dividend_yield
    waits = when == EX_DATES
    m = preceding(ahead, count)
    bonus = 0.0
    if m >= 0 and ahead[0, m] >= years:
        # Just before an ex-date on the expiry itself a call is worth more by the dividend.
        bonus = ahead[1, m] if right > 0.0 else 0.0
        m = preceding(ahead, m)
    horizon = years
    if waits:
        horizon = ahead[0, m] if m >= 0 else 0.5 * years
    full = horizon / steps
    h = 2.0 * math.asinh(0.5 * math.sqrt(3.0 * math.expm1(vol * vol * full)))
    u = math.exp(h)
    nearness = u / (math.expm1(h) * math.expm1(h) * (u + 1.0))
    for j in range(NODES):
        work[M + j] = exponential(h * (j - CENTRE))

    # The European formula for what is left after the last ex-date, or for one step.
    start = horizon
    if not waits:
        since = ahead[0, m] if m >= 0 else 0.0
        start -= 0.5 * (horizon - since) / pairs_between(since, horizon, full)
    forward = held * math.exp(carry * years)
    s = vol * math.sqrt(years - start)
    discount = math.exp(-rate * (years - start))
    growth = held * math.exp(carry * start)
    blacks(work, e_row, forward, strike, h, s, right, discount)
    never = load(work, E)
    if bonus > 0.0:
        certain = maximum(bonus - strike, 0.0)
        blacks(work, a_row, forward, maximum(strike - bonus, SMALLEST), h, s, right, discount)
        every = line(load(work, A), 1.0, discount * certain)
    else:
        every = never
    if waits and m >= 0:
        store(work, A, every)
        exercise(work, a_row, growth, escrow(start, rate, ahead, count) + ahead[1, m] - strike, math.inf, h)
        every = load(work, A)
        m = preceding(ahead, m)
    second = every
    stock = load(work, M)
    set_aside = escrow(start, rate, ahead, count)
    if not waits:
        every = larger(every, line(stock, right * growth, right * (set_aside - strike)))

    begun = waits
    until = horizon
    while until > 0.0:
        since = ahead[0, m] if m >= 0 else 0.0
        pairs = pairs_between(since, until, full)
        step = 0.5 * (until - since) / pairs
        discount = math.exp(-rate * step)
        back = math.exp(-carry * step)
        p_up = math.expm1(vol * vol * step) * nearness
        p_down = p_up * u
        stay = discount * (1.0 - p_up - p_down)
        up = discount * p_up
        down = discount * p_down
        for pair in range(pairs):
            if waits:
                for _ in range(2):
                    every = waited(every, up, stay, down)
                    never = waited(never, up, stay, down)
                continue
            if begun:
                set_aside *= discount
                growth *= back
                exercised = line(stock, right * growth, right * (set_aside - strike))
                every = larger(waited(every, up, stay, down), exercised)
                second = waited(second, up, stay, down)
                never = waited(never, up, stay, down)
            begun = True
            set_aside *= discount
            growth *= back
            level = right * (set_aside - strike) if since > 0.0 or pair < pairs - 1 else -math.inf
            exercised = line(stock, right * growth, level)
            every = larger(waited(every, up, stay, down), exercised)
            second = larger(waited(second, up, stay, down), exercised)
            never = waited(never, up, stay, down)
        if m >= 0:
            reach = vol * vol * since
            set_aside = escrow(since, rate, ahead, count) + ahead[1, m]
            if right > 0.0:
                growth = held * math.exp(carry * since)
                store(work, A, every)
                exercise(work, a_row, growth, set_aside - strike, reach, h)
                every = load(work, A)
                if not waits:
                    store(work, B, second)
                    exercise(work, b_row, growth, set_aside - strike, reach, h)
                    second = load(work, B)
            m = preceding(ahead, m)
        until = since
    if waits:
        second = every
    store(work, A, every)
    store(work, B, second)
    store(work, E, never)
    for j in range(CENTRE - 1, CENTRE + 2):
        waiting = 2.0 * work[A + j] - work[B + j]
        work[PREMIUM + j] = maximum(waiting, right * (held * work[M + j] + spot - held - strike)) - work[E + j]
    european = discounted(forward, strike, vol * math.sqrt(years), right, math.exp(-rate * years))
    # Whether to exercise now is decided with part of the extrapolation, the rest fades in from there: all of it would leave
    # waiting and exercise equal to within the error of the grid wherever exercise is best.
    at_once = right * (spot - strike) - european
    extra = work[A + CENTRE] - work[B + CENTRE]
    plain = maximum(work[A + CENTRE] + DECIDING * extra - work[E + CENTRE], 0.0)
    premium = maximum(plain + minimum((1.0 - DECIDING) * extra, maximum(plain - at_once, 0.0)), at_once)
    work[PREMIUM + CENTRE] = premium
    return european, premium


compiled_premiums = by_address(
    "UniTuple(float64, 2)(float64[::1], float64, float64, float64, float64, float64, float64, float64, float64[:, ::1],"
    " int64, int64, int64)",
    premiums,
)


@part
def sound(spot: float, strike: float, years: float, vol: float, rate: float, dividend_yield: float) -> bool:
    return (
        0.0 < spot < math.inf
        and 0.0 < strike < math.inf
        and 0.0 < years < math.inf
        and vol > 0.0
        and vol * math.sqrt(years) <= LARGEST_TOTAL_VOL
        and magnitude(rate * years) < LARGEST_CARRY
        and magnitude(dividend_yield * years) < LARGEST_CARRY
    )


@kernel
def fill_prices(grid: Grid, out: Float, work: Float, ahead: Float, times: Float, amounts: Float, terms: Float) -> None:
    """Write premiums; NaN where inputs are not sound. Rows of `terms`: spot, strike, years, vol, right, rate, dividend yield.

    `work` has WORKSPACE elements, all finite; `ahead` three rows, as long as the dividends of an option.
    """
    for i in range(out.size):
        s, k, t, v, sign, r, q = terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], terms[6, i]
        out[i] = math.nan
        if sound(s, k, t, v, r, q):
            count, when, steps = gather(times, amounts, i if len(times) > 1 else 0, k, t, sign, r, q, ahead)
            if s > escrow(0.0, r, ahead, count):
                european, premium = grid(work, s, k, t, v, sign, r, q, ahead, count, when, steps)
                out[i] = european + premium if european + premium < math.inf else math.nan


@part
def solve(
    grid: Grid, work: Float, price: float, spot: float, strike: float, years: float, right: float, rate: float,
    dividend_yield: float, ahead: Float, count: int, when: int, steps: int,
) -> tuple[float, int]:  # fmt: skip
    """Implied volatility and the code of its reason, by a secant inside a bracket.

    The European volatility is the first guess and, since an American option is worth more, an upper bound. From there what early
    exercise adds is small and smooth in the volatility: two or three evaluations do.
    """
    discount = math.exp(-rate * years)
    held = spot - escrow(0.0, rate, ahead, count)
    forward = held * math.exp((rate - dividend_yield) * years)
    least = maximum(discount * right * (forward - strike), 0.0)
    most = discount * (forward if right > 0.0 else strike)
    if when != NEVER:
        floor = right * (spot - strike) + NOISE * (spot + strike)
        least = maximum(least, floor)
        most = maximum(most, spot if right > 0.0 else strike)
    start = search_vol(price, forward, strike, years, right, discount)
    if price <= least or (when == NEVER and not start > 0.0) or price >= most - EPSILON * most:
        return math.nan, ABOVE_MAXIMUM if price - least > 0.5 * (most - least) else BELOW_INTRINSIC
    if when == NEVER:
        return start, OK
    lo = 0.0
    hi = HIGHEST_VOL
    root = math.sqrt(years)
    if root * hi > LARGEST_TOTAL_VOL:
        hi = LARGEST_TOTAL_VOL / root
    bounded = LOWEST_VOL < start < hi
    guess = start if bounded else hi
    s = guess * root
    d1 = log_moneyness(forward, strike) / s + 0.5 * s
    slope = discount * forward * PHI_ZERO * math.exp(-0.5 * d1 * d1) * root
    previous, previous_error = math.nan, math.nan
    last = 1e-3 * guess
    was_flat = False
    for iteration in range(200):
        european, premium = grid(work, spot, strike, years, guess, right, rate, dividend_yield, ahead, count, when, steps)
        error = european + premium - price
        if error < 0.0:
            if iteration == 0 and not bounded:
                return math.nan, ABOVE_MAXIMUM
            lo = guess
        else:
            hi = guess
        if iteration > 0:
            slope = (error - previous_error) / (guess - previous)
        following = guess - error / slope
        step = magnitude(following - guess)
        # Below the volatility at which waiting begins to pay the value is that of exercise, and has no slope.
        flat = european + premium <= floor
        small = step <= minimum(LAST_STEP * guess, SHRINKING * last) and step * last <= LAST_ERROR * guess * guess
        if error == 0.0 or (small and not flat and not was_flat):
            return following if lo <= following <= hi and error != 0.0 else guess, OK
        if flat or not lo < following < hi or iteration > 40:
            following = math.sqrt(maximum(lo, 0.5 * LOWEST_VOL) * hi)
        if hi < LOWEST_VOL:
            return math.nan, BELOW_INTRINSIC
        if hi - lo <= EPSILON * hi:
            return hi, OK
        last = magnitude(following - guess)
        previous, previous_error, was_flat = guess, error, flat
        guess = following
    return guess, OK


@inlined
def slopes(work: Float, held: float) -> tuple[float, float]:
    """First and second derivative to the spot of what early exercise adds, from PREMIUM on today's node and the two beside it."""
    below, at, above = work[PREMIUM + CENTRE - 1], work[PREMIUM + CENTRE], work[PREMIUM + CENTRE + 1]
    u = work[M + CENTRE + 1]
    low, high = held / u, held * u
    left, right = (at - below) / (held - low), (above - at) / (high - held)
    return (left * (high - held) + right * (held - low)) / (high - low), 2.0 * (right - left) / (high - low)


@inlined
def european_slopes(
    held: float, strike: float, years: float, s: float, right: float, carry: float, dividend_yield: float
) -> tuple[float, float, float, float]:
    """d1, the density exp(-q years) phi(d1), delta and gamma of the European option on what is held, for total volatility s."""
    d1 = (log_moneyness(held, strike) + carry * years) / s + 0.5 * s
    spread = math.exp(-dividend_yield * years)
    density = spread * PHI_ZERO * math.exp(-0.5 * d1 * d1)
    return d1, density, right * spread * normal_cdf(right * d1), density / (held * s)


@part
def differentiate(
    grid: Grid, out: Float, i: int, work: Float, spot: float, strike: float, years: float, vol: float, right: float,
    rate: float, dividend_yield: float, ahead: Float, count: int, when: int, steps: int, solved: bool,
) -> None:  # fmt: skip
    """Write delta, gamma, vega, theta and rho of one option with sound inputs into column i.

    `solved` says that the workspace holds the grid at this volatility, or one nearer than LAST_STEP.
    """
    aside = escrow(0.0, rate, ahead, count)
    held = spot - aside
    waiting = 0.0
    for m in range(count):
        waiting += ahead[0, m] * ahead[1, m] * math.exp(-rate * ahead[0, m])
    carry = rate - dividend_yield
    root = math.sqrt(years)
    s = vol * root
    d1, density, delta, gamma = european_slopes(held, strike, years, s, right, carry, dividend_yield)
    bond = strike * math.exp(-rate * years) * normal_cdf(right * (d1 - s))
    vega = held * density * root
    # The dividends set apart weigh less at a higher rate, which leaves more of the stock.
    rho = right * years * bond + delta * waiting
    now = discounted(held * math.exp(carry * years), strike, s, right, math.exp(-rate * years))
    if when != NEVER:
        exercised = right * (spot - strike)
        if not solved:
            grid(work, spot, strike, years, vol, right, rate, dividend_yield, ahead, count, when, steps)
        at = work[PREMIUM + CENTRE]
        now += at
        if now - exercised <= NOISE * (spot + strike):
            out[0, i] = right
            for n in range(1, 5):
                out[n, i] = 0.0
            return
        slope, bend = slopes(work, held)
        delta += slope
        gamma = maximum(gamma + bend, 0.0)
        bump = VOL_BUMP * vol
        _, more = grid(work, spot, strike, years, vol + bump, right, rate, dividend_yield, ahead, count, when, steps)
        less, width = at, bump
        if at > SMALL_PREMIUM * now:
            _, less = grid(work, spot, strike, years, vol - bump, right, rate, dividend_yield, ahead, count, when, steps)
            width = 2.0 * bump
        # A long option gains from volatility and is convex. Next to the boundary of exercise both vanish, and a difference of two
        # grids, or of two slopes of one, may fall short of zero by their error.
        vega = maximum(vega + (more - less) / width, 0.0)
        _, moved = grid(work, spot, strike, years, vol, right, rate + RATE_BUMP, dividend_yield, ahead, count, when, steps)
        rho += (moved - at) / RATE_BUMP
    out[0, i] = delta
    out[1, i] = gamma
    out[2, i] = vega
    # The pricing equation. At a fixed spot the diffusing part shrinks as what is set apart earns interest.
    out[3, i] = rate * now - (carry * held + rate * aside) * delta - 0.5 * vol * vol * held * held * gamma
    out[4, i] = rho


@kernel
def fill_greeks(grid: Grid, out: Float, work: Float, ahead: Float, times: Float, amounts: Float, terms: Float) -> None:
    """Write the five sensitivities into the rows of `out`; NaN where inputs are not sound. Arguments as in `fill_prices`."""
    _, size = out.shape
    for i in range(size):
        s, k, t, v, sign, r, q = terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], terms[6, i]
        for n in range(5):
            out[n, i] = math.nan
        if sound(s, k, t, v, r, q):
            count, when, steps = gather(times, amounts, i if len(times) > 1 else 0, k, t, sign, r, q, ahead)
            if s > escrow(0.0, r, ahead, count):
                differentiate(grid, out, i, work, s, k, t, v, sign, r, q, ahead, count, when, steps, False)


@part
def shifted_slope(
    grid: Grid, work: Float, spot: float, strike: float, years: float, vol: float, right: float, rate: float,
    dividend_yield: float, ahead: Float, count: int, when: int, steps: int, shift: float,
) -> float:  # fmt: skip
    """The delta of what early exercise adds when the expiry and all dividends are further away by `shift`."""
    for m in range(count):
        ahead[0, m] += shift
    grid(work, spot, strike, years + shift, vol, right, rate, dividend_yield, ahead, count, when, steps)
    slope, _ = slopes(work, spot - escrow(0.0, rate, ahead, count))
    for m in range(count):
        ahead[0, m] -= shift
    return slope


@part
def expose(
    grid: Grid, out: Float, i: int, work: Float, spot: float, strike: float, years: float, vol: float, right: float,
    rate: float, dividend_yield: float, ahead: Float, count: int, when: int, steps: int,
) -> None:  # fmt: skip
    """Write delta, gamma, vanna and charm of one option with sound inputs into column i."""
    aside = escrow(0.0, rate, ahead, count)
    held = spot - aside
    carry = rate - dividend_yield
    s = vol * math.sqrt(years)
    d1, density, delta, gamma = european_slopes(held, strike, years, s, right, carry, dividend_yield)
    d2 = d1 - s
    vanna = -density * d2 / vol
    # As time passes what is set apart earns interest, at the cost of the rest of the spot.
    charm = dividend_yield * delta - density * (carry / s - 0.5 * d2 / years) - rate * aside * gamma
    if when != NEVER:
        european, premium = grid(work, spot, strike, years, vol, right, rate, dividend_yield, ahead, count, when, steps)
        if european + premium - right * (spot - strike) <= NOISE * (spot + strike):
            delta, gamma, vanna, charm = right, 0.0, 0.0, 0.0
        else:
            slope, bend = slopes(work, held)
            delta += slope
            gamma = maximum(gamma + bend, 0.0)
            bump = VOL_BUMP * vol
            grid(work, spot, strike, years, vol + bump, right, rate, dividend_yield, ahead, count, when, steps)
            more, _ = slopes(work, held)
            grid(work, spot, strike, years, vol - bump, right, rate, dividend_yield, ahead, count, when, steps)
            less, _ = slopes(work, held)
            vanna += (more - less) / (2.0 * bump)
            bump = TIME_BUMP * years
            before = shifted_slope(
                grid, work, spot, strike, years, vol, right, rate, dividend_yield, ahead, count, when, steps, bump
            )
            if count > 0 and ahead[0, 0] <= bump:
                # Later than an ex-date the option is another one.
                charm += (slope - before) / bump
            else:
                after = shifted_slope(
                    grid, work, spot, strike, years, vol, right, rate, dividend_yield, ahead, count, when, steps, -bump
                )
                charm += (after - before) / (2.0 * bump)
    out[0, i] = delta
    out[1, i] = gamma
    out[2, i] = vanna
    out[3, i] = charm


@kernel
def fill_exposure_greeks(
    grid: Grid, out: Float, work: Float, ahead: Float, times: Float, amounts: Float, terms: Float
) -> None:  # fmt: skip
    """Write delta, gamma, vanna and charm into the rows of `out`; NaN where inputs are not sound. Arguments as in `fill_prices`."""
    _, size = out.shape
    for i in range(size):
        s, k, t, v, sign, r, q = terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], terms[6, i]
        for n in range(4):
            out[n, i] = math.nan
        if sound(s, k, t, v, r, q):
            count, when, steps = gather(times, amounts, i if len(times) > 1 else 0, k, t, sign, r, q, ahead)
            if s > escrow(0.0, r, ahead, count):
                expose(grid, out, i, work, s, k, t, v, sign, r, q, ahead, count, when, steps)


@kernel
def fill_implied_vols(
    grid: Grid, vol: Float, reason: NDArray[np.int8], greeks: Float, work: Float, ahead: Float, times: Float, amounts: Float,
    terms: Float,
) -> None:  # fmt: skip
    """Write implied volatilities, the codes of their reasons, and the sensitivities if `greeks` has columns.

    Arguments as in `fill_prices`, but rows of `terms`: price, spot, strike, years, right, rate, dividend yield.
    """
    for i in range(vol.size):
        p, s, k, t, sign, r, q = terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], terms[6, i]
        vol[i] = math.nan
        reason[i] = BAD_INPUT
        if math.isfinite(p) and sound(s, k, t, 1e-9, r, q):
            count, when, steps = gather(times, amounts, i if len(times) > 1 else 0, k, t, sign, r, q, ahead)
            if s > escrow(0.0, r, ahead, count):
                vol[i], reason[i] = solve(grid, work, p, s, k, t, sign, r, q, ahead, count, when, steps)
        if greeks.size > 0:
            for n in range(5):
                greeks[n, i] = math.nan
            if vol[i] > 0.0:
                differentiate(grid, greeks, i, work, s, k, t, vol[i], sign, r, q, ahead, count, when, steps, True)
