"""Which lane a request goes to, when it waits, and how it ends."""

import itertools
import math
import random
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.router import End, Router, Send, Wait
from schemas import topology
from schemas.config import Config, LaneConfig
from schemas.messages import Attempt, Bound, ErrorCode, Outcome, Request, Strategy, Try
from schemas.reports import LaneReport
from schemas.runtime.results import failure
from tests.support.routers import CONFIG, NOW_MS, WEIGHTS, attempt, config, decide, failed, heard, lane_of, new


@pytest.fixture
def router() -> Router:
    return new()


def ok_and_failed(lane: str, good: int, bad: int) -> LaneReport:
    failures = {ErrorCode.EXCHANGE_UNAVAILABLE: bad}
    return LaneReport(lane, ok=good, failed=failures, failures_in_a_row=0 if good else bad, exchange_ms=100.0)


def test_shares_follow_the_weights(router: Router) -> None:
    sent = Counter(lane_of(decide(router, attempt())) for _ in range(600))
    assert sent == {"binance": 300, "okx": 100, "kraken.eu": 100, "kraken.us": 100}


def test_an_exchange_names_all_its_lanes_and_a_lane_only_itself(router: Router) -> None:
    assert {lane_of(decide(router, attempt("kraken"))) for _ in range(10)} == {"kraken.eu", "kraken.us"}
    assert {decide(router, attempt("kraken.us")) for _ in range(10)} == {Send("kraken.us")}


def test_what_may_answer_is_known_by_lane(router: Router) -> None:
    both, one = (router.sources(attempt(name).request) for name in ("kraken", "kraken.us"))
    assert set(both) == {"kraken.eu", "kraken.us"}
    assert len(set(both.values())) == 1, "their settings lead to the same"
    assert one == {"kraken.us": both["kraken.us"]}
    assert router.sources(attempt("nowhere").request) == {}


def test_a_turn_is_as_late_as_its_caller_s_requests_make_it(router: Router) -> None:
    okx, crowd = router.health["okx"], replace(attempt("okx"), reply_to="crowd")
    okx.refused(crowd.request, NOW_MS + 1_000, Bound("all", NOW_MS + 1_000, 1_000.0), NOW_MS)
    for _ in range(20):
        okx.book(crowd, NOW_MS)
    late_ms, soon_ms = (
        router.turn_ms(replace(crowd, reply_to=caller), 0.0, NOW_MS) - NOW_MS for caller in ("crowd", "modest")
    )
    assert late_ms > 20_000
    assert 0 < soon_ms < 5_000
    assert router.turn_ms(attempt("okx", "binance"), 0.0, NOW_MS) == NOW_MS
    assert router.turn_ms(attempt("nowhere"), 0.0, NOW_MS) == math.inf


def test_a_testnet_is_reached_by_those_who_name_it(router: Router) -> None:
    lanes = {"okx": LaneConfig(exchange="okx"), "okx.test": LaneConfig(exchange="okx", sandbox=True)}
    router.configure(Config(lanes=lanes, dispatcher=CONFIG))
    heard(router, *(LaneReport(name, methods=["fetch_ticker"]) for name in lanes))
    assert {lane_of(decide(router, attempt(*names))) for names in ((), ("okx",)) for _ in range(5)} == {"okx"}
    assert lane_of(decide(router, attempt("okx-sandbox"))) == lane_of(decide(router, attempt("okx.test"))) == "okx.test"
    assert [each.request.exchanges for each in router.fan_out(to_all())] == [["okx"]]
    assert [each.request.exchanges for each in router.fan_out(to_all("okx", "okx-sandbox"))] == [
        ["okx"],
        ["okx-sandbox"],
    ]
    router.configure(Config(lanes={"okx": LaneConfig(exchange="okx", sandbox=True)}, dispatcher=CONFIG))
    assert [each.request.exchanges for each in router.fan_out(to_all())] == [["okx-sandbox"]]


def to_all(*exchanges: str) -> Attempt:
    of = attempt(*exchanges)
    return replace(of, request=replace(of.request, exchanges_mode="all"))


