"""The tables of limits as a page to read: ``python -m workers.limits_page > docs/limits.md``."""

import tomllib
from typing import Final

from .costs import LIMITS, SAME_LIMITS, Bucket, load

HEAD: Final = """\
# Limits

What each exchange allows, as the workers keep to it. This page is written from `workers/limits/*.toml`, where also
stands what every call takes from which bucket; `python -m workers.limits_page > docs/limits.md` writes it again.

- **kind**: `rolling`: any stretch of the window's length holds at most the amount. `fixed`: windows that start at
  multiples of their length on the exchange's clock. `decaying`: a counter that falls steadily and may not pass the
  amount. `paced`: calls keep a distance that grows with their cost.
- **counted per**: the address that calls leave from, or the account; and within it each endpoint or each value of a
  parameter alone.
- **certain**: `no` where sources disagree or are silent: the amount is then the safe one.
"""
HEADING: Final = ("| bucket | amount | window | kind | counted per | certain | source |", f"|{' --- |' * 7}")


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, *(_section(path.stem) for path in sorted(LIMITS.glob("*.toml")))])


def _section(exchange: str) -> str:
    checked = tomllib.loads((LIMITS / f"{exchange}.toml").read_text(encoding="utf-8"))["checked"]
    others = [name for name, table in SAME_LIMITS.items() if table == exchange]
    also = f" Also for {', '.join(f'`{name}`' for name in others)}." if others else ""
    rows = [_row(bucket) for bucket in load(exchange, 100).buckets.values()]
    return "\n".join([f"## {exchange}\n\nChecked on {checked}.{also}\n", *HEADING, *rows, ""])


def _row(bucket: Bucket) -> str:
    scope = "address" if bucket.scope == "egress" else "account"
    within = ["endpoint"] * bucket.per_endpoint + [f"`{name}`" for name in bucket.per]
    source = f"{bucket.source}; {bucket.note}" if bucket.note else bucket.source
    cells = [
        f"`{bucket.name}`",
        f"{bucket.amount:,.10g}",
        f"{bucket.window_s:g} s",
        bucket.kind,
        ", ".join([scope, *within]),
        "yes" if bucket.certain else "no",
        source,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
