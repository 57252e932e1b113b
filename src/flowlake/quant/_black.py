"""The compiled part of `european`: Black's formula, its sensitivities and its inversion.

All of it stands in one file because numba's cache looks for changes in the file of the kernel that is called, and nowhere else.

Inversion. With x = |ln(forward/strike)|, s = vol sqrt(years), h = x/s and t = s/2, the undiscounted out-of-the-money price over
sqrt(forward strike) is

    b(s) = phi(0) exp(-(h^2 + t^2)/2) D(s),    D(s) = R(h - t) - R(h + t),    R Mills' ratio,

and ln b has the slope 1/D in s. Solving for ln b rather than b makes the problem nearly linear from far out of the money to
at the money. The start is Bachelier's formula inverted in closed form (Jaeckel, "Implied Normal Volatility", Wilmott, 2017)
and carried over to the lognormal model by a polynomial in two variables, good to 3e-4; one fourth-order Householder step,
whose error is of the fifth order, does the rest. This is straight-line arithmetic without branches and without calls into libm,
so the loop is vectorised. Its result is kept only where the step was so small that a second could not matter; for the rest, NaN,
a bracketed search decides.

The elementary functions below use additions, multiplications, divisions, fused multiply-adds and bit operations alone, hence give
the same bits on every machine. Their polynomials are Chebyshev fits computed with 40 digits; the stated error is the fit's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import Float
from flowlake.quant._compile import inlined, kernel, part
from flowlake.quant._instructions import bits, double, fma, magnitude, maximum, shift_right

EPSILON = 2.220446049250313e-16
LOG_PHI_ZERO = -0.9189385332046728
PHI_ZERO = 0.3989422804014327
SQRT_TWO_PI = 2.5066282746310002
SQRT_HALF = 0.7071067811865476
INV_LN2 = 1.4426950408889634
LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10

# The exponent field of a double; the bits of 1.5; the bits of 2**52, whose low bits hold an integer exactly.
EXPONENT = 0x7FF0000000000000
ONE_AND_HALF_BITS = 0x3FF8000000000000
INTEGER_HOLDER = 0x4330000000000000
HOLDER_BIAS = 4503599627370496.0 + 1023.0
# Adding 1.5 * 2**52 rounds a double to an integer and leaves it in the low bits.
ROUNDER = 6755399441055744.0
# `exponential` has a meaning below this.
LARGEST_EXPONENT = 700.0

# The interval of the polynomials for Mills' ratio, which are q P(u) with q = 1/(a + 5.5) and u linear in q.
MILLS_LOW = -0.8
MILLS_HIGH = 9.0
MILLS_SHIFT = 5.5
MILLS_CENTRE = 1.9591836734693877
MILLS_SLOPE = -13.908163265306122

# A fifth-order step that moves s by less than this fraction leaves an error below rounding.
LAST_STEP = 1e-3
# Outside these the straight-line inversion is not tried: |ln(forward/strike)|, and scales at which products could overflow.
WIDEST = 2.0
LARGEST = 1e100
SMALLEST = 1e-100
# No pair of doubles for price and forward implies a larger total volatility.
LARGEST_TOTAL_VOL = 256.0
# Options per tile: its ten rows of this many doubles lie in the first-level cache.
TILE = 256

# The codes of `european.ImpliedVolReason`.
OK = 0
BELOW_INTRINSIC = 1
ABOVE_MAXIMUM = 2
BAD_INPUT = 3


@inlined
def normal_cdf(x: float) -> float:
    """Phi(x), through libm."""
    return 0.5 * math.erfc(-x * SQRT_HALF)


@inlined
def log_moneyness(a: float, b: float) -> float:
    """ln(a/b) for any positive finite a and b, through libm."""
    ratio = a / b
    if 0.5 < ratio < 2.0:
        return math.log1p((a - b) / b)
    return math.log(ratio) if SMALLEST < ratio < LARGEST else math.log(a) - math.log(b)


@inlined
def halve(a: float, b: float) -> tuple[float, float, float]:
    """Write a/b = 2**e (1 + z)/(1 - z) with |z| < 0.201; give e, z and z**2. a and b must be positive and normal."""
    exponent = (bits(a) - bits(b) + ONE_AND_HALF_BITS) & EXPONENT
    scaled = b * double(exponent)
    e = double(shift_right(exponent, 52) | INTEGER_HOLDER) - HOLDER_BIAS
    z = (a - scaled) / (a + scaled)
    return e, z, z * z


@inlined
def log_ratio(a: float, b: float) -> float:
    """ln(a/b) for positive normal a and b, precise also where they are close (error 3e-17 relative)."""
    e, z, w = halve(a, b)
    p = fma(w, 0.13619066042830322, 0.13208398002781363)
    p = fma(w, p, 0.1538893460259468)
    p = fma(w, p, 0.18181735949669697)
    p = fma(w, p, 0.22222223069772148)
    p = fma(w, p, 0.2857142856714695)
    p = fma(w, p, 0.4000000000000823)
    p = fma(w, p, 0.6666666666666666)
    return fma(e, LN2_HIGH, fma(z, 2.0, fma(z * w, p, e * LN2_LOW)))


@inlined
def rough_log_ratio(a: float, b: float) -> float:
    """ln(a/b) for positive normal a and b, to 1e-8: enough to start with."""
    e, z, w = halve(a, b)
    p = fma(w, 0.2996638361610413, 0.39978694029211753)
    p = fma(w, p, 0.6666671445606002)
    return fma(e, LN2_HIGH, z * fma(w, p, 2.0))


@inlined
def exponential(x: float) -> float:
    """exp(x) for |x| < 700 (error 1e-19 relative); without meaning outside."""
    rounded = fma(x, INV_LN2, ROUNDER)
    n = rounded - ROUNDER
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = fma(r, 2.09215799649503e-09, 2.5114869528657765e-08)
    p = fma(r, p, 2.7557251904174915e-07)
    p = fma(r, p, 2.7557224958392624e-06)
    p = fma(r, p, 2.4801587350110797e-05)
    p = fma(r, p, 0.000198412699092171)
    p = fma(r, p, 0.001388888888887189)
    p = fma(r, p, 0.008333333333309528)
    p = fma(r, p, 0.04166666666666669)
    p = fma(r, p, 0.16666666666666702)
    p = fma(r, p, 0.5)
    # The low bits of `rounded` hold n; added to the exponent they multiply by 2**n.
    return double(bits(1.0 + fma(r * r, p, r)) + (bits(rounded) << 52))


@inlined
def mills(q: float) -> float:
    """Mills' ratio (1 - Phi(a))/phi(a) at a = 1/q - 5.5, MILLS_LOW <= a <= MILLS_HIGH (error 2e-15)."""
    u = fma(q, MILLS_SLOPE, MILLS_CENTRE)
    w = u * u
    even = fma(w, -2.9243989201001027e-10, 1.0859307672384453e-08)
    odd = fma(w, 6.305877263122277e-09, -1.1716982557791833e-07)
    even = fma(w, even, -2.144472691434972e-07)
    odd = fma(w, odd, 1.8561839717166264e-06)
    even = fma(w, even, 2.926549396480352e-06)
    odd = fma(w, odd, -3.294818148984024e-05)
    even = fma(w, even, -9.095236389812994e-06)
    odd = fma(w, odd, 0.0006125622396583122)
    even = fma(w, even, -0.0014779622076172962)
    odd = fma(w, odd, -0.00692967966806246)
    even = fma(w, even, 0.06650051494913828)
    odd = fma(w, odd, -0.2805055871759295)
    even = fma(w, even, 0.8005320813124456)
    odd = fma(w, odd, -1.7075132725541253)
    even = fma(w, even, 2.8151816762694812)
    odd = fma(w, odd, -3.6031642192757074)
    even = fma(w, even, 3.5087170589250523)
    return q * fma(u, odd, even)


