"""The whole configuration as frozen Structs, with all defaults.

One TOML file (`deploy/fleet.toml` shows every key with its default), and two environment variables that override it:
``FLEET_BROKER_URL`` and ``FLEET_REDIS_URL``. An unknown key or a wrong type stops the start with the file, the key's
path and what was expected.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from . import ccxt_settings, methods, old_names, urls
from .accounts import HIDDEN, AccountConfig
from .errors import ConfigError
from .explained import explained
from .gateway_config import GatewayConfig
from .messages import Strategy
from .quantities import Count, Mebibytes, Seconds

BrokerUrl: TypeAlias = Annotated[str, Meta(pattern=r"^amqps?://")]
RedisUrl: TypeAlias = Annotated[str, Meta(pattern=r"^(rediss?([+](sentinel|cluster))?|unix)://")]

# A lane's name is part of queue names and routing keys; `.bulk` is the suffix of the bulk queues.
_LANE_NAME: Final = re.compile(r"[a-z0-9]+(\.(?!bulk$)[a-z0-9_-]+)?")
_LANE_NAME_LIMIT: Final = 128  # as in a request that names it
# Ends the name of an exchange's testnet; no ccxt id and no lane has a hyphen there.
SANDBOX: Final = "-sandbox"
_USER_AND_PASSWORD: Final = re.compile(r"(?<=://).*@")


class _WithUrls(Struct, frozen=True):
    """A part of the configuration whose URLs are shown without user and password."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Its fields as they may be shown."""
        return [(name, _shown(value)) for name, value in msgspec.structs.asdict(self).items()]

    def __repr__(self) -> str:
        """As of any Struct, with the URLs as they may be shown."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_shown, value))  # pyright: ignore[reportUnknownArgumentType]
    return _USER_AND_PASSWORD.sub(f"{HIDDEN}@", value) if isinstance(value, str) else value


class BrokerConfig(_WithUrls, frozen=True, forbid_unknown_fields=True):
    """RabbitMQ.

    Args:
        urls: AMQP URLs of the nodes, tried in random order; the first that answers is used.
        heartbeat_s: the interval of heartbeats; a frozen RabbitMQ is noticed after about three of them.
        timeout_s: the longest that one declaration or one attempt to connect may take.
        patience_s: the longest that a publish may take, over all connections it needs, before it fails. Keep it above
            the three heartbeats after which a frozen RabbitMQ is noticed: below, messages that it has taken are sent
            twice.
        give_up_s: how long a lost connection is tried again before the process ends, for its supervisor to restart it.
        declare: whether services declare exchanges and queues. Off where `definitions` made them: then services need
            no permission for it.
    """

    urls: Annotated[tuple[BrokerUrl, ...], Meta(min_length=1)] = ("amqp://guest:guest@127.0.0.1:5672/",)
    heartbeat_s: Count = 10
    timeout_s: Seconds = 5.0
    patience_s: Seconds = 60.0
    give_up_s: Seconds = 600.0
    declare: bool = True


class RedisConfig(_WithUrls, frozen=True, forbid_unknown_fields=True):
    """Redis or Valkey: the budgets that all workers share.

    Args:
        url: its URL.
        timeout_s: the longest that one command may take before Redis counts as away.
        answers_mib: how much the answers to requests with `max_age_ms` may take there; the oldest make room.
    """

    url: RedisUrl = "redis://127.0.0.1:6379/0"
    timeout_s: Seconds = 0.5
    answers_mib: Mebibytes = 64.0


class DispatcherConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The dispatcher.

    Args:
        strategy: how a lane is chosen for requests that name no strategy.
        timeout_s: the deadline of requests that name none, from when a dispatcher first received them.
        methods: the only methods that are run, with ``http`` for HTTP calls; empty allows all that the fleet knows.
        max_attempts: how often a request may fail for reasons that may be its own before it ends in an error.
        in_flight: requests handled at a time, beside a tenth as many returned attempts and a twentieth of bulk ones.
        wait_with_others_s: the longest that an attempt waits for budget while another lane could take it.
        silent_after_s: a lane is offline when none of its workers has reported for so long.
        failures_in_a_row: a lane is offline after so many failures in a row.
        error_rate: the part of failed calls above which a lane is set aside; below it, its share falls.
        slow_times: a lane is set aside when it is so many times slower than its usual latency.
        stalled_after_s: a lane is set aside when it has answered none of several calls for so long.
        trial_after_s: the time until a lane that is set aside gets a trial; doubled after each trial that fails.
        trial_after_max_s: the longest time between two trials.
        trial_timeout_s: the longest that a trial may take beside other lanes; if longer, twice the usual latency.
        slow_start_s: how long a lane that recovers takes to get its whole share.
        probe_every_s: an idle lane gets a health probe after so long without a request; the next ones come later.
        grace_s: how long it may finish what it holds after a signal to stop.
    """

    strategy: Strategy = "weighted_round_robin"
    timeout_s: Seconds = 30.0
    methods: tuple[str, ...] = ()
    max_attempts: Count = 5
    in_flight: Count = 500
    wait_with_others_s: Seconds = 0.1
    silent_after_s: Seconds = 1.5
    failures_in_a_row: Count = 5
    error_rate: Annotated[float, Meta(gt=0, le=1)] = 0.2
    slow_times: Annotated[float, Meta(gt=2, le=1e6)] = 5.0
    stalled_after_s: Seconds = 0.4
    trial_after_s: Seconds = 1.0
    trial_after_max_s: Seconds = 5.0
    trial_timeout_s: Seconds = 2.0
    slow_start_s: Seconds = 3.0
    probe_every_s: Seconds = 10.0
    grace_s: Seconds = 10.0


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker process.

    Args:
        in_flight: attempts held at a time, over all lanes.
        max_wait_s: the longest that an attempt waits for budget in the worker; one that would wait longer is returned.
        report_every_s: the interval of reports.
        grace_s: how long it may finish what it holds after a signal to stop.
        http_timeout_s: the longest that one HTTP call to an exchange may take.
        renew_every_s: how often one of the workers refreshes an exchange's markets and clock, for all of them.
        max_answer_mib: the largest answer of an exchange, decompressed.
        max_markets_mib: the same for markets and currencies.
        max_answers_mib: the most that all answers in memory may have together, beside the first 64 KiB of each.
        spread: how many workers serve each lane at least, of those that are there; 0 for all of them.
    """

    in_flight: Count = 1000
    max_wait_s: Seconds = 2.0
    report_every_s: Seconds = 0.2
    grace_s: Seconds = 10.0
    http_timeout_s: Seconds = 10.0
    renew_every_s: Seconds = 1800.0
    max_answer_mib: Mebibytes = 16.0
    max_markets_mib: Mebibytes = 32.0
    max_answers_mib: Mebibytes = 64.0
    spread: Annotated[int, Meta(ge=0, le=1000)] = 0


class LaneConfig(_WithUrls, frozen=True, forbid_unknown_fields=True):
    """One way to reach one exchange. Its key is its name: ``binance``, or ``binance.eu1`` where there are several.

    Args:
        exchange: the ccxt id; by default the name's part before the dot. An old id becomes today's.
        weight: its share of the requests, relative to the weights of the other lanes.
        local_addr: the source address of its connections, which has a budget of its own.
        proxy: the HTTP proxy of its connections, which has a budget of its own.
        account: the account whose reads it takes, beside public ones; it has budgets of its own where the exchange
            counts by account.
        live_reserve: the part of every limit that bulk requests leave to live ones.
        sandbox: it reaches the exchange's testnet, by ccxt's `set_sandbox_mode`, and counts as an exchange of its own.
        ccxt: settings for the ccxt class, merged over its own (`urls`, `hostname`, `options`); `ccxt_settings` says
            which have an effect.
    """

    exchange: str = ""
    weight: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    local_addr: str | None = None
    proxy: Annotated[str, Meta(pattern=r"^https?://")] | None = None
    account: str | None = None
    live_reserve: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    sandbox: bool = False
    ccxt: dict[str, Any] = {}

    @property
    def egress(self) -> str:
        """The address that the exchange sees, as a name: lanes with the same one share their budgets.

        One address or proxy has one name, however it is spelled.
        """
        if self.proxy is not None:
            parts = urlsplit(self.proxy)
            user, at, place = parts.netloc.rpartition("@")
            return f"{parts.scheme}://{user}{at}{place.lower()}"
        return str(ipaddress.ip_address(self.local_addr)) if self.local_addr is not None else "default"

    @property
    def known_as(self) -> str:
        """The exchange's name in requests, results and Redis: a testnet is an exchange of its own."""
        return f"{self.exchange}{SANDBOX}" if self.sandbox else self.exchange


class GroupConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Exchanges or lanes under one name, which a request may use in their place.

    Args:
        exchanges: ccxt exchange ids or lane names, in order of preference.
        strategy: how to choose among them for requests that name no strategy; without it the dispatcher's.
    """

    exchanges: Annotated[tuple[str, ...], Meta(min_length=1)]
    strategy: Strategy | None = None


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Changes to an exchange's table of limits, or a table for an exchange without one. Its key is the ccxt id.

    Workers check it together with the table that it changes; `workers/limits/costs.py` has the keys of buckets and
    rules.

    Args:
        buckets: by name, the keys that differ; for a bucket that the table does not have, all keys.
        default: the cost of a call to an unknown endpoint.
        endpoints: the costs of calls, by ``<api> <METHOD> <path>``.
    """

    buckets: dict[str, dict[str, Any]] = {}
    default: list[dict[str, Any]] | None = None
    endpoints: dict[str, list[dict[str, Any]]] = {}


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `lanes` is the only part without a default."""

    lanes: Annotated[dict[str, LaneConfig], Meta(min_length=1)]
    broker: BrokerConfig = BrokerConfig()
    redis: RedisConfig = RedisConfig()
    dispatcher: DispatcherConfig = DispatcherConfig()
    worker: WorkerConfig = WorkerConfig()
    groups: dict[str, GroupConfig] = {}
    limits: dict[str, LimitsConfig] = {}
    accounts: dict[str, AccountConfig] = {}
    gateway: GatewayConfig = GatewayConfig()

    @property
    def places(self) -> int:
        """How many live attempts of one lane a worker holds at most."""
        return max(1, self.worker.in_flight // len(self.lanes))


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Reads and checks the configuration.

    Raises:
        ConfigError: with the file, the key's path and what was expected.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    return parse(path, body, environment)


def parse(path: Path, body: bytes, environment: Mapping[str, str] = os.environ) -> Config:
    """Checks the configuration that was read from a file; raises as `load` does."""
    try:
        raw = tomllib.loads(body.decode())
    except (ValueError, RecursionError) as error:  # also for a number of 5,000 digits, and 1,000 brackets
        raise ConfigError(f"{path}: not TOML: {error}") from error
    return checked(path, raw, environment)


def checked(path: Path, raw: dict[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """Checks a configuration as TOML gives it; raises as `load` does."""
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_name_entry(raw) or explained(error, Config)}") from error
    urls.check(f"{path}: redis.url", config.redis.url)
    for each in config.broker.urls:
        urls.check(f"{path}: broker.urls", each)
    lanes = {name: _complete(path, name, lane, config.accounts) for name, lane in config.lanes.items()}
    _check_sandboxes(path, lanes)
    groups = _groups(path, config.groups, lanes)
    limits = _limits(path, config.limits)
    _check_used(path, config)
    for method in config.dispatcher.methods:
        if method != methods.HTTP and (refusal := methods.refusal(method, account=True)):
            raise ConfigError(f"{path}: dispatcher.methods: {refusal}")
    broker, redis = config.broker, config.redis
    if url := environment.get("FLEET_BROKER_URL"):
        broker = msgspec.structs.replace(broker, urls=broker_urls("FLEET_BROKER_URL in the environment", url))
    if url := environment.get("FLEET_REDIS_URL"):
        redis = msgspec.structs.replace(redis, url=redis_url("FLEET_REDIS_URL in the environment", url))
    return msgspec.structs.replace(config, lanes=lanes, groups=groups, limits=limits, broker=broker, redis=redis)


def broker_urls(where: str, text: str) -> tuple[str, ...]:
    """RabbitMQ's URLs in a text, with commas between them.

    Args:
        where: where the text comes from, for the error.
        text: the text.

    Raises:
        ConfigError: one is no URL; the text does not repeat it, as there may be a password in it.
    """
    return tuple(_url(where, url, BrokerUrl) for url in text.split(","))


def redis_url(where: str, text: str) -> str:
    """Redis's URL in a text; arguments and errors as for `broker_urls`."""
    return _url(where, text, RedisUrl)


