"""A setting without effect is an error that names it, and what would have one; no setting with an effect is refused."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import msgspec
import pytest

from deploy.simulator.ccxt_config import ccxt_config
from schemas import ccxt_settings
from schemas.config import Config, LaneConfig, LimitsConfig, parse
from schemas.errors import ConfigError
from workers.exchange import settings
from workers.exchange.described import described
from workers.limits.costs import load
from workers.limits.effect import check
from workers.limits.tables import shipped

EXCHANGES: Final[list[str]] = list(ccxt.exchanges)
# Every attribute of ccxt's base class that is no method, under each of its spellings.
ATTRIBUTES: Final = sorted(
    name for name, value in inspect.getmembers(ccxt.Exchange()) if not name.startswith("_") and not callable(value)
)
PROXY: Final = '"http://127.0.0.1:9"'


def read(toml: str) -> Config:
    """As a worker starts with it."""
    config = parse(Path("fleet.toml"), toml.encode(), {})
    settings.check(config)
    return config


def refusal(toml: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(toml)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_of_ccxt_is_taken_or_refused_with_what_works(name: str) -> None:
    if name in ccxt_settings.TAKEN:
        return
    said = refusal(f"[lanes.okx]\nccxt.{name} = 5\n")
    assert f"lanes.okx.ccxt.{name}: expected " in said


def test_what_is_taken_is_read_by_some_class() -> None:
    assert set(ATTRIBUTES) >= ccxt_settings.TAKEN
    unread = set(ccxt_settings.TAKEN).difference(*(described(name).reads for name in EXCHANGES))
    assert not unread


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (f"httpsProxy = {PROXY}", "expected lanes.okx.proxy, the lane's own HTTP proxy"),
        (f"proxies = {{ http = {PROXY}, https = {PROXY} }}", "expected lanes.okx.proxy"),
        (f"https_proxy = {PROXY}", "expected lanes.okx.proxy"),
        (f"httpProxy = {PROXY}", "expected lanes.okx.proxy"),
        (f"aiohttp_proxy = {PROXY}", "expected lanes.okx.proxy"),
        ('socksProxy = "socks5://127.0.0.1:9"', "expected lanes.okx.proxy"),
        (f"proxyUrl = {PROXY}", "expected lanes.okx.proxy"),
        (f"proxy = {PROXY}", "expected lanes.okx.proxy"),
        ("aiohttp_trust_env = true", "expected lanes.okx.proxy: proxies in the environment are not used"),
        ("timeout = 10000", "expected worker.http_timeout_s"),
        ("rateLimit = 50", "expected [limits.<exchange>]"),
        ("enableRateLimit = true", "expected [limits.<exchange>]"),
        ("rollingWindowSize = 0", "expected [limits.<exchange>]"),
        ("verify = false", "certificates are always checked"),
        ('apiKey = "k"', "expected in [accounts.<name>]"),
        ("isSandboxModeEnabled = true", "expected lanes.okx.sandbox = true"),
        ("sandbox = true", "expected lanes.okx.sandbox = true"),
        ("options.sandboxMode = true", "expected lanes.okx.sandbox = true"),
        ("options.maxRetriesOnFailure = 3", "expected dispatcher.max_attempts"),
        ("options.adjustForTimeDifference = true", "the fleet measures the exchange's clock"),
        ('urls.www = "https://x"', "urls.www: expected urls.api"),
        ('urls.demo.rest = "https://x"', "urls.demo: expected lanes.okx.sandbox = true"),
        ('urls.test.rest = "https://x"', "urls.test: expected urls.api, or lanes.okx.sandbox = true"),
        ('urls.api.public = "https://x"', "urls.api.public: ccxt's class has no such URL; expected one of rest"),
        ('urls.api = "https://x"', "urls.api: expected a table with rest"),
        ("urls.api.rest = 5", "urls.api.rest: expected a URL"),
        ('urls.aip.rest = "https://x"', "urls.aip: expected one of "),
        ("options = 5", "ccxt.options: expected a table"),
        ("options.defaultTpye = 5", "reads no such option; near it: defaultType"),
        ('options.defaultType = "spto"', "defaultType = 'spto': ccxt's okx reads no such option; near it: "),
        ('options.fetchMarkets.types = ["spot", "swpa"]', "fetchMarkets.types.swpa: ccxt's okx reads no such option"),
        ('options.fetchMarkets = ["spot", "swpa"]', "'swpa'"),
        ("options.fetchMarkets.typs = []", "fetchMarkets.typs: ccxt's okx reads no such option"),
        ("options.fetchMarkets.types = { swap = { lineer = true } }", "types.lineer: ccxt's okx reads no such option"),
        ("options.fetchOHLCV.pagniate = true", "fetchOHLCV.pagniate: ccxt's okx reads no such option; near it"),
        ("hostnme = 5", "ccxt has no such setting; near it: hostname"),
        ("has.fetchTikcer = true", "has no such method; near it: fetchTicker"),
        ('has.fetchTicker = "yes"', 'has.fetchTicker: expected true, false or "emulated"'),
        ("has.fetchTicker = 1.5", "has.fetchTicker: expected true"),
        (
            "requiredCredentials.apKey = true",
            "Credentials.apKey: ccxt's okx reads no such key; near it: apiKey",
        ),
        ('requiredCredentials.apiKey = "no"', "requiredCredentials.apiKey: expected true or false"),
        ("fees.tradin.maker = 0.1", "fees.tradin: ccxt's okx reads no such key; near it: trading"),
        ("fees.trading.makr = 0.1", "fees.trading.makr: ccxt's okx reads no such key; near it: maker"),
        ("fees.trading = 0.1", "fees.trading: expected a table with "),
        ("limits.amout.min = 1", "limits.amout: ccxt's okx reads no such key; near it: amount"),
        ("limits.amount.least = 1", "limits.amount.least: ccxt's okx reads no such key"),
        ("fetch_ticker = 5", "ccxt has no such setting"),
        ('accountId = "5"', "ccxt.accountId: expected nothing: ccxt's okx never reads it"),
    ],
)
def test_a_setting_without_effect_says_what_would_work(setting: str, says: str) -> None:
    assert says in refusal(f"[lanes.okx]\nccxt.{setting}\n")


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_what_a_class_has_itself_is_no_error(exchange: str) -> None:
    """Each of its URLs, options and abilities, as ccxt's own description has them."""
    made: Any = getattr(ccxt, exchange)()
    kept = {
        name: value
        for name, value in made.options.items()
        if not isinstance(value, (type(None), type)) and ccxt_settings_takes(name)
    }
    own = {"urls": {"api": made.urls["api"]}, "has": dict(made.has), "options": kept}
    own |= {"fees": made.fees, "limits": made.limits, "requiredCredentials": made.requiredCredentials}
    own |= {"hostname": made.hostname} if "{hostname}" in str(made.urls["api"]) else {}
    ccxt_settings.check(exchange, own, sandbox=False)
    settings.check(Config(lanes={exchange: LaneConfig(exchange=exchange, ccxt=own)}))
    needed = {name for name, needs in made.requiredCredentials.items() if needs}
    assert needed <= described(exchange).keys