@inlined
def reciprocals(s: float, x: float) -> tuple[float, float, float]:
    """1/s, and 1/(a + 5.5) for a = x/s - s/2 and a = x/s + s/2; all three from one division, the slowest of the arithmetic."""
    # a + 5.5 = (x + 5.5 s -+ s^2/2)/s.
    middle = fma(s, MILLS_SHIFT, x)
    half = 0.5 * s * s
    near = middle - half
    far = middle + half
    product = near * far
    inverse = 1.0 / (product * s)
    scaled = inverse * s * s
    return inverse * product, scaled * far, scaled * near


@inlined
def guess(otm: float, forward: float, strike: float, scale: float, x: float) -> float:
    """Total volatility to 3e-4 relative where it is below 1.7, x below 2 and the price above exp(-35) or so."""
    reach = magnitude(forward - strike) + otm
    log_reach = rough_log_ratio(reach, otm)
    v = (log_reach - 6.0) / (log_reach + 6.0)
    p = fma(v, -0.03612807481797623, -0.05675344464079458)
    p = fma(v, p, 0.10950092037280665)
    p = fma(v, p, 0.13160789806333273)
    p = fma(v, p, -0.5454429371308043)
    p = fma(v, p, 0.7323660870883513)
    p = fma(v, p, -0.7667077607191448)
    p = fma(v, p, 0.4605513331140921)
    # The total volatility of Bachelier's model, then the ratio of Black's to it.
    normal = reach * scale * p
    w = normal * normal
    y = x * x
    p0 = fma(y, fma(y, fma(y, -5.2367786708696155e-05, 0.0012572624936499522), -0.04151685244354048), 0.9998898436417625)
    p1 = fma(y, fma(y, 0.0005502683741145918, -0.005943797476725533), 0.04129293528439971)
    p2 = fma(y, -0.000949613308676738, 0.004152126782105459)
    return normal * fma(w, fma(w, fma(w, 0.00039038260335674444, p2), p1), p0)