def _url(where: str, url: str, kind: Any) -> str:
    try:
        urls.check(where, msgspec.convert(url, kind))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {explained(error, Config)}") from error
    return url


def _complete(path: Path, name: str, lane: LaneConfig, accounts: Collection[str]) -> LaneConfig:
    if not _LANE_NAME.fullmatch(name) or len(name) > _LANE_NAME_LIMIT:
        raise ConfigError(f"{path}: lanes.{name}: expected <exchange> or <exchange>.<name>, in lower case")
    if lane.proxy is not None:
        urls.check(f"{path}: lanes.{name}.proxy", lane.proxy)
        parts = urlsplit(lane.proxy)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError(f"{path}: lanes.{name}.proxy: expected nothing behind the host and the port")
    try:
        ccxt_settings.check(name, lane.ccxt, sandbox=lane.sandbox)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    own: dict[str, Any] = lane.ccxt.get("urls", {})
    for key in ("api", "test"):
        urls.check_own(f"{path}: lanes.{name}.ccxt.urls.{key}", own.get(key))
    if lane.local_addr is not None and lane.proxy is not None:
        raise ConfigError(f"{path}: lanes.{name}: expected local_addr or proxy, not both")
    if lane.local_addr is not None:
        try:
            address = ipaddress.ip_address(lane.local_addr)
        except ValueError as error:
            raise ConfigError(f"{path}: lanes.{name}.local_addr: expected an IP address") from error
        if address.is_unspecified:
            # The system would choose one that other lanes use too, and these calls would have a budget of their own.
            raise ConfigError(f"{path}: lanes.{name}.local_addr: expected one address; without it the system chooses")
    if lane.account is not None and lane.account not in accounts:
        known = ", ".join(accounts) or "an account: there is no [accounts.<name>]"
        raise ConfigError(f"{path}: lanes.{name}.account: expected {known}")
    return msgspec.structs.replace(lane, exchange=old_names.today(lane.exchange or name.partition(".")[0]))