def test_failover_takes_the_order_given(router: Router) -> None:
    of = attempt("okx", "binance")
    of = replace(of, request=replace(of.request, strategy="failover"))
    assert [lane_of(decide(router, of)) for _ in range(5)] == ["okx"] * 5


def test_a_failed_request_goes_elsewhere_while_another_lane_is_left(router: Router) -> None:
    of = attempt("okx", "binance", tries=(failed("okx"),), number=1)
    assert {lane_of(decide(router, of)) for _ in range(20)} == {"binance"}


def test_it_goes_back_to_a_lane_that_failed_it_only_after_a_rest(router: Router) -> None:
    of = attempt("okx", tries=(failed("okx"),), number=2)
    assert decide(router, of) == Wait(500)
    assert decide(router, of, rested=True) == Send("okx")


def test_a_lane_without_budget_is_asked_again_when_it_has_some(router: Router) -> None:
    held = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS + 3_000)
    assert decide(router, attempt("okx", tries=(held,))) == Wait(3_000)
    assert decide(router, attempt("okx", tries=(held,)), now_ms=NOW_MS + 3_000) == Send("okx")
    assert lane_of(decide(router, attempt("okx", "binance", tries=(held,)))) == "binance"


def test_no_budget_before_the_deadline_ends_at_once(router: Router) -> None:
    held = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS + 3_000)
    decision = decide(router, attempt("okx", tries=(held,), left_ms=2_000))
    assert isinstance(decision, End)
    assert decision.code is ErrorCode.DEADLINE_EXCEEDED
    assert "okx has no budget in time" in decision.message


@pytest.mark.parametrize("code", [ErrorCode.RATE_LIMITED, ErrorCode.PAUSED])
def test_what_a_pause_ends_says_so_with_its_length(router: Router, code: ErrorCode) -> None:
    """Also before a report has the pause, and where only an endpoint is paused, which is in none."""
    banned = Try("okx", Outcome.FAILED, code, retry_at_ms=NOW_MS + 600_000)
    decision = decide(router, attempt("okx", tries=(banned,), left_ms=2_000))
    assert isinstance(decision, End)
    assert "okx is paused for 600.0 s more" in decision.message
    heard(router, LaneReport("okx", paused_until_ms=NOW_MS + 600_000, paused_by="text of the answer"))
    decision = decide(router, attempt("okx", left_ms=2_000))
    assert isinstance(decision, End)
    assert "okx is paused for 600.0 s more (text of the answer)" in decision.message


def test_lanes_known_to_have_no_budget_are_the_last_choice(router: Router) -> None:
    router.health["binance"].refused(Request("fetch_ticker"), NOW_MS + 1_000, None, NOW_MS)
    assert decide(router, attempt("okx", "binance")) == Send("okx", timeout_ms=15_000)
    assert decide(router, attempt("binance")) == Send("binance")
    later = decide(router, attempt("okx", "binance"), now_ms=NOW_MS + 1_000)
    assert later == Send("binance", max_wait_ms=100, timeout_ms=14_500)


def test_what_is_left_to_live_requests_is_no_less_for_a_refused_bulk_one(router: Router) -> None:
    bulk = Request("fetch_ticker", priority="bulk")
    router.health["okx"].refused(bulk, NOW_MS + 1_000, None, NOW_MS)
    assert router.health["okx"].load.funded(Request("fetch_ticker"), NOW_MS)
    assert not router.health["okx"].load.funded(bulk, NOW_MS)


def test_a_paused_lane_is_passed_over(router: Router) -> None:
    heard(router, LaneReport("okx", paused_until_ms=NOW_MS + 5_000))
    assert decide(router, attempt("okx")) == Wait(5_000)
    assert decide(router, attempt("okx", "binance")) == Send("binance")


def test_a_symbol_that_no_lane_has_ends_with_its_code(router: Router) -> None:
    bad = (failed("okx", ErrorCode.BAD_SYMBOL), failed("binance", ErrorCode.BAD_SYMBOL))
    decision = decide(router, attempt("okx", "binance", tries=bad, number=2))
    assert isinstance(decision, End)
    assert decision.code is ErrorCode.BAD_SYMBOL