@inlined
def householder(d: float, b: float, s: float, x: float, inverse_s: float) -> float:
    """The fourth-order Householder step in s that takes ln b(s), with D(s) = d, to ln b."""
    h = x * inverse_s
    hh = h * h
    tt = 0.25 * s * s
    y = fma(hh + tt, 0.5, -LOG_PHI_ZERO) - log_ratio(d, b)
    n = y * d
    i = n * inverse_s
    # n, n^2 and n^3 times the second, third and fourth derivative of b over the first.
    second = i * (hh - tt)
    slope = -i * i * fma(hh, 3.0, tt)
    third = fma(second, second, slope)
    fourth = fma(second, fma(second, second, 3.0 * slope), 12.0 * i * i * i * hh)
    # The same for ln b, by the chain rule; y stands for n times the slope of ln b.
    yy = y * y
    g2 = second - y
    g3 = fma(yy, 2.0, fma(-3.0 * y, second, third))
    g4 = fma(-4.0 * y, third, fourth) + y * fma(second, fma(y, 12.0, -3.0 * second), -6.0 * yy)
    upper = fma(g3, 1.0 / 6.0, 1.0 + g2)
    lower = fma(g4, 1.0 / 24.0, fma(g3, 1.0 / 3.0, fma(g2, fma(g2, 0.25, 1.5), 1.0)))
    return n * upper / lower


@inlined
def total_vol(otm: float, forward: float, strike: float, scale: float) -> float:
    """Total volatility by straight-line arithmetic, scale being 1/sqrt(forward strike); NaN where the search has to decide."""
    b = otm * scale
    x = magnitude(log_ratio(forward, strike))
    s = guess(otm, forward, strike, scale, x)
    inverse_s, near, far = reciprocals(s, x)
    step = householder(mills(near) - mills(far), b, s, x, inverse_s)
    usable = (
        (otm > SMALLEST)
        & (forward > SMALLEST)
        & (forward < LARGEST)
        & (strike > SMALLEST)
        & (strike < LARGEST)
        & (x < WIDEST)
        & (near < 1.0 / (MILLS_LOW + MILLS_SHIFT))
        & (far > 1.0 / (MILLS_HIGH + MILLS_SHIFT))
        & (magnitude(step) < LAST_STEP * s)
    )
    return s + step if usable else math.nan


