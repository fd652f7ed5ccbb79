"""What the chaos run asks for."""

import random
from typing import Any, Final

# Every third request is one of these, so that most of them find an equal one under way or an answer that will do.
BY_CANDLES: Final = ("binance", "okx")
SHARED: Final[tuple[dict[str, Any], ...]] = (
    *({"method": "fetch_ticker", "args": {"symbol": symbol}} for symbol in ("BTC/USDT", "ETH/USDT")),
    *(
        {"method": "fetch_ohlcv", "args": {"symbol": "BTC/USDT", "timeframe": frame, "limit": limit}}
        for frame, limit in (("1m", 7), ("1m", 11), ("1h", 7))
    ),
)
AGES_MS: Final = (0, 500, 5_000)


def requests_of(seed: int, exchanges: list[str]) -> Any:
    """What the producer asks for, by number: all follows from the seed."""
    rng = random.Random(f"requests {seed}")

    def fields(number: int) -> dict[str, Any]:
        if number % 3 == 1:
            shared = rng.choice(SHARED)
            of_candles = shared["method"] == "fetch_ohlcv"
            age = rng.choice((*AGES_MS, "bar") if of_candles else AGES_MS)
            named = {"exchanges": BY_CANDLES} if of_candles else {}
            return {**shared, **named, "max_age_ms": age, "within_ms": rng.randint(10_000, 60_000)}
        method = rng.choices(("fetch_ticker", "fetch_order_book", "fetch_ohlcv", "fetch_trades"), (5, 2, 2, 1))[0]
        asked: dict[str, Any] = {"method": method, "args": {"symbol": rng.choice(("BTC/USDT", "ETH/USDT"))}}
        if number % 4 == 0:
            asked["exchanges"] = rng.sample(exchanges, rng.randint(1, len(exchanges)))
        if number % 10 == 0:
            asked["priority"] = "bulk"
        return {**asked, "within_ms": rng.randint(10_000, 60_000)}

    return fields