def test_an_unknown_exchange_is_named_with_the_known_ones(router: Router) -> None:
    decision = decide(router, attempt("mtgox"))
    assert isinstance(decision, End)
    assert decision.code is ErrorCode.UNKNOWN_EXCHANGE
    assert "'mtgox'" in decision.message
    assert "binance" in decision.message


def test_an_old_name_of_an_exchange_means_it_unless_a_lane_has_that_name() -> None:
    router = Router(Config(lanes={"htx.eu": LaneConfig(exchange="htx"), "okex": LaneConfig(exchange="okx")}))
    heard(router, *(LaneReport(name, methods=["fetch_ticker"]) for name in ("htx.eu", "okex")))
    assert decide(router, attempt("huobi")) == Send("htx.eu")
    assert decide(router, attempt("okex")) == decide(router, attempt("okx")) == Send("okex")
    both = attempt("huobi", "htx", "huobipro", "okex5")
    parts = router.fan_out(replace(both, request=replace(both.request, exchanges_mode="all")))
    assert [part.request.exchanges for part in parts] == [["htx"], ["okx"]]


@pytest.mark.parametrize(("name", "says"), [("gateio", "gateio is gate today"), ("bitmex", "ccxt gave bitmex up")])
def test_an_old_name_that_no_lane_reaches_is_explained(router: Router, name: str, says: str) -> None:
    decision = decide(router, attempt("okx", name))
    assert isinstance(decision, End)
    assert decision.code is ErrorCode.UNKNOWN_EXCHANGE
    assert says in decision.message


def test_a_method_no_lane_has_ends(router: Router) -> None:
    of = attempt()
    decision = decide(router, replace(of, request=replace(of.request, method="fetch_greeks")))
    assert isinstance(decision, End)
    assert decision.code is ErrorCode.NOT_SUPPORTED


def test_the_deadline_and_the_number_of_attempts_end_it(router: Router) -> None:
    late = decide(router, attempt(left_ms=0))
    assert isinstance(late, End)
    assert late.code is ErrorCode.DEADLINE_EXCEEDED
    doubted = (failed("okx", ErrorCode.EXCHANGE_ERROR),) * CONFIG.max_attempts
    spent = decide(router, attempt(tries=doubted, number=CONFIG.max_attempts))
    assert isinstance(spent, End)
    assert spent.code is ErrorCode.ATTEMPTS_EXHAUSTED
    assert "okx: it broke" in spent.message


@pytest.mark.parametrize("exchanges", [("okx",), ("okx", "binance")])
def test_what_is_plainly_the_exchanges_is_tried_until_the_deadline(router: Router, exchanges: tuple[str, ...]) -> None:
    """In turn, with rests, and once more close to the deadline."""
    of, now_ms, sent, rested = attempt(*exchanges, left_ms=60_000), NOW_MS, list[tuple[int, str]](), False
    while not isinstance(decision := decide(router, of, now_ms=now_ms, rested=rested), End):
        if rested := isinstance(decision, Wait):
            now_ms += topology.delay_for(decision.wait_ms)
        else:
            lane = lane_of(decision)
            sent.append((now_ms - NOW_MS, lane))
            of = replace(of, lane=lane, number=of.number + 1).handed_back(failed(lane))
    assert decision.code is ErrorCode.DEADLINE_EXCEEDED
    for number in range(0, len(sent) - len(exchanges) + 1, len(exchanges)):
        assert {lane for _, lane in sent[number : number + len(exchanges)]} == set(exchanges)
    times_ms = [at_ms for at_ms, _ in sent][len(exchanges) - 1 :]
    assert all(later - earlier >= 250 for earlier, later in itertools.pairwise(times_ms))
    assert times_ms[-1] >= 59_000
    assert len(sent) < 30
    assert [item.lane for item in of.tries] == [lane for _, lane in sent]


