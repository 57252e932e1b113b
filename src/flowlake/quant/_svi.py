"""The compiled part of `svi`: one slice fitted to the quotes of one expiry.

All of it stands in one file because numba's cache looks for changes in the file of the kernel that is called, and nowhere else.

Coordinates. A slice is searched for in theta = (ln lowest variance, ln left slope, ln right slope, m, ln sigma). With the slopes
L = b (1 - rho) and R = b (1 + rho) and x = k - m, h = sqrt(x^2 + sigma^2),

    w = lowest - sigma sqrt(L R) + (R - L) x / 2 + (L + R) h / 2,

so that a positive variance, b > 0, |rho| < 1 and Lee's bound on the slopes are all simple bounds on theta.

Search. The start comes from a small grid of (m, sigma), for each of which the best slice is a linear problem (the reduction of De
Marco and Martini, "Quasi-explicit calibration of Gatheral's SVI model", Zeliade white paper, 2009). Levenberg and Marquardt's
method with bounds refines it on the error in volatility. Where the result has a negative g, or lies below the slice that it must
not cross, the shortfall becomes a residual of growing weight, from a start that has none: an SSVI slice of the same level and skew
(Gatheral and Jacquier, theorem 4.2). Where that ends far from the free fit, the free fit is the second start. What is left after
the last round is lifted away: with enough added to a constant both conditions hold, because g tends to 1 - w'^2/16 + w''/2, which
is positive while slopes are below 2.
"""

from __future__ import annotations

import math

import numpy as np

from flowlake.core.arrays import Float
from flowlake.quant._compile import kernel, part

# Slopes of total variance stay below Lee's 2 by enough that g is positive at infinity.
MAX_SLOPE = 1.99
# Rows of what `fit_slice` gives.
FIT_A, FIT_B, FIT_RHO, FIT_M, FIT_SIGMA, FIT_RMSE, FIT_WEIGHTED, FIT_MAX, FIT_INSIDE, FIT_MIN_G = range(10)

_N = 5
_ITERATIONS = 50
_SETTLED = 1e-9
# Nodes on each side of m at which g is looked at, dense near m and sparse far out.
_SIDE = 48
_WINDOW = 41
_ROUNDS = 8
# A constrained cost beyond this multiple of the free one sends a second search down another path.
_DEAR = 1.5
# What penalised rounds aim at, so that the result clears zero.
_MARGIN = 2e-3
_GOLDEN = 0.6180339887498949


@part
def g_of(k: float, w: float, slope: float, curvature: float) -> float:
    """Gatheral and Jacquier's g from total variance and its derivatives."""
    lean = 1.0 - 0.5 * k * slope / w
    return lean * lean - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * curvature


@kernel
def variance_at(k: float, a: float, b: float, rho: float, m: float, sigma: float) -> float:
    x = k - m
    return a + b * (rho * x + math.hypot(x, sigma))


@part
def _variance(k: float, raw: Float) -> float:
    """Total variance of a slice whose five numbers stand in an array."""
    return variance_at(k, raw[0], raw[1], raw[2], raw[3], raw[4])


@part
def g_at(k: float, a: float, b: float, rho: float, m: float, sigma: float) -> float:
    x = k - m
    h = math.hypot(x, sigma)
    w = a + b * (rho * x + h)
    return g_of(k, w, b * (rho + x / h), b * sigma * sigma / (h * h * h))


@part
def _g_nodes(a: float, b: float, rho: float, m: float, sigma: float, nodes: Float) -> None:
    """Where g can be low: from m outwards until the slopes alone decide."""
    level = a + b * sigma
    nodes[_SIDE] = m
    for side in (-1, 1):
        slope = max(b * (1.0 + side * rho), 1e-6)
        reach = max(max(20.0 * sigma, 10.0 * max(level, 0.0) / slope), 4.0 * abs(m))
        top = math.asinh(reach / sigma)
        for i in range(1, _SIDE + 1):
            nodes[_SIDE + side * i] = m + side * sigma * math.sinh(top * i / _SIDE)


