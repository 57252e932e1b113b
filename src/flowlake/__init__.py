"""flowlake: a bucket of raw US options files becomes an audited Parquet lake and reasoned signals of unusual order flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowlake.lake.lake import Lake, connect, open_lake

__version__ = "0.1.0"
__all__ = ["Lake", "connect", "open_lake"]


def __getattr__(name: str) -> Any:
    """Import the lake only when it is asked for, so that `import flowlake.core` stays light."""
    if name in __all__:
        from flowlake.lake import lake

        return getattr(lake, name)
    raise AttributeError(f"module 'flowlake' has no attribute {name!r}")
