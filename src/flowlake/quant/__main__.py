"""`python -m flowlake.quant`: compile what is compiled on its first call, so that no call waits for it.

The machine code is kept beside the source, or in NUMBA_CACHE_DIR, until the file of the kernel or the processor changes.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from flowlake.quant import american, european, exposure, forward, nodes, svi


def compile_kernels() -> None:
    """One call of each public function that has a kernel of its own."""
    european.price(100.0, 100.0, 0.5, 0.2, 1)
    european.implied_vol(5.0, 100.0, 100.0, 0.5, 1)
    european.implied_vol_reason(5.0, 100.0, 100.0, 0.5, 1)
    european.greeks(100.0, 100.0, 0.5, 0.2, 1, 0.04)
    european.implied_vol_greeks(5.0, 100.0, 100.0, 0.5, 1, 0.04)
    american.price(100.0, 100.0, 0.5, 0.2, -1, 0.04)
    american.greeks(100.0, 100.0, 0.5, 0.2, -1, 0.04)
    american.exposure_greeks(100.0, 100.0, 0.5, 0.2, -1, 0.04)
    american.implied_vol_greeks(6.0, 100.0, 100.0, 0.5, -1, 0.04)
    forward.implied_forward([100.0], [5.0], [4.0], [1.0], 1.0)
    strike = np.linspace(80.0, 120.0, 9)
    for dynamics in ("sticky_strike", "sticky_delta"):
        exposure.gamma_profile(100.0, strike, 0.5, 0.2, 1.0, 1, 0.04, dynamics=dynamics)
    k = np.tile(np.log(strike / 100.0), 2)
    nodes.surface_nodes(np.repeat([0.1, 0.2], strike.size), k, 0.2 - 0.1 * k + 0.2 * k * k)
    svi.lowest_g(svi.Svi(0.01, 0.1, -0.5, 0.0, 0.1))


def main() -> None:
    start = time.perf_counter()
    compile_kernels()
    sys.stdout.write(f"the kernels of flowlake.quant are compiled, in {time.perf_counter() - start:.1f} s\n")


if __name__ == "__main__":
    main()