@kernel
def lowest_g(a: float, b: float, rho: float, m: float, sigma: float) -> tuple[float, float]:
    """The least g over all strikes, its limits on both sides included, and where it is.

    NaN where the total variance is not positive everywhere.
    """
    if not a + b * sigma * math.sqrt(max(1.0 - rho * rho, 0.0)) > 0.0:
        return math.nan, math.nan
    nodes = np.empty(2 * _SIDE + 1)
    _g_nodes(a, b, rho, m, sigma, nodes)
    best, lowest = 0, math.inf
    for i in range(nodes.size):
        value = g_at(nodes[i], a, b, rho, m, sigma)
        if value < lowest:
            best, lowest = i, value
    left = nodes[best - 1 if best > 0 else 0]
    right = nodes[best + 1 if best < 2 * _SIDE else best]
    for _ in range(40):
        one, two = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        at_one, at_two = g_at(one, a, b, rho, m, sigma), g_at(two, a, b, rho, m, sigma)
        if at_one < at_two:
            right = two
        else:
            left = one
    at = 0.5 * (left + right)
    value = g_at(at, a, b, rho, m, sigma)
    if value > lowest:
        value, at = lowest, nodes[best]
    for side in (-1, 1):
        slope = b * (1.0 + side * rho)
        limit = 0.25 - 0.0625 * slope * slope
        if slope > 0.0 and limit < value:
            value, at = limit, nodes[_SIDE + side * _SIDE]
    return value, at


@kernel
def highest_excess(near: Float, far: Float, low: float, high: float) -> float:
    """The largest total variance of `near` less that of `far` for log-moneyness between low and high."""
    best, highest = 0, -math.inf
    last = 400
    for i in range(last + 1):
        k = low + (high - low) * i / last
        value = _variance(k, near) - _variance(k, far)
        if value > highest:
            best, highest = i, value
    left = low + (high - low) * (best - 1 if best > 0 else 0) / last
    right = low + (high - low) * (best + 1 if best < last else last) / last
    for _ in range(40):
        one, two = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        at_one = _variance(one, near) - _variance(one, far)
        at_two = _variance(two, near) - _variance(two, far)
        highest = max(max(highest, at_one), at_two)
        if at_one > at_two:
            right = two
        else:
            left = one
    return highest


@kernel
def delta_log_moneyness(a: float, b: float, rho: float, m: float, sigma: float, d1: float) -> float:
    """Where -k/s + s/2 = d1 with s the total volatility: by bisection; NaN where there is no answer."""
    at_forward = variance_at(0.0, a, b, rho, m, sigma)
    if not at_forward > 0.0:
        return math.nan
    s = math.sqrt(at_forward)
    # d1 falls as the strike rises, on a slice without arbitrage everywhere.
    outward = 1.0 if 0.5 * s > d1 else -1.0
    inner, step = 0.0, s
    while True:
        outer = inner + outward * step
        w = variance_at(outer, a, b, rho, m, sigma)
        if not w > 0.0 or abs(outer) > 1e9:
            return math.nan
        if outward * (0.5 * w - outer - d1 * math.sqrt(w)) <= 0.0:
            break
        inner, step = outer, 2.0 * step
    for _ in range(200):
        middle = 0.5 * (inner + outer)
        if middle in (inner, outer):
            break
        w = variance_at(middle, a, b, rho, m, sigma)
        if outward * (0.5 * w - middle - d1 * math.sqrt(w)) > 0.0:
            inner = middle
        else:
            outer = middle
    return outer


@part
def _copy(source: Float, target: Float) -> None:
    """Element by element: assigning a slice compiles numba's error text with it, which takes seconds."""
    for p in range(_N):
        target[p] = source[p]


@part
def _raw(theta: Float, out: Float) -> None:
    left, right, sigma = math.exp(theta[1]), math.exp(theta[2]), math.exp(theta[4])
    out[0] = math.exp(theta[0]) - sigma * math.sqrt(left * right)
    out[1] = 0.5 * (left + right)
    out[2] = (right - left) / (right + left)
    out[3] = theta[3]
    out[4] = sigma