@inlined
def time_value(price: float, forward: float, strike: float, right: float, discount: float) -> float:
    """Undiscounted price of the out-of-the-money option of the same strike; zero where no volatility exists, or NaN.

    Subtracting the intrinsic value leaves rounding noise of the size of one unit in the last place of forward and strike: what
    does not stand out of it is returned as zero. The same holds at the other end, where the price reaches its maximum.
    """
    undiscounted = price / discount if discount > 0.0 else math.nan
    intrinsic = right * (forward - strike)
    above = undiscounted - intrinsic
    value = undiscounted if intrinsic <= 0.0 else (above if above > EPSILON * (forward + strike) else 0.0)
    most = forward if right > 0.0 else strike
    return value if most - undiscounted > EPSILON * most else 0.0


@inlined
def mills_anywhere(a: float) -> float:
    """Mills' ratio for any a; inf where it overflows."""
    if a < MILLS_LOW:
        return 0.5 * math.erfc(a * SQRT_HALF) * SQRT_TWO_PI * math.exp(0.5 * a * a)
    if a < MILLS_HIGH:
        return mills(1.0 / (a + MILLS_SHIFT))
    # Laplace's continued fraction.
    tail = a
    for n in range(16, 0, -1):
        tail = a + n / tail
    return 1.0 / tail


@part
def usable_inputs(forward: float, strike: float, years: float, discount: float) -> bool:
    """Whether all are positive and finite."""
    return (
        0.0 < forward < math.inf
        and 0.0 < strike < math.inf
        and 0.0 < years < math.inf
        and 0.0 < discount < math.inf
    )  # fmt: skip


@part
def search_vol(price: float, forward: float, strike: float, years: float, right: float, discount: float) -> float:
    """Implied volatility of one option, for any price that determines one; NaN for the others.

    Safeguarded Halley steps on ln b, or on the logarithm of the distance to the maximum where the price is in its upper half; a
    bracket that bisection shrinks makes it end with an answer.
    """
    if not usable_inputs(forward, strike, years, discount):
        return math.nan
    otm = time_value(price, forward, strike, right, discount)
    if not 0.0 < otm < math.inf:
        return math.nan
    room = (forward if right > 0.0 else strike) - price / discount
    log_forward = math.log(forward)
    log_strike = math.log(strike)
    x = magnitude(log_moneyness(forward, strike))
    lower_half = otm < room
    log_mean = 0.5 * (log_forward + log_strike)
    log_target = math.log(otm if lower_half else room) - log_mean
    lo = 0.0
    hi = LARGEST_TOTAL_VOL
    if lower_half and x < WIDEST:
        s = guess(otm, forward, strike, math.exp(-log_mean), x)
    elif lower_half:
        s = x / math.sqrt(2.0 * maximum(-log_target, 0.1))
    else:
        s = math.sqrt(2.0 * x) + 1.0
    iteration = 0
    while True:
        if not lo < s < hi:
            s = 0.5 * (lo + hi)
        h = x / s
        t = 0.5 * s
        log_density = LOG_PHI_ZERO - 0.5 * (h * h + t * t)
        # y > 0 where s is too small. Where D vanishes or overflows its limit still tells on which side of the root s lies.
        if lower_half:
            d = mills_anywhere(h - t) - mills_anywhere(h + t)
            y = log_target - log_density - math.log(d) if d > 0.0 else math.inf
        else:
            d = mills_anywhere(t - h) + mills_anywhere(h + t)
            y = log_density + math.log(d) - log_target
        if y > 0.0:
            lo = s
        else:
            hi = s
        n = y * d
        curvature = n * (h * h - t * t) / s + (-y if lower_half else y)
        new = s + n / (1.0 + 0.5 * curvature)
        if not lo <= new <= hi or iteration > 60:
            new = 0.5 * (lo + hi)
        if magnitude(new - s) <= EPSILON * (s + 0.5) or hi - lo <= EPSILON * hi:
            return new / math.sqrt(years)
        s = new
        iteration += 1


