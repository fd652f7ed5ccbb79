"""Gauges with a lane among their labels, in the metrics of both services."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Gauge


def drop(lane: str, gauges: Iterable[Gauge]) -> None:
    """Removes the values of a lane that has left the configuration: nothing would ever change them again."""
    for gauge in gauges:
        for family in gauge.collect():
            for sample in family.samples:
                if sample.labels["lane"] == lane:
                    gauge.remove(*sample.labels.values())