@part
def _accumulate(
    theta: Float, k: Float, vol: Float, weight: Float, years: float,
    nodes: Float, penalty: float, floor: Float, window: Float, curvature: Float, gradient: Float,
) -> float:  # fmt: skip
    """Sum of squared residuals; its Gauss-Newton matrix into `curvature` and half its gradient into `gradient`."""
    lowest, left, right = math.exp(theta[0]), math.exp(theta[1]), math.exp(theta[2])
    m, sigma = theta[3], math.exp(theta[4])
    bend = sigma * math.sqrt(left * right)
    half_sum, half_gap = 0.5 * (left + right), 0.5 * (right - left)
    for p in range(_N):
        gradient[p] = 0.0
        for q in range(_N):
            curvature[p, q] = 0.0
    cost = 0.0
    row = np.empty(_N)
    per_root_year = 1.0 / math.sqrt(years)
    for i in range(k.size):
        x = k[i] - m
        h = math.sqrt(x * x + sigma * sigma)
        root = math.sqrt(lowest - bend + half_gap * x + half_sum * h)
        residual = weight[i] * (root * per_root_year - vol[i])
        scale = weight[i] * 0.5 * per_root_year / root
        _variance_row(row, scale, lowest, left, right, bend, sigma, x, h)
        cost += _add(row, residual, curvature, gradient)
    if penalty == 0.0:
        return cost
    force = math.sqrt(penalty / nodes.size)
    for i in range(nodes.size):
        at = nodes[i]
        x = at - m
        h = math.sqrt(x * x + sigma * sigma)
        w = lowest - bend + half_gap * x + half_sum * h
        lean_x = x / h
        slope = half_gap + half_sum * lean_x
        bowl = sigma * sigma / (h * h * h)
        second = half_sum * bowl
        short = _MARGIN - g_of(at, w, slope, second)
        if short <= 0.0:
            continue
        lean = 1.0 - 0.5 * at * slope / w
        by_w = (lean * at * slope + 0.25 * slope * slope) / (w * w)
        by_slope = -lean * at / w - 0.5 * slope * (1.0 / w + 0.25)
        thin = 3.0 * sigma * sigma / (h * h)
        _variance_row(row, by_w, lowest, left, right, bend, sigma, x, h)
        row[1] += by_slope * 0.5 * left * (lean_x - 1.0) + 0.25 * left * bowl
        row[2] += by_slope * 0.5 * right * (lean_x + 1.0) + 0.25 * right * bowl
        row[3] += 1.5 * second * x / (h * h) - by_slope * second
        row[4] += 0.5 * second * (2.0 - thin) - by_slope * second * x
        for j in range(_N):
            row[j] *= -force
        cost += _add(row, force * short, curvature, gradient)
    if math.isnan(floor[0]):
        return cost
    force = math.sqrt(penalty / window.size)
    for i in range(window.size):
        x = window[i] - m
        h = math.sqrt(x * x + sigma * sigma)
        below = _variance(window[i], floor)
        short = 1.0 + 1e-4 - (lowest - bend + half_gap * x + half_sum * h) / below
        if short <= 0.0:
            continue
        scale = -force / below
        _variance_row(row, scale, lowest, left, right, bend, sigma, x, h)
        cost += _add(row, force * short, curvature, gradient)
    return cost


@part
def _variance_row(
    row: Float, scale: float, lowest: float, left: float, right: float, bend: float, sigma: float, x: float, h: float
) -> None:
    """`scale` times the derivatives of total variance by theta."""
    row[0] = scale * lowest
    row[1] = scale * 0.5 * (left * (h - x) - bend)
    row[2] = scale * 0.5 * (right * (h + x) - bend)
    row[3] = scale * 0.5 * (left - right - (left + right) * x / h)
    row[4] = scale * (0.5 * (left + right) * sigma * sigma / h - bend)


@part
def _add(row: Float, residual: float, curvature: Float, gradient: Float) -> float:
    for p in range(_N):
        gradient[p] += row[p] * residual
        for q in range(p + 1):
            curvature[p, q] += row[p] * row[q]
    return residual * residual