def ccxt_settings_takes(option: str) -> bool:
    try:
        ccxt_settings.check("x", {"options": {option: 1}}, sandbox=False)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("exchange", ["binance", "okx", "htx", "coinbase", "kraken"])
def test_where_the_simulator_is_takes_effect(exchange: str) -> None:
    own = ccxt_config(exchange, "http://127.0.0.1:1")
    settings.check(Config(lanes={exchange: LaneConfig(exchange=exchange, ccxt=own)}))


BITSTAMP: Final = """
[lanes.bitstamp]
[limits.bitstamp.buckets.own]
amount = 400
window_s = 1
kind = "rolling"
"""
RULE: Final = '[{ bucket = "own" }]'


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            f'[limits.bitstamp.endpoints]\n"public get *" = {RULE}',
            'endpoints."public get *": ccxt calls no such endpoint; expected "public GET *"',
        ),
        (f'[limits.bitstamp.endpoints]\n"Public GET *" = {RULE}', 'expected "public GET *"'),
        (f'[limits.bitstamp.endpoints]\n"spot GET *" = {RULE}', '"public GET *"'),
        (
            f'[limits.bitstamp.endpoints]\n"public GET api/v2/ticker/{{pair}}/" = {RULE}',
            'expected "public GET ticker/{pair}/"',
        ),
        (
            f'[limits.bitstamp.endpoints]\n"public GET /api/v2/ticker/btcusd/" = {RULE}',
            'expected "public GET ticker/{pair}/"',
        ),
        (f'[limits.bitstamp.endpoints]\n"public POST ticker/{{pair}}/" = {RULE}', '"public GET ticker/{pair}/"'),
        ("", "buckets.own: expected a rule that uses it"),
    ],
)
def test_limits_that_match_nothing_say_the_nearest(more: str, says: str) -> None:
    assert says in refusal(f"{BITSTAMP}\n{more}\n")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (
            '[lanes.gate]\n[limits.gate.endpoints]\n"public GET *" = [{ bucket = "endpoint" }]',
            '"public.spot GET *"',
        ),
        (
            '[lanes.kraken]\n[limits.kraken.endpoints]\n"public GET *" = [{ bucket = "public" }]',
            "expected nothing: all of its endpoints have rules of their own",
        ),
        ('[lanes.kraken]\n[limits.kraken.buckets.public]\nkind = "sliding"', "expected one of rolling, fixed"),
        ('[lanes.kraken]\n[limits.kraken.buckets.public]\nscope = "ip"', "expected one of egress, account"),
    ],
)
def test_other_limits_without_effect(toml: str, says: str) -> None:
    assert says in refusal(toml)


