"""Routers for unit tests: some lanes that a worker has reported, and requests to decide on."""

from dispatcher.router import Router, Send
from schemas.config import Config, DispatcherConfig, GroupConfig, LaneConfig
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try
from schemas.reports import LaneReport, Report

CONFIG = DispatcherConfig()
NOW_MS = 1_000_000_000_000
WEIGHTS = {"binance": 3.0, "okx": 1.0, "kraken.eu": 1.0, "kraken.us": 1.0}


def attempt(*exchanges: str, tries: tuple[Try, ...] = (), left_ms: int = 30_000, number: int = 0) -> Attempt:
    """An attempt at a ticker from these exchanges."""
    request = Request(method="fetch_ticker", id="1", exchanges=list(exchanges), deadline_ms=NOW_MS + left_ms)
    return Attempt(request=request, lane="", number=number, received_ms=NOW_MS, tries=list(tries))


def failed(lane: str, code: ErrorCode = ErrorCode.EXCHANGE_UNAVAILABLE) -> Try:
    """A try that failed there."""
    return Try(lane, Outcome.FAILED, code, "it broke")


def config(weights: dict[str, float]) -> Config:
    """A configuration with these lanes, and two groups."""
    lanes = {name: LaneConfig(exchange=name.split(".")[0], weight=weight) for name, weight in weights.items()}
    groups = {"eu": GroupConfig(("kraken.eu", "okx")), "first": GroupConfig(("okx", "kraken"), strategy="failover")}
    return Config(lanes=lanes, dispatcher=CONFIG, groups=groups)


def heard(router: Router, *reports: LaneReport, now_s: float = 0.0) -> None:
    """A worker reports these lanes."""
    router.observe(Report("w1", NOW_MS, [*reports]), now_s)


def new() -> Router:
    """A router of these lanes."""
    router = Router(config(WEIGHTS))
    heard(router, *(LaneReport(name, methods=["fetch_ticker"]) for name in WEIGHTS))
    return router


def decide(router: Router, of: Attempt, *, now_s: float = 0.0, now_ms: int = NOW_MS, rested: bool = False) -> object:
    """What the router decides."""
    return router.decide(of, now_s, now_ms, rested=rested)


def lane_of(decision: object) -> str:
    """Where the attempt is sent."""
    assert isinstance(decision, Send)
    return decision.lane