@part
def _step(curvature: Float, gradient: Float, damping: float, held: Float, factor: Float, step: Float) -> bool:
    """Solve the damped normal equations by Cholesky's method with the held coordinates left where they are."""
    for p in range(_N):
        for q in range(p + 1):
            value = 0.0 if held[p] + held[q] > 0.0 else curvature[p, q]
            if p == q:
                value = 1.0 if held[p] > 0.0 else value * (1.0 + damping) + 1e-14
            for r in range(q):
                value -= factor[p, r] * factor[q, r]
            if p == q:
                if not value > 0.0:
                    return False
                factor[p, p] = math.sqrt(value)
            else:
                factor[p, q] = value / factor[q, q]
    for p in range(_N):
        value = 0.0 if held[p] > 0.0 else gradient[p]
        for r in range(p):
            value -= factor[p, r] * step[r]
        step[p] = value / factor[p, p]
    for p in range(_N - 1, -1, -1):
        value = step[p]
        for r in range(p + 1, _N):
            value -= factor[r, p] * step[r]
        step[p] = value / factor[p, p]
    return True


@part
def _refine(
    theta: Float, low: Float, high: Float, k: Float, vol: Float, weight: Float, years: float,
    nodes: Float, penalty: float, floor: Float, window: Float,
) -> float:  # fmt: skip
    """Levenberg and Marquardt's method within bounds, on `theta` in place; gives the cost."""
    curvature, gradient = np.empty((_N, _N)), np.empty(_N)
    next_curvature, next_gradient = np.empty((_N, _N)), np.empty(_N)
    factor, step, held, trial = np.empty((_N, _N)), np.empty(_N), np.empty(_N), np.empty(_N)
    cost = _accumulate(theta, k, vol, weight, years, nodes, penalty, floor, window, curvature, gradient)
    damping, settled = 1e-3, 0
    for _ in range(_ITERATIONS):
        for p in range(_N):
            outward = (theta[p] <= low[p] and gradient[p] > 0.0) or (theta[p] >= high[p] and gradient[p] < 0.0)
            held[p] = 1.0 if outward else 0.0
        if not _step(curvature, gradient, damping, held, factor, step):
            damping = 10.0 * damping + 1e-8
            continue
        for p in range(_N):
            trial[p] = min(max(theta[p] - min(max(step[p], -2.0), 2.0), low[p]), high[p])
        found = _accumulate(trial, k, vol, weight, years, nodes, penalty, floor, window, next_curvature, next_gradient)
        if found < cost:
            settled = settled + 1 if cost - found <= _SETTLED * cost else 0
            cost = found
            _copy(trial, theta)
            curvature, next_curvature = next_curvature, curvature
            gradient, next_gradient = next_gradient, gradient
            damping = max(0.2 * damping, 1e-12)
            if settled == 2 or cost < 1e-24:
                break
        else:
            damping *= 5.0
            if damping > 1e7:
                break
    return cost


@part
def _linear_start(
    k: Float, vol: Float, weight: Float, years: float, m: float, sigma: float, low: Float, high: Float, theta: Float,
) -> None:  # fmt: skip
    """The slice with this m and sigma nearest in total variance: linear in a, b rho and b; brought within the bounds."""
    n11 = n12 = n13 = n22 = n23 = n33 = t1 = t2 = t3 = 0.0
    for i in range(k.size):
        w = vol[i] * vol[i] * years
        # An error in total variance is 2 vol years times that in volatility.
        share = weight[i] / (2.0 * vol[i] * years)
        share *= share
        y = (k[i] - m) / sigma
        z = math.sqrt(y * y + 1.0)
        n11 += share
        n12 += share * y
        n13 += share * z
        n22 += share * y * y
        n23 += share * y * z
        n33 += share * z * z
        t1 += share * w
        t2 += share * y * w
        t3 += share * z * w
    # Elimination by hand; a vanishing pivot leaves its coefficient at zero.
    f2, f3 = n12 / n11, n13 / n11
    p22, p23, p33 = n22 - f2 * n12, n23 - f2 * n13, n33 - f3 * n13
    r2, r3 = t2 - f2 * t1, t3 - f3 * t1
    f = p23 / p22 if p22 > 1e-14 * n22 else 0.0
    last = p33 - f * p23
    c = (r3 - f * r2) / last if last > 1e-14 * n33 else 0.0
    d = (r2 - p23 * c) / p22 if p22 > 1e-14 * n22 else 0.0
    left = min(max((c - d) / sigma, math.exp(low[1])), math.exp(high[1]))
    right = min(max((c + d) / sigma, math.exp(low[2])), math.exp(high[2]))
    # With slopes brought within their bounds the level is found anew.
    level = 0.0
    for i in range(k.size):
        share = weight[i] / (2.0 * vol[i] * years)
        x = k[i] - m
        shape = 0.5 * (right - left) * x + 0.5 * (left + right) * math.sqrt(x * x + sigma * sigma)
        level += share * share * (vol[i] * vol[i] * years - shape)
    lowest = level / n11 + sigma * math.sqrt(left * right)
    theta[0] = min(max(math.log(max(lowest, 1e-300)), low[0]), high[0])
    theta[1] = math.log(left)
    theta[2] = math.log(right)
    theta[3] = m
    theta[4] = math.log(sigma)


