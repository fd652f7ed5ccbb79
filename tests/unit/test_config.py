"""The configuration: its defaults, the environment, and errors that name the key and what was expected."""

from pathlib import Path

import msgspec
import pytest
from rich.pretty import pretty_repr

from schemas.config import Config, load
from schemas.errors import ConfigError

LANE = "[lanes.okx]\n"


def read(folder: Path, text: str | bytes, **environment: str) -> Config:
    path = folder / "fleet.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path, environment)


def test_all_but_the_lanes_has_a_default(tmp_path: Path) -> None:
    config = read(tmp_path, LANE)
    assert list(config.lanes) == ["okx"]
    assert config == Config(lanes={"okx": msgspec.structs.replace(config.lanes["okx"], exchange="okx")})


def test_a_lane_s_exchange_is_its_name_up_to_the_dot_unless_it_says_so(tmp_path: Path) -> None:
    config = read(tmp_path, '[lanes."kraken.eu-1"]\n[lanes.other]\nexchange = "binance"\n')
    assert {name: lane.exchange for name, lane in config.lanes.items()} == {"kraken.eu-1": "kraken", "other": "binance"}


def test_old_names_of_exchanges_are_today_s(tmp_path: Path) -> None:
    text = """
        [lanes.huobi]
        [lanes.mine]
        exchange = "okex5"
        [limits.huobi]
        buckets.second.amount = 5
        [groups.two]
        exchanges = ["huobi", "okex"]
    """
    config = read(tmp_path, text)
    assert {name: lane.exchange for name, lane in config.lanes.items()} == {"huobi": "htx", "mine": "okx"}
    assert list(config.limits) == ["htx"]
    assert config.groups["two"].exchanges == ("huobi", "okx")  # the lane, and the exchange