def test_a_trial_of_an_offline_lane_is_marked(router: Router) -> None:
    down = LaneReport("okx", failed={ErrorCode.EXCHANGE_UNAVAILABLE: 5}, failures_in_a_row=5)
    heard(router, down)
    assert decide(router, attempt("okx")) == Wait(1_000)
    assert decide(router, attempt("okx"), now_s=1.0) == Send("okx", trial=True)
    assert decide(router, attempt("okx"), now_s=1.0) == Wait(1_000)  # it may be back before the next one


def test_an_ill_lane_gets_only_its_trials(router: Router) -> None:
    heard(router, ok_and_failed("okx", 7, 3))
    sent = [decide(router, attempt("okx", "binance"), now_s=step / 100) for step in range(150)]
    assert [step for step, decision in enumerate(sent) if lane_of(decision) == "okx"] == [100]
    assert sent[100] == Send("okx", trial=True, max_wait_ms=100, timeout_ms=2_000)


def test_the_trial_of_a_lane_that_is_slow_by_nature_has_time_for_its_answer(router: Router) -> None:
    """Otherwise it would never come back while another lane can answer."""
    for step in range(50):
        heard(router, LaneReport("okx", ok=1, exchange_ms=3_000.0), now_s=step / 5)
    down = LaneReport("okx", failed={ErrorCode.EXCHANGE_UNAVAILABLE: 5}, failures_in_a_row=5)
    heard(router, down, now_s=10.0)
    chosen: list[tuple[int, object]] = []
    for at_s in range(11, 18):
        heard(router, LaneReport("okx"), LaneReport("binance"), now_s=float(at_s))
        chosen.append((at_s, decide(router, attempt("okx", "binance"), now_s=float(at_s))))
    trial = Send("okx", trial=True, max_wait_ms=100, timeout_ms=6_000)
    assert [(at_s, decision) for at_s, decision in chosen if lane_of(decision) == "okx"] == [(11, trial), (17, trial)]
    heard(router, LaneReport("okx"), LaneReport("binance"), now_s=23.0)
    assert lane_of(decide(router, attempt("okx", "binance", left_ms=11_000), now_s=23.0)) == "binance"  # in a hurry


def test_a_request_in_a_hurry_tries_no_ill_lane(router: Router) -> None:
    heard(router, ok_and_failed("okx", 7, 3))
    assert lane_of(decide(router, attempt("okx", "binance", left_ms=3_000), now_s=1.0)) == "binance"


def test_a_degraded_lane_takes_what_has_no_other(router: Router) -> None:
    heard(router, ok_and_failed("okx", 7, 3))
    assert decide(router, attempt("okx")) == Send("okx")
    heard(router, LaneReport("binance", paused_until_ms=NOW_MS + 5_000))
    assert lane_of(decide(router, attempt("okx", "binance"))) == "okx"


def test_a_group_stands_for_its_exchanges_with_its_strategy(router: Router) -> None:
    assert {lane_of(decide(router, attempt("eu"))) for _ in range(10)} == {"kraken.eu", "okx"}
    assert {lane_of(decide(router, attempt("first"))) for _ in range(10)} == {"okx"}
    of = attempt("first")
    of = replace(of, request=replace(of.request, strategy="round_robin"))
    assert {lane_of(decide(router, of)) for _ in range(10)} == {"kraken.eu", "kraken.us", "okx"}


@pytest.mark.parametrize("strategy", ["weighted_round_robin", "round_robin", "least_latency", "failover", "adaptive"])
def test_every_strategy_passes_over_what_can_t_take_it(router: Router, strategy: Strategy) -> None:
    heard(router, LaneReport("okx", paused_until_ms=NOW_MS + 5_000), ok_and_failed("binance", 0, 5))
    of = attempt("okx", "binance", "kraken.us")
    of = replace(of, request=replace(of.request, strategy=strategy))
    assert {lane_of(decide(router, of)) for _ in range(50)} == {"kraken.us"}