@part
def _safe_start(theta: Float, low: Float, high: Float, out: Float) -> None:
    """The SSVI slice with the level, skew and put wing of `theta` at the forward, as far as those allow no butterfly arbitrage.

    With w the total variance at the forward and p, c the slopes over its root, Gatheral and Jacquier's theorem 4.2 asks that
    (p + c) max(p, c) <= 2 and sqrt(w) max(p, c) < 2; the skew is then (c - p)/2.
    """
    raw = np.empty(_N)
    _raw(theta, raw)
    a, b, rho, m, sigma = raw[0], raw[1], raw[2], raw[3], raw[4]
    w = variance_at(0.0, a, b, rho, m, sigma)
    root = math.sqrt(w)
    put = b * (1.0 - rho) / root
    call = min(max(put + b * (rho - m / math.hypot(m, sigma)) / root, 0.1 * put), 10.0 * put)
    widest = max(put, call)
    shrink = 0.95 * min(min(1.0, math.sqrt(2.0 / ((put + call) * widest))), 2.0 / (root * widest))
    put, call = shrink * put, shrink * call
    lean = (call - put) / (call + put)
    radius = root / (put + call)
    out[0] = math.log(w * (1.0 - lean * lean))
    out[1] = math.log(root * put)
    out[2] = math.log(root * call)
    out[3] = -lean * radius
    out[4] = math.log(radius * math.sqrt(1.0 - lean * lean))
    for p in range(_N):
        out[p] = min(max(out[p], low[p]), high[p])


@part
def _constrain(
    theta: Float, low: Float, high: Float, k: Float, vol: Float, weight: Float, years: float,
    nodes: Float, penalty: float, growth: float, floor: Float, window: Float,
) -> float:  # fmt: skip
    """Refine `theta` under a growing penalty until it is sound; gives the error without the penalty, infinite if it never is."""
    raw = np.empty(_N)
    for i in range(nodes.size):
        nodes[i] = 0.0
    for i in range(_ROUNDS):
        _raw(theta, raw)
        _g_nodes(raw[0], raw[1], raw[2], raw[3], raw[4], nodes)
        # The worst strikes of all rounds so far stand beside the grid, which may step over a narrow dip.
        worst = lowest_g(raw[0], raw[1], raw[2], raw[3], raw[4])[1]
        for j in range(2 * _SIDE + 1 + i, nodes.size):
            nodes[j] = worst
        _refine(theta, low, high, k, vol, weight, years, nodes, penalty, floor, window)
        _raw(theta, raw)
        if _sound(raw, floor):
            curvature, gradient = np.empty((_N, _N)), np.empty(_N)
            return _accumulate(theta, k, vol, weight, years, nodes, 0.0, floor, window, curvature, gradient)
        penalty *= growth
    return math.inf