def _check_sandboxes(path: Path, lanes: Mapping[str, LaneConfig]) -> None:
    for name, lane in lanes.items():
        if lane.sandbox and any(other.exchange == name and not other.sandbox for other in lanes.values()):
            raise ConfigError(
                f"{path}: lanes.{name}.sandbox: expected another name for this lane, as {name}.testnet: {name} is the "
                f"real exchange in requests, which other lanes reach"
            )


def _groups(path: Path, groups: Mapping[str, GroupConfig], lanes: Mapping[str, LaneConfig]) -> dict[str, GroupConfig]:
    """The groups, with today's names of exchanges that no lane is named after."""
    reach = {lane.known_as: lane.sandbox for lane in lanes.values()}
    reach |= {name: lane.sandbox for name, lane in lanes.items()}
    found: dict[str, GroupConfig] = {}
    for name, group in groups.items():
        if name in reach:
            raise ConfigError(f"{path}: groups.{name}: expected a name that is no lane's and no exchange's")
        exchanges = tuple(each if each in reach else old_names.today(each) for each in group.exchanges)
        for exchange in exchanges:
            if exchange not in reach:
                raise ConfigError(
                    f"{path}: groups.{name}.exchanges: expected lanes or their exchanges, not {exchange!r}"
                )
        if twice := next((each for at, each in enumerate(exchanges) if each in exchanges[:at]), ""):
            raise ConfigError(f"{path}: groups.{name}.exchanges: expected {twice!r} once")
        if len({reach[exchange] for exchange in exchanges}) > 1:
            raise ConfigError(f"{path}: groups.{name}.exchanges: expected exchanges or sandboxes, not both")
        found[name] = msgspec.structs.replace(group, exchanges=exchanges)
    return found