def test_another_configuration_keeps_what_is_known_of_lanes_that_stay(router: Router) -> None:
    heard(router, LaneReport("okx", paused_until_ms=NOW_MS + 5_000))
    router.configure(config({"okx": 1.0, "binance": 1.0, "gate": 1.0}))
    assert decide(router, attempt("okx")) == Wait(5_000)
    assert isinstance(decide(router, attempt("kraken.eu")), End)
    assert decide(router, attempt("gate")) == Wait(1_000)
    heard(router, LaneReport("gate", methods=["fetch_ticker"]), LaneReport("kraken.eu"))
    assert decide(router, attempt("gate")) == Send("gate")


def test_a_request_to_all_becomes_one_for_each_exchange(router: Router) -> None:
    def asked(*exchanges: str) -> list[str]:
        of = attempt(*exchanges)
        parts = router.fan_out(replace(of, request=replace(of.request, exchanges_mode="all")))
        assert {part.results for part in parts} == {len(parts)}
        assert {len(part.request.exchanges) for part in parts} == {1}
        return [name for part in parts for name in part.request.exchanges]

    heard(router, LaneReport("binance", methods=["fetch_trades"]))
    assert asked() == ["okx", "kraken"]
    assert asked("first", "binance", "okx", "kraken.us") == ["okx", "kraken", "binance", "kraken.us"]


def test_of_a_request_to_all_each_name_is_answered_alone(router: Router) -> None:
    of = attempt("okx", "mtgox", "first")
    parts = router.fan_out(replace(of, request=replace(of.request, exchanges_mode="all")))
    assert [part.request.exchanges for part in parts] == [["okx"], ["mtgox"], ["kraken"]]
    assert [part.results for part in parts] == [3, 3, 3]
    ends = [decide(router, part) for part in parts]
    assert [isinstance(end, End) for end in ends] == [False, True, False]
    assert failure(parts[1], ErrorCode.UNKNOWN_EXCHANGE, "why").exchange == "mtgox"


@pytest.mark.parametrize("names", [["mtgox"], ["okx"]])
def test_a_request_to_all_of_one_says_of_whom_its_error_is(router: Router, names: list[str]) -> None:
    of = attempt(*names)
    (part,) = router.fan_out(replace(of, request=replace(of.request, exchanges_mode="all")))
    error = failure(part, ErrorCode.UNKNOWN_EXCHANGE, "why")
    assert (error.exchange, error.results) == (names[0], 1)
    assert failure(of, ErrorCode.UNKNOWN_EXCHANGE, "why").exchange is None


def test_a_request_to_all_of_nobody_ends_once(router: Router) -> None:
    of = attempt()
    of = replace(of, request=replace(of.request, method="fetch_greeks", exchanges_mode="all"))
    heard(router, *(LaneReport(name, methods=["fetch_trades"]) for name in router.health))
    assert router.fan_out(of) == [of]
    assert isinstance(decide(router, of), End)


def test_methods_that_change_are_noticed(router: Router) -> None:
    assert decide(router, attempt("okx")) == Send("okx")
    heard(router, LaneReport("okx", methods=["fetch_trades"]))
    assert isinstance(decide(router, attempt("okx")), End)


def test_without_a_worker_it_waits(router: Router) -> None:
    assert decide(router, attempt("okx"), now_s=100.0) == Wait(1000)


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.THROTTLED])
def test_only_an_attempt_that_was_sent_and_no_trial_counts(trial: bool, outcome: Outcome) -> None:
    sent = replace(attempt("okx", number=3), lane="okx", trial=trial)
    returned = sent.handed_back(Try("okx", outcome, ErrorCode.NO_BUDGET))
    assert returned.number == (3 if outcome is Outcome.FAILED and not trial else 2)