@kernel
def fit_slice(k: Float, vol: Float, half_spread: Float, weight: Float, years: float, floor: Float, out: Float) -> None:
    """Fit the sorted quotes; `weight` multiplies the error of a quote in volatility, the sum of its squares being 1.

    `floor` is an earlier slice and where it counts (a, b, rho, m, sigma, lowest and highest log-moneyness), NaN for none. All of
    `out` is NaN where the squares of the quotes overflow.
    """
    n = k.size
    widest = k[n - 1] - k[0]
    least, most, level = math.inf, 0.0, 0.0
    for i in range(n):
        least = min(least, vol[i])
        most = max(most, vol[i])
        level += weight[i] * weight[i] * vol[i]
    s = level * math.sqrt(years)
    scaled = np.empty(n)
    for i in range(n):
        scaled[i] = weight[i] / level
    low, high = np.empty(_N), np.empty(_N)
    # The lowest volatility of the slice is at least half the lowest quoted one: quotes that stop before the bottom do not tell it.
    low[0], high[0] = math.log(0.25 * least * least * years), math.log(most * most * years)
    low[1] = low[2] = math.log(min(1e-3 * s, 0.5))
    high[1] = high[2] = math.log(MAX_SLOPE)
    low[3], high[3] = k[0] - widest, k[n - 1] + widest
    low[4], high[4] = math.log(0.02 * s), math.log(10.0 * max(widest, s))
    nodes, window = np.empty(2 * _SIDE + 1 + _ROUNDS), np.empty(_WINDOW)
    for i in range(_WINDOW):
        window[i] = floor[5] + (floor[6] - floor[5]) * i / (_WINDOW - 1)
    curvature, gradient = np.empty((_N, _N)), np.empty(_N)
    theta, best, second = np.empty(_N), np.empty(_N), np.empty(_N)
    best_cost, second_cost = math.inf, math.inf
    for i in range(7):
        centre = k[0] + widest * (i + 0.5) / 6.0 if i < 6 else 0.0
        for width in (0.1, 0.35, 1.0, 3.0):
            sigma = min(max(width * s, math.exp(low[4])), math.exp(high[4]))
            _linear_start(k, vol, scaled, years, centre, sigma, low, high, theta)
            cost = _accumulate(theta, k, vol, scaled, years, nodes, 0.0, floor, window, curvature, gradient)
            if cost < best_cost:
                _copy(best, second)
                _copy(theta, best)
                second_cost, best_cost = best_cost, cost
            elif cost < second_cost:
                _copy(theta, second)
                second_cost = cost
    if best_cost == math.inf:
        for i in range(out.size):
            out[i] = math.nan
        return
    best_cost = _refine(best, low, high, k, vol, scaled, years, nodes, 0.0, floor, window)
    if second_cost < math.inf:
        second_cost = _refine(second, low, high, k, vol, scaled, years, nodes, 0.0, floor, window)
        if second_cost < 0.999 * best_cost:
            best_cost = second_cost
            _copy(second, best)
    raw = out[:_N]
    _raw(best, raw)
    if not _sound(raw, floor):
        _safe_start(best, low, high, second)
        safe_cost = _constrain(second, low, high, k, vol, scaled, years, nodes, 100.0, 30.0, floor, window)
        if safe_cost > _DEAR * best_cost:
            cost = _constrain(best, low, high, k, vol, scaled, years, nodes, 0.1, 10.0, floor, window)
            if cost < safe_cost:
                _copy(best, second)
        _raw(second, raw)
        lift = 1e-4 * max(raw[0] + raw[1] * raw[4], 1e-300)
        for _ in range(400):
            if _sound(raw, floor):
                break
            raw[0] += lift
            lift *= 1.2
    _measure(raw, k, vol, half_spread, weight, years, out)


@part
def _sound(raw: Float, floor: Float) -> bool:
    if not lowest_g(raw[0], raw[1], raw[2], raw[3], raw[4])[0] >= 0.0:
        return False
    return math.isnan(floor[0]) or highest_excess(floor, raw, floor[5], floor[6]) <= 0.0


@part
def _measure(raw: Float, k: Float, vol: Float, half_spread: Float, weight: Float, years: float, out: Float) -> None:
    total, weighted, largest, inside = 0.0, 0.0, 0.0, 0
    for i in range(k.size):
        error = abs(math.sqrt(_variance(k[i], raw) / years) - vol[i])
        total += error * error
        weighted += weight[i] * weight[i] * error * error
        largest = max(largest, error)
        inside += 1 if error <= half_spread[i] else 0
    out[FIT_RMSE] = math.sqrt(total / k.size)
    out[FIT_WEIGHTED] = math.sqrt(weighted)
    out[FIT_MAX] = largest
    out[FIT_INSIDE] = inside / k.size
    out[FIT_MIN_G] = lowest_g(raw[0], raw[1], raw[2], raw[3], raw[4])[0]