def test_lanes_with_one_egress_share_it(tmp_path: Path) -> None:
    text = '[lanes.a]\n[lanes.b]\nlocal_addr = "10.0.0.1"\n[lanes.c]\nproxy = "http://proxy:1"\n'
    config = read(tmp_path, text)
    assert [lane.egress for lane in config.lanes.values()] == ["default", "10.0.0.1", "http://proxy:1"]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = '[broker]\nurls = ["amqp://file/"]\n[redis]\nurl = "redis://file"\n' + LANE
    config = read(tmp_path, text, FLEET_BROKER_URL="amqp://a/,amqp://b/", FLEET_REDIS_URL="redis://environment")
    assert config.broker.urls == ("amqp://a/", "amqp://b/")
    assert config.redis.url == "redis://environment"
    assert read(tmp_path, text, FLEET_BROKER_URL="").broker.urls == ("amqp://file/",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lanes.okx", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("a = " + "[" * 5_000, "not TOML"),
        ("a = " + "9" * 5_000, "not TOML"),
        (LANE + "[worker]\nin_flight = 65536\n", "worker.in_flight: Expected `int` <= 65535"),
        (LANE + f"[broker]\nheartbeat_s = {10**20}\n", "broker.heartbeat_s: Expected `int` <= 65535"),
        ("", "lanes"),
        ("[lanes]\n", "lanes: "),
        ('lanes = "okx"\n', "lanes: "),
        ("[broker]\nurl = 'amqp://x'\n" + LANE, "`url`"),
        ("[brokers]\n" + LANE, "`brokers`"),
        ("[broker]\nurls = []\n" + LANE, "broker.urls"),
        ("[broker]\nurls = 'amqp://x'\n" + LANE, "broker.urls"),
        ("[broker]\nurls = [5]\n" + LANE, "broker.urls[0]"),
        ("[broker]\nheartbeat_s = 0\n" + LANE, "broker.heartbeat_s"),
        ("[broker]\nheartbeat_s = 'often'\n" + LANE, "broker.heartbeat_s"),
        ("[broker]\ntimeout_s = 0\n" + LANE, "broker.timeout_s"),
        ("[redis]\ntimeout_s = -1\n" + LANE, "redis.timeout_s"),
        ("[dispatcher]\nstrategy = 'best'\n" + LANE, "dispatcher.strategy"),
        ("[dispatcher]\nmax_attempts = 0\n" + LANE, "dispatcher.max_attempts"),
        ("[dispatcher]\ntimeout_s = inf\n" + LANE, "dispatcher.timeout_s"),
        ("[dispatcher]\ntimeout_s = nan\n" + LANE, "dispatcher.timeout_s"),
        ("[worker]\nin_flight = 1.5\n" + LANE, "worker.in_flight"),
        ("[worker]\nin_flight = 0\n" + LANE, "worker.in_flight"),
        ("[worker]\nhttp_timeout_s = true\n" + LANE, "worker.http_timeout_s"),
        (
            "[lanes.okx]\nwieght = 2\n",
            "lanes.okx: Object contains unknown field `wieght`; expected one of exchange, weight,",
        ),
        ("[broker]\nurl = 'x'\n" + LANE, "broker: Object contains unknown field `url`; expected one of urls,"),
        ("[dispather]\n" + LANE, "unknown field `dispather`; expected one of lanes,"),
        ("[groups.g]\nexchange = 'okx'\n" + LANE, "unknown field `exchange`; expected one of exchanges, strategy"),
        ("[accounts.a]\napi_kye = 5\n" + LANE, "accounts.a: Object contains unknown field `api_kye`; expected one of"),
        (
            "[accounts.a]\napi_key = { evn = 'X' }\n" + LANE,
            "accounts.a.api_key: Object contains unknown field `evn`; expected one of env, file",
        ),
        ("[lanes.okx]\nweight = 0\n", "lanes.okx.weight"),
        ("[lanes.okx]\nweight = 'heavy'\n", "lanes.okx.weight"),
        ("[lanes.okx]\nweight = inf\n", "lanes.okx.weight"),
        ("[broker]\nurls = ['localhost']\n" + LANE, "broker.urls[0]"),
        ("[redis]\nurl = 'localhost'\n" + LANE, "redis.url"),
        ("[lanes.okx]\nlocal_addr = 'here'\n", "lanes.okx.local_addr"),
        ("[lanes.okx]\nproxy = 'there'\n", "lanes.okx.proxy"),
        ("[lanes.okx]\nccxt = 5\n", "lanes.okx.ccxt"),
        ("[lanes.okx]\naccount = 'main'\n", "lanes.okx.account: expected an account"),
        ("[lanes.okx]\naccount = 'x'\n[accounts.main]\n", "lanes.okx.account: expected main"),
        ("[lanes.okx]\nccxt.apiKey = 'k'\n", "lanes.okx.ccxt.apiKey: expected in [accounts.<name>]"),
        (LANE + "[accounts.main]\nsecret = 'k3y'\n", 'accounts.main.secret: expected { env = "NAME" } or { file'),
        (LANE + "[accounts.main]\nsecret = { env = 5 }\n", "accounts.main.secret.env"),
        (LANE + "[accounts.main]\nsecrets = {}\n", "accounts.main: "),
        ("[lanes.okx]\nlive_reserve = 1\n", "lanes.okx.live_reserve"),
        ("[lanes.okx]\n[limits.okx]\nbuckte = {}\n", "limits.okx: "),
        ("[lanes.okx]\n[limits.okx]\nbuckets.of_20 = 5\n", "limits.okx.buckets[...]"),
        ("[lanes.okx]\n[limits.okx]\ndefault = 5\n", "limits.okx.default"),
        ("[lanes.htx]\n[limits.huobi]\n[limits.htx]\n", "limits.huobi: expected in limits.htx"),
        ("[lanes.okx]\n[lanes.kraken]\nweight = 0\n", "lanes.kraken.weight"),
        ("[lanes.kraken.eu]\n", "lanes.kraken"),
        ("[lanes.OKX]\n", "lanes.OKX"),
        ('[lanes."okx.bulk"]\n', "lanes.okx.bulk"),
        ('[lanes."okx."]\n', "lanes.okx."),
        ('[lanes.""]\n', "lanes."),
        ('[lanes."o k x"]\n', "lanes.o k x"),
        ('[lanes."okx.' + "x" * 300 + '"]\n', "lanes.okx.xxx"),
        ('[lanes.okx]\nproxy = "http://p"\nlocal_addr = "10.0.0.1"\n', "lanes.okx: expected local_addr or proxy"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_was_expected(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'fleet.toml'}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLEET_BROKER_URL", "localhost"),
        ("FLEET_BROKER_URL", "amqp://a/,http://u:s3cr3t@b/"),
        ("FLEET_REDIS_URL", "u:s3cr3t@redis"),
    ],
)
def test_an_error_in_the_environment_names_the_variable_and_no_secret(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as raised:
        read(tmp_path, LANE, **{name: value})
    assert "s3cr3t" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.toml: can't be read: No such file"):
        load(tmp_path / "fleet.toml", {})
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load(tmp_path, {})


@pytest.mark.parametrize("password", ["a/b", "a?b", "a#b", "12/b", "12#b", "[a", "a:b/c"])
@pytest.mark.parametrize(
    ("text", "variable", "where"),
    [
        ("broker.urls = ['amqp://u:{}@host/']\n", "", "broker.urls"),
        ("redis.url = 'redis://:{}@host/0'\n", "", "redis.url"),
        ("[lanes.x]\nproxy = 'http://u:{}@host:80'\n", "", "lanes.x.proxy"),
        ("", "FLEET_BROKER_URL", "FLEET_BROKER_URL in the environment"),
        ("", "FLEET_REDIS_URL", "FLEET_REDIS_URL in the environment"),
    ],
)
def test_a_password_that_breaks_its_url_is_refused_and_not_shown(
    tmp_path: Path, text: str, variable: str, where: str, password: str
) -> None:
    scheme = "amqp" if variable == "FLEET_BROKER_URL" else "redis"
    environment = {variable: f"{scheme}://u:{password}@host/"} if variable else {}
    with pytest.raises(ConfigError, match="expected a URL") as caught:
        read(tmp_path, text.format(password) + LANE, **environment)
    assert f"{where}: " in str(caught.value)
    assert password not in str(caught.value).replace("/, ?, #, [ and ]", "")


def test_a_configuration_shows_no_password(tmp_path: Path) -> None:
    text = "broker.urls = ['amqp://u:s3cr3t@a/', 'amqp://b']\nredis.url = 'redis://:s3cr3t@r/0'\n" + LANE
    config = read(tmp_path, text + "proxy = 'http://u:s3cr3t@p:80'\n")
    for shown in (repr(config), pretty_repr(config)):
        assert "s3cr3t" not in shown
        for url in ("amqp://…@a/", "amqp://b", "redis://…@r/0", "http://…@p:80"):
            assert url in shown