def test_a_request_that_names_an_account_goes_to_its_lanes_alone() -> None:
    lanes = {"okx": LaneConfig("okx"), "okx.main": LaneConfig("okx", account="main"), "kraken": LaneConfig("kraken")}
    router = Router(Config(lanes=lanes, dispatcher=CONFIG))
    heard(router, *(LaneReport(name, methods=["fetch_ticker", "fetch_balance"]) for name in lanes))

    def of(account: str, *exchanges: str) -> object:
        asked = attempt(*exchanges)
        return decide(router, replace(asked, request=replace(asked.request, method="fetch_balance", account=account)))

    assert {lane_of(of("main")) for _ in range(9)} == {"okx.main"}
    assert lane_of(of("main", "okx")) == "okx.main"
    for wrong in (of("main", "kraken"), of("other")):
        assert isinstance(wrong, End)
        assert wrong.code is ErrorCode.UNKNOWN_EXCHANGE
        assert "has the account" in wrong.message
    assert {lane_of(decide(router, attempt())) for _ in range(9)} == set(lanes)


def test_a_crowd_does_not_all_go_to_the_one_lane_that_has_not_refused_yet(router: Router) -> None:
    heard(router, LaneReport("kraken.eu", budget_ms=1_000.0))
    for name in ("binance", "okx", "kraken.us"):
        router.health[name].refused(Request("fetch_ticker"), NOW_MS + 2_000, None, NOW_MS)
    sent = Counter(lane_of(decide(router, attempt(left_ms=3_600_000))) for _ in range(602))
    assert sent["kraken.eu"] == 102  # two wait for its budget at once; all others go by the weights
    assert sent["binance"] == 300


class CloseLook(Router):
    """Looks closely at every lane for every request."""

    def _open(self, *_: object, **__: object) -> tuple[()]:
        return ()


@settings(deadline=None, max_examples=settings().max_examples // 5)
@given(st.randoms(use_true_random=False), st.sampled_from([name for name in get_args(Strategy) if "least" not in name]))
def test_one_look_at_open_lanes_decides_as_a_close_look_does(draw: random.Random, strategy: Strategy) -> None:
    routers = Router(config(WEIGHTS)), CloseLook(config(WEIGHTS))
    now_s, lanes = 0.0, list(WEIGHTS)
    for _ in range(150):
        now_s += draw.choice((0.0, 0.001, 0.01, 0.1, 1.0))
        now_ms = NOW_MS + int(now_s * 1000)
        lane = draw.choice(lanes)
        request = Request("fetch_ticker", priority=draw.choice(("live", "live", "bulk")))
        match draw.randrange(8):
            case 0:
                until_ms = now_ms + draw.randrange(4_000)
                bound = draw.choice((None, Bound("all", until_ms, 50.0)))
                for router in routers:
                    router.health[lane].refused(request, until_ms, bound, now_ms)
            case 1 | 2 | 3:
                report = any_report(draw, lane, now_ms)
                for router in routers:
                    heard(router, report, now_s=now_s)
            case _:
                tries = [failed(name, draw.choice(list(ErrorCode))) for name in lanes if draw.random() < 0.15]
                of = attempt(*draw.choice(([], lanes[:2], [lane], ["kraken", "okx"])), tries=tuple(tries))
                request = replace(of.request, strategy=strategy, deadline_ms=now_ms + draw.choice((100, 3_000, 30_000)))
                of = replace(of, request=replace(request, priority=draw.choice(("live", "live", "bulk"))))
                rested = draw.random() < 0.2
                for _ in range(draw.choice((1, 1, 1, 40))):
                    first, second = (router.decide(of, now_s, now_ms, rested=rested) for router in routers)
                    assert first == second


def any_report(draw: random.Random, lane: str, now_ms: int) -> LaneReport:
    return LaneReport(
        lane,
        ok=draw.choice((0, 1, 5, 20)),
        failed={ErrorCode.EXCHANGE_UNAVAILABLE: draw.randrange(3)} if draw.random() < 0.2 else {},
        exchange_ms=draw.choice((10.0, 60.0, 500.0)),
        in_flight=draw.choice((0, 0, 1, 30)),
        budget_ms=draw.choice((0.0, 5.0, 100.0)),
        slowness=draw.choice((1.0, 1.0, 8.0)),
        paused_until_ms=now_ms + draw.randrange(3_000) if draw.random() < 0.1 else 0,
        unanswered=draw.choice((0, 0, 3)),
        silent_ms=draw.choice((0.0, 500.0)),
    )