@kernel
def fill_implied_vols(out: Float, price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float) -> None:
    """Write implied volatilities; NaN where none exists."""
    for i in range(out.size):
        otm = time_value(price[i], forward[i], strike[i], right[i], discount[i])
        root = np.sqrt(years[i])
        mean = np.sqrt(forward[i] * strike[i])
        inverse = 1.0 / (root * mean)
        out[i] = total_vol(otm, forward[i], strike[i], inverse * root) * (inverse * mean)
    for i in range(out.size):
        if not 0.0 < out[i] < math.inf:
            out[i] = search_vol(price[i], forward[i], strike[i], years[i], right[i], discount[i])


@kernel
def fill_reasons(
    out: NDArray[np.int8], price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float
) -> None:
    """Write the code of the reason for each implied volatility."""
    for i in range(out.size):
        if not (math.isfinite(price[i]) and usable_inputs(forward[i], strike[i], years[i], discount[i])):
            out[i] = BAD_INPUT
        elif time_value(price[i], forward[i], strike[i], right[i], discount[i]) > 0.0:
            out[i] = OK
        else:
            most = forward[i] if right[i] > 0.0 else strike[i]
            intrinsic = maximum(right[i] * (forward[i] - strike[i]), 0.0)
            out[i] = ABOVE_MAXIMUM if price[i] / discount[i] - intrinsic > 0.5 * (most - intrinsic) else BELOW_INTRINSIC


@kernel
def fill_prices(out: Float, forward: Float, strike: Float, years: Float, vol: Float, right: Float, discount: Float) -> None:
    """Write discounted premiums."""
    for i in range(out.size):
        f, k, v, t = forward[i], strike[i], vol[i], years[i]
        if not (0.0 < f < math.inf and 0.0 < k < math.inf and 0.0 < discount[i] < math.inf) or not (
            math.isfinite(v) and v >= 0.0 and math.isfinite(t) and t >= 0.0
        ):
            out[i] = math.nan
            continue
        # The out-of-the-money option and parity: taking the larger legs of the other one apart would cost digits.
        value = maximum(right[i] * (f - k), 0.0)
        s = v * math.sqrt(t)
        if s > 0.0:
            side = 1.0 if f <= k else -1.0
            d1 = log_moneyness(f, k) / s + 0.5 * s
            value += maximum(side * (f * normal_cdf(side * d1) - k * normal_cdf(side * (d1 - s))), 0.0)
        out[i] = discount[i] * value


@kernel
def fill_greeks(
    out: Float, spot: Float, strike: Float, years: Float, vol: Float, right: Float, rate: Float, dividend_yield: Float
) -> None:
    """Write delta, gamma, vega, theta, rho, vanna, volga, charm and speed into the nine rows of `out`."""
    for i in range(spot.size):
        price_now, k, t, v, sign, r, q = spot[i], strike[i], years[i], vol[i], right[i], rate[i], dividend_yield[i]
        if not (usable_inputs(price_now, k, t, v) and math.isfinite(r) and math.isfinite(q)):
            out[:, i] = math.nan
            continue
        root = math.sqrt(t)
        s = v * root
        d1 = (log_moneyness(price_now, k) + (r - q) * t) / s + 0.5 * s
        d2 = d1 - s
        carry = math.exp(-q * t)
        density = carry * PHI_ZERO * math.exp(-0.5 * d1 * d1)
        asset = carry * normal_cdf(sign * d1)
        bond = k * math.exp(-r * t) * normal_cdf(sign * d2)
        gamma = density / (price_now * s)
        vega = price_now * density * root
        out[0, i] = sign * asset
        out[1, i] = gamma
        out[2, i] = vega
        out[3, i] = sign * (q * price_now * asset - r * bond) - 0.5 * vega * v / t
        out[4, i] = sign * t * bond
        out[5, i] = -density * d2 / v
        out[6, i] = vega * d1 * d2 / v
        out[7, i] = sign * q * asset - density * ((r - q) / s - 0.5 * d2 / t)
        out[8, i] = -gamma / price_now * (d1 / s + 1.0)