def _limits(path: Path, limits: Mapping[str, LimitsConfig]) -> dict[str, LimitsConfig]:
    """The limits by today's names of their exchanges."""
    for name in limits:
        if (today := old_names.today(name)) != name and today in limits:
            raise ConfigError(f"{path}: limits.{name}: expected in limits.{today}, which is the same exchange")
    return {old_names.today(name): each for name, each in limits.items()}


def _check_used(path: Path, config: Config) -> None:
    """Refuses settings that others leave without effect."""
    for name, account in config.accounts.items():
        if all(lane.account != name for lane in config.lanes.values()):
            raise ConfigError(f'{path}: accounts.{name}: expected a lane with account = "{name}"')
        if wrong := account.wrong:
            raise ConfigError(f"{path}: accounts.{name}{wrong}")
    if wrong := config.gateway.wrong:
        raise ConfigError(f"{path}: gateway{wrong}")
    dispatcher, worker = config.dispatcher, config.worker
    values = {
        "dispatcher.trial_after_s": dispatcher.trial_after_s,
        "dispatcher.trial_after_max_s": dispatcher.trial_after_max_s,
        "dispatcher.wait_with_others_s": dispatcher.wait_with_others_s,
        "dispatcher.silent_after_s": dispatcher.silent_after_s,
        "worker.max_wait_s": worker.max_wait_s,
        "worker.report_every_s": worker.report_every_s,
        "worker.max_answer_mib": worker.max_answer_mib,
        "worker.max_markets_mib": worker.max_markets_mib,
        "worker.max_answers_mib": worker.max_answers_mib,
    }
    for what, most in (
        ("dispatcher.trial_after_s", "dispatcher.trial_after_max_s"),
        ("dispatcher.wait_with_others_s", "worker.max_wait_s"),
        ("worker.report_every_s", "dispatcher.silent_after_s"),
        # One answer above what all may have together would never find room.
        ("worker.max_answer_mib", "worker.max_answers_mib"),
        ("worker.max_markets_mib", "worker.max_answers_mib"),
    ):
        if values[what] > values[most]:
            raise ConfigError(f"{path}: {what}: expected at most {values[most]:g}, which is {most}")


def _name_entry(raw: dict[str, Any]) -> str | None:
    """The first wrong entry by its name: msgspec's path is only ``lanes[...]``."""
    for section, kind in (
        ("lanes", LaneConfig),
        ("groups", GroupConfig),
        ("limits", LimitsConfig),
        ("accounts", AccountConfig),
    ):
        if not isinstance(raw.get(section), dict):
            continue
        entries: dict[str, Any] = raw[section]
        for name, entry in entries.items():
            try:
                msgspec.convert(entry, kind)
            except msgspec.ValidationError as error:
                where, separator, what = explained(error, kind).rpartition(": ")
                if section == "accounts" and what == "Expected `object | null`, got `str`":
                    what = 'expected { env = "NAME" } or { file = "PATH" }: secrets do not stand in this file'
                return f"{section}.{name}.{where}{separator}{what}" if separator else f"{section}.{name}: {what}"
    return None
