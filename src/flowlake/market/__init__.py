"""A synthetic options market with known truth, written in the vendor's file formats.

No free tape of the options market exists, so the demo, the tests and the detection benchmark use this one. Everything
follows from a `MarketSpec`; see `Market.truth` for what is known about it.
"""

from flowlake.market.build import Market, build
from flowlake.market.spec import Defect, MarketSpec, VendorFile
from flowlake.market.writer import write_bucket, write_folder, write_truth

__all__ = ["Defect", "Market", "MarketSpec", "VendorFile", "build", "write_bucket", "write_folder", "write_truth"]