def per(name: str) -> str:
    rules = '[{ bucket = "own" }, { bucket = "all_together" }]'
    return f"""{BITSTAMP}per = ["{name}"]
[limits.bitstamp.buckets.all_together]
amount = 4000
window_s = 10
kind = "rolling"
[limits.bitstamp.endpoints]
"public GET *" = {rules}
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("address", "'address' is scope = \"egress\", the default"),
        ("account", "'account' is scope = \"account\""),
        ("endpoint", "'endpoint' is per_endpoint = true"),
        ("pairr", "sends no 'pairr'"),
    ],
)
def test_a_count_for_what_no_call_names_is_refused(name: str, says: str) -> None:
    assert says in refusal(per(name))


def test_a_count_for_each_pair_is_taken() -> None:
    read(per("pair"))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('per_ccxt_cost = 1, cases = [{ param = "limit", cost = 1 }]', "per_ccxt_cost: expected nothing beside it"),
        ("per_ccxt_cost = 1, cost = 2", "per_ccxt_cost: expected nothing beside it"),
        ('cases = [{ param = "limit", cost = 1, each = true, at_most = 5 }]', "at_most: expected no `each` beside it"),
        (
            'cases = [{ param = "limit", cost = 1 }, { param = "limit", cost = 2, at_most = 5 }]',
            "cases[1]: expected before the case",
        ),
        (
            'cases = [{ param = "limit", cost = 1, at_most = 9 }, { param = "limit", cost = 2, at_most = 5 }]',
            "cases[1]: expected before the case",
        ),
        ('cases = [{ param = "limit", cost = 5, each = true }]', "each: expected a `cost` of the rule above 5"),
        ('cases = [{ param = "limit", cost = 1, each = true }]', "each: expected a `cost` of the rule above 1"),
        (
            'cost = 5, cases = [{ param = "limit", cost = 5 }]',
            "cases[0]: expected nothing: without it the",
        ),
        (
            'cost = 5, cases = [{ param = "limit", at_most = 9, cost = 1 }, { param = "limit", cost = 5 }]',
            "cases[1]: expected nothing",
        ),
        ('cost = 5, cases = [{ param = "limit", at_most = 0, cost = 1 }]', "at_most: expected at least 1"),
    ],
)
def test_a_rule_whose_parts_never_hold_is_refused(rule: str, says: str) -> None:
    assert says in refusal(f'{BITSTAMP}[limits.bitstamp.endpoints]\n"public GET *" = [{{ bucket = "own", {rule} }}]')


@pytest.mark.parametrize("exchange", shipped().limited)
def test_every_table_would_be_taken_from_the_configuration(exchange: str) -> None:
    """Its buckets, and each of its rules alone; but for rules that wait for endpoints of a later ccxt."""
    table = shipped().of(exchange)
    assert table is not None
    called = described(exchange).called
    for other, shared in shipped().sharing.items():
        if shared == exchange:
            called = called.beside(described(other).called.renamed(table.same_apis))
    own = LimitsConfig(buckets=table.buckets)
    check(own, load(exchange, 100, own), called)
    for key, rules in table.endpoints.items():
        own = LimitsConfig(endpoints={key: rules})
        try:
            check(own, load(exchange, 100, own), called)
        except ConfigError as error:
            assert key.endswith(" *"), error
            assert "all of its endpoints have rules of their own" in str(error), error


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[lanes.okx]\n[accounts.main]\n", 'accounts.main: expected a lane with account = "main"'),
        (
            '[lanes.okx]\naccount = "main"\n[accounts.main]\nuid = { env = "X" }\n',
            "accounts.main.uid: expected nothing: okx has no use for it",
        ),
        (
            '[lanes.okx]\naccount = "main"\n[accounts.main]\n',
            "accounts.main: expected at least one of api_key, secret, password",
        ),
        (
            '[lanes.okx]\naccount = "main"\n[accounts.main]\nsecret = { env = "X", file = "x" }\n',
            "accounts.main.secret: expected either env or file",
        ),
        (
            '[lanes.okx]\naccount = "main"\n[accounts.main]\nsecret = {}\n',
            "accounts.main.secret: expected either env or file",
        ),
        ('[lanes.okx]\n[groups.x]\nexchanges = ["okx", "okx"]\n', "groups.x.exchanges: expected 'okx' once"),
        ('[lanes.htx]\n[groups.x]\nexchanges = ["htx", "huobi"]\n', "groups.x.exchanges: expected 'htx' once"),
        ("worker.max_answer_mib = 65\n[lanes.okx]\n", "expected at most 64, which is worker.max_answers_mib"),
        ("worker.max_answers_mib = 20\n[lanes.okx]\n", "worker.max_markets_mib: expected at most 20, which is"),
        ("dispatcher.trial_after_s = 6.0\n[lanes.okx]\n", "expected at most 5, which is dispatcher.trial_after_max_s"),
        ("dispatcher.wait_with_others_s = 3.0\n[lanes.okx]\n", "expected at most 2, which is worker.max_wait_s"),
        ("worker.report_every_s = 2.0\n[lanes.okx]\n", "expected at most 1.5, which is dispatcher.silent_after_s"),
        ('dispatcher.strategy = "best"\n[lanes.okx]\n', "expected one of weighted_round_robin, round_robin"),
        ('[lanes.okx]\nlocal_addr = "0.0.0.0"\n', "local_addr: expected one address"),
        ('[lanes.okx]\nlocal_addr = "::"\n', "local_addr: expected one address"),
        ('[lanes.okx]\nproxy = "http://proxy:1/eu"\n', "proxy: expected nothing behind the host and the port"),
        (
            '[lanes.okx]\nccxt.hostname = "x"\n[lanes.kraken]\nccxt.hostname = "x"\n',
            "kraken.ccxt.hostname: expected noth",
        ),
        ("[lanes.kraken]\nsandbox = true\n", "lanes.kraken.sandbox: expected false: ccxt knows no testnet of kraken"),
        (
            '[lanes.binance]\nsandbox = true\n[lanes."binance.real"]\n',
            "lanes.binance.sandbox: expected another name for this lane, as binance.testnet",
        ),
        (
            '[lanes."okx.test"]\nsandbox = true\nccxt.urls.api.rest = "https://x"\n',
            "ccxt.urls.api: expected urls.test",
        ),
        (
            '[lanes.okx]\n[lanes."okx.test"]\nsandbox = true\n[groups.both]\nexchanges = ["okx", "okx.test"]\n',
            "groups.both.exchanges: expected exchanges or sandboxes, not both",
        ),
        ('[lanes."okx.test"]\nsandbox = true\n[groups.x]\nexchanges = ["okx"]\n', "not 'okx'"),
    ],
)
def test_the_other_keys_of_the_configuration(toml: str, says: str) -> None:
    assert says in refusal(toml)


def test_one_address_has_one_budget_however_it_is_spelled() -> None:
    lanes = read(
        '[lanes."okx.a"]\nlocal_addr = "2001:db8::1"\n[lanes."okx.b"]\nlocal_addr = "2001:0db8:0:0:0:0:0:1"\n'
        '[lanes."okx.c"]\nproxy = "http://u:P@Proxy.example:1"\n[lanes."okx.d"]\nproxy = "http://u:P@proxy.example:1/"\n'
    ).lanes
    assert len({lane.egress for lane in lanes.values()}) == 2


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_testnet_has_budgets_of_its_own_unless_it_has_the_real_hosts(exchange: str) -> None:
    lane = LaneConfig(exchange=exchange, sandbox=True)
    made: Any = getattr(ccxt, exchange)()
    before = places(made)
    try:
        settings.enter_sandbox("x", made)
    except ConfigError as error:
        assert str(error) == f"lanes.x.sandbox: expected false: ccxt knows no testnet of {exchange}"
        return
    real = settings.budget_of(msgspec.structs.replace(lane, sandbox=False))
    assert (settings.budget_of(lane) == real) == bool(before & places(made))
    assert settings.budget_of(lane) in (real, f"{real}-sandbox")


def test_the_docs_name_the_testnets_with_the_real_hosts() -> None:
    lanes = [LaneConfig(exchange=name, sandbox=True) for name in EXCHANGES]
    shared = {lane.exchange for lane in lanes if "-sandbox" not in settings.budget_of(lane)}
    having = {name for name in EXCHANGES if has_testnet(name)}
    assert shared & having == {"okx", "okxus", "myokx", "bitget", "gemini", "alpaca", "weex"}


def has_testnet(exchange: str) -> bool:
    try:
        settings.enter_sandbox("x", getattr(ccxt, exchange)())
    except ConfigError:
        return False
    return True


def places(exchange: Any) -> set[str]:
    def leaves(tree: Any) -> list[str]:
        if isinstance(tree, str):
            return [tree.replace("{hostname}", str(exchange.hostname)).split("/")[2]]
        below = cast("Mapping[str, Any]", tree)
        return [leaf for branch in below.values() for leaf in leaves(branch)]

    return set(leaves(exchange.urls["api"]))


def test_an_unknown_exchange_is_told_which_is_near() -> None:
    assert refusal("[lanes.binanc]\n").startswith(
        "lanes.binanc.exchange: expected an exchange id of ccxt, not 'binanc'; near it: binance"
    )
    assert "near it" not in refusal("[lanes.bitmex]\n")
    assert "near it: okx" in refusal('[lanes.a]\nexchange = "OKX"\n')
