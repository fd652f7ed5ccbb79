"""What `gateway config` prints leads every public call of each class of ccxt to the gateway, and changes nothing."""

from typing import Any
from urllib.parse import urlsplit

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.errors import ConfigError
from schemas.gateway.calls import Asked, read
from schemas.gateway.leads import leads
from workers.exchange.public_urls import endpoints

GATEWAY = "http://127.0.0.1:8080"
# Their classes write an address of their own for some calls, whatever `urls` says.
OF_THEIR_OWN = {"btcbox": "https://www.btcbox.co.jp//ajax/"}


def signed(exchange: Any, endpoint: Any) -> str | None:
    names = [each.partition("}")[0] for each in endpoint.path.split("{")[1:]]
    try:
        return str(exchange.sign(endpoint.path, endpoint.api, endpoint.method, dict.fromkeys(names, "X-Y"))["url"])
    except Exception:  # it wants a key, or an argument
        return None


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_every_public_call_goes_to_the_gateway(name: str) -> None:
    usual, led = getattr(ccxt, name)(), getattr(ccxt, name)(leads(name, GATEWAY, token=True).ccxt)
    assert led.headers["X-Fleet-Token"] == "<token>"
    usual.milliseconds = led.milliseconds = lambda: 1_760_000_000_000
    count = 0
    for endpoint in endpoints(usual):
        url = signed(usual, endpoint)
        if url is None or not url.startswith("https://"):
            continue
        count += 1
        if url.startswith(OF_THEIR_OWN.get(name, "-")):
            continue
        assert signed(led, endpoint) == url.replace("https://", f"{GATEWAY}/{name}/", 1)
        parts = urlsplit(str(signed(led, endpoint)))
        asked = read(parts.path + (f"?{parts.query}" if parts.query else ""), endpoint.method, b"")
        assert not isinstance(asked, Asked) or asked.http.url == url
    assert count


def test_a_testnet_has_its_own() -> None:
    found = leads("binance-sandbox", f"{GATEWAY}/", token=False)
    assert found.ccxt["urls"]["api"]["public"] == f"{GATEWAY}/binance-sandbox/testnet.binance.vision/api/v3"
    assert "headers" not in found.ccxt
    assert found.freqtrade["name"] == "binance"


def test_a_line_for_curl() -> None:
    assert leads("kraken", GATEWAY, token=False).curl == f"curl '{GATEWAY}/kraken/api.kraken.com/0/public/Time'"
    with_token = leads("okx", GATEWAY, token=True).curl
    assert with_token.startswith("curl -H 'Authorization: Bearer <token>' ")


@pytest.mark.parametrize("name", ["ftx", "", "binance-x", "kraken-sandbox"])
def test_what_ccxt_does_not_know(name: str) -> None:
    with pytest.raises(ConfigError):
        leads(name, GATEWAY, token=False)
