"""What benchmarks say of repetitions: the median, the least and the most."""

from __future__ import annotations

import statistics


def spread(values: list[float]) -> dict[str, float]:
    """Each to four digits."""
    return {
        name: float(f"{value:.4g}")
        for name, value in (
            ("median", statistics.median(values)),
            ("least", min(values)),
            ("most", max(values)),
        )
    }