@kernel
def fill_implied_vol_greeks(
    out: Float, price: Float, spot: Float, strike: Float, years: Float, right: Float, rate: Float, dividend_yield: Float
) -> None:
    """Write implied volatility, delta, gamma, vega, theta and rho into the six rows of `out`; NaN where no volatility exists."""
    # Results go through a tile of fixed shape: against thirteen separate arrays the compiler would have too many pairs to prove
    # disjoint, and would give up vectorising. Three short loops keep their values in registers, one long loop would not.
    tile = np.empty((10, TILE))
    for start in range(0, price.size, TILE):
        count = min(TILE, price.size - start)
        for j in range(count):
            i = start + j
            discount = exponential(-rate[i] * years[i])
            forward = spot[i] * (exponential(-dividend_yield[i] * years[i]) / discount)
            tile[6, j] = discount
            tile[7, j] = forward
            tile[8, j] = np.sqrt(forward * strike[i])
        for j in range(count):
            i = start + j
            otm = time_value(price[i], tile[7, j], strike[i], right[i], tile[6, j])
            tile[9, j] = total_vol(otm, tile[7, j], strike[i], 1.0 / tile[8, j])
        for j in range(count):
            i = start + j
            t, r, q, k, sign = years[i], rate[i], dividend_yield[i], strike[i], right[i]
            discount, forward, mean, s = tile[6, j], tile[7, j], tile[8, j], tile[9, j]
            s = s if (magnitude(r * t) < LARGEST_EXPONENT) & (magnitude(q * t) < LARGEST_EXPONENT) else math.nan
            x = magnitude(log_ratio(forward, k))
            inverse_s, near_q, far_q = reciprocals(s, x)
            h = x * inverse_s
            density = mean * PHI_ZERO * exponential(-0.5 * fma(h, h, 0.25 * s * s))
            near = density * mills(near_q)
            far = density * mills(far_q)
            # forward Phi(+-d1) and strike Phi(+-d2): of the out-of-the-money option, then of the option asked for.
            call_is_out = forward <= k
            is_out = call_is_out == (sign > 0.0)
            asset = near if call_is_out else far
            bond = far if call_is_out else near
            asset = discount * (asset if is_out else forward - asset)
            bond = discount * (bond if is_out else k - bond)
            density = discount * density
            root = np.sqrt(t)
            inverse_spot = 1.0 / spot[i]
            inverse_root = 1.0 / root
            tile[0, j] = s * inverse_root
            tile[1, j] = sign * asset * inverse_spot
            tile[2, j] = density * inverse_spot * inverse_spot * inverse_s
            tile[3, j] = density * root
            tile[4, j] = sign * (q * asset - r * bond) - 0.5 * density * s * inverse_root * inverse_root
            tile[5, j] = sign * t * bond
        for row in range(6):
            for j in range(count):
                out[row, start + j] = tile[row, j]
    for i in range(price.size):
        if not 0.0 < out[0, i] < math.inf:
            t, r, q, k, sign = years[i], rate[i], dividend_yield[i], strike[i], right[i]
            discount = math.exp(-r * t)
            forward = spot[i] * math.exp((r - q) * t)
            vol = search_vol(price[i], forward, k, t, sign, discount)
            if not vol > 0.0:
                out[:, i] = math.nan
                continue
            root = math.sqrt(t)
            s = vol * root
            d1 = log_moneyness(forward, k) / s + 0.5 * s
            density = discount * forward * PHI_ZERO * math.exp(-0.5 * d1 * d1)
            asset = discount * forward * normal_cdf(sign * d1)
            bond = discount * k * normal_cdf(sign * (d1 - s))
            out[0, i] = vol
            out[1, i] = sign * asset / spot[i]
            out[2, i] = density / (spot[i] * spot[i] * s)
            out[3, i] = density * root
            out[4, i] = sign * (q * asset - r * bond) - 0.5 * density * vol / root
            out[5, i] = sign * t * bond
