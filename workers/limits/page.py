"""The tables as a page to read: ``python -m workers.limits.page > docs/limits.md``."""

from typing import Final

from .answers import Answer
from .costs import Bucket, load
from .tables import Tables, shipped

HEAD: Final = """\
# Limits

What each exchange allows, as the workers keep to it. This page is written from `workers/limits/*.toml`, where also
stands what every call takes from which bucket; `python -m workers.limits.page > docs/limits.md` writes it again.
[The glossary](glossary.md) has the words.

- **kind**: `rolling`: any stretch of the window's length holds at most the amount. `fixed`: windows that start at
  multiples of their length on the exchange's clock. `decaying`: a counter that falls steadily and may not pass the
  amount. `paced`: calls keep a distance that grows with their cost.
- **counted per**: the address that calls leave from, or the account; and within it each endpoint or each value of a
  parameter alone.
- **certain**: `no` where sources disagree or are silent, or where only third parties or ccxt have a figure: the amount
  is then the safest one. `ccxt-fleet limits show` says so too, and why. [How figures were checked](checked.md).

The second table of an exchange says what its answers mean beside their HTTP status: `limit`: too many calls, and no
call is sent for the time that the answer names, or else for the pause; `ban`: the same for the whole address, and at
least for the pause; `limit of the account`: no call of that account, from wherever, and others go on; `clock`: our
time or a nonce is wrong; `region`: it does not serve this address; `busy`: it is overloaded, or fails; `key`: the key
or its account; `symbol`: there is no such market; `arguments`: the request; `unsupported`: switched off, or not
there. `region` and `busy` are no limits of ours at any status. Else status 429 is a `limit` at every exchange, with a
pause of 2 s, 418 a `ban` of 120 s, and Cloudflare's error 1015 one of 60 s, or of 10 s at least where it names a
time.
"""
BUCKETS: Final = ("| bucket | amount | window | kind | counted per | certain | source |", f"|{' --- |' * 7}")
ANSWERS: Final = ("| answer | means | pause | source |", f"|{' --- |' * 4}")


def page() -> str:
    """The whole page, in Markdown."""
    tables = shipped()
    return "\n".join([HEAD, *(_section(tables, name) for name in tables.names)])


def _section(tables: Tables, exchange: str) -> str:
    table = tables.of(exchange)
    assert table is not None
    said = [f"Checked on {table.checked}."]
    if table.same_limits:
        said.append(f"Also for {_code(table.same_limits)}.")
    if table.same_answers:
        said.append(f"Its answers mean the same at {_code(table.same_answers)}.")
    said += [f"`{other}` shares nothing with it: {why}." for other, why in table.apart.items()]
    if table.refusal_pauses == "endpoint":
        said.append("A refusal pauses the endpoint alone.")
    if not table.buckets:
        said.append("Its limits are not here: calls are paced by ccxt's `rateLimit`, which is a guess.")
    lines = [f"## {exchange}", "", " ".join(said), ""]
    if table.buckets:
        lines += [*BUCKETS, *(_bucket(bucket) for bucket in load(exchange, 100).buckets.values()), ""]
    if entries := tables.entries(exchange):
        lines += [*ANSWERS, *(_answer(answer) for answer in entries), ""]
    return "\n".join(lines)


def _bucket(bucket: Bucket) -> str:
    scope = "address" if bucket.scope == "egress" else "account"
    within = ["endpoint"] * bucket.per_endpoint + [f"`{name}`" for name in bucket.per]
    return _row(
        f"`{bucket.name}`",
        f"{bucket.amount:,.10g}",
        f"{bucket.window_s:g} s",
        bucket.kind,
        ", ".join([scope, *within]),
        "yes" if bucket.certain else "no",
        _source(bucket),
    )


def _answer(answer: Answer) -> str:
    words: list[str] = []
    if answer.status is not None:
        words.append(f"status {answer.status}")
    if answer.fields:
        words.append(f"{_code(answer.fields)} {'is' if answer.equals else 'holds'}")
    if answer.texts:
        words.append(_code(answer.texts))
    if answer.followed_by:
        words.append(f"and later {_code(answer.followed_by)}")
    if answer.without:
        words.append(f"without the headers {_code(answer.without)}")
    pause = f"{answer.pause_s:g} s" if answer.pause_s else ""
    if answer.least_s or answer.most_s:
        pause += " ({:g} to {:g} s)".format(*answer.bounds_s)
    means = f"{answer.means} of the account" if answer.account else answer.means
    return _row(" ".join(words), means, pause, _source(answer))


def _source(fact: Bucket | Answer) -> str:
    return f"{fact.source}; {fact.note}" if fact.note else fact.source


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")
