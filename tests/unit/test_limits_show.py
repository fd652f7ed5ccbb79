"""`python -m workers.limits show`: which lanes keep to a table, and which to a guess."""

from pathlib import Path

from typer.testing import CliRunner

from workers.limits.__main__ import app

CONFIG = """
    [lanes.huobi]
    [lanes."bitvavo.eu"]
    [lanes.coinmate]
    [lanes.gate]
    [lanes.woo]
    [limits.coinmate]
    default = [{ bucket = "mine" }]
    [limits.coinmate.buckets.mine]
    amount = 100
    window_s = 60
    kind = "rolling"
"""


def test_it_shows_where_each_lane_s_limits_come_from(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(CONFIG)
    done = CliRunner().invoke(app, ["show", "--config", str(file)])
    assert done.exit_code == 0, done.output
    lanes = dict(line.split(": ", 1) for line in done.output.splitlines() if not line.startswith(" "))
    assert lanes["huobi"].startswith("the table of htx, checked on 20")
    assert lanes["bitvavo.eu"].startswith("a guess: no limits of bitvavo are known here, so ccxt's rateLimit paces")
    assert lanes["coinmate"] == "coinmate, changed by [limits.coinmate]"
    assert "    mine: 100 in 60 s, rolling, per address" in done.output.splitlines()
    assert not any("all: 1 in" in line for line in done.output.partition("coinmate: ")[2].splitlines())
    assert "endpoint: 200 in 10 s, rolling, per address, endpoint" in done.output

    uncertain = next(line for line in done.output.splitlines() if "endpoint: 10 in 1 s" in line)
    assert uncertain.endswith("; not certain: by third parties and ccxt; its page was not read")

    one = CliRunner().invoke(app, ["show", "huobi", "--config", str(file)])
    assert {line.partition(":")[0] for line in one.output.splitlines() if not line.startswith(" ")} == {"huobi"}
    by_lane = CliRunner().invoke(app, ["show", "bitvavo.eu", "huobi", "--config", str(file)])
    assert sum(not line.startswith(" ") for line in by_lane.output.splitlines()) == 2
    none = CliRunner().invoke(app, ["show", "bitmex", "--config", str(file)])
    assert none.exit_code == 1
    assert "bitmex: expected one of bitvavo, bitvavo.eu, coinmate, gate, htx, huobi" in none.output


def test_a_lane_of_no_exchange_is_told(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[lanes.mtgox]\n")
    done = CliRunner().invoke(app, ["show", "--config", str(file)])
    assert done.exit_code == 1
    assert "lanes.mtgox.exchange: expected an exchange id of ccxt" in done.output
