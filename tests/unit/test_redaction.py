"""Secrets are taken out of foreign texts, in whatever form they stand there."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from schemas.accounts import Secret
from tests.support.canaries import canary, forms
from workers.exchange.redaction import HIDDEN_FROM, MESSAGE_LIMIT, Redactor, in_one_line


def test_every_form_is_found() -> None:
    secret = canary()
    redactor = Redactor([Secret(secret)])
    for name, written in forms(secret).items():
        assert redactor.suspects(written.encode()), name
        hidden = redactor.hide(f"<{written}>")
        assert hidden.startswith("<"), name
        assert len(hidden) <= 6, (name, hidden)  # base64 ends in what is not of it alone
    data = {"info": [{secret: quote(secret, safe="")}, 7, None, True]}
    assert redactor.hide_in(data) == {"info": [{"…": "…"}, 7, None, True]}


@given(st.text(min_size=HIDDEN_FROM, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_any_secret_is_hidden_in_any_text(secret: str, before: str, behind: str) -> None:
    redactor = Redactor([Secret(secret)])
    for written in (secret, quote(secret, safe="")):
        text = f"{before}{written}{behind}"
        assert redactor.suspects(text.encode())
        assert secret not in redactor.hide(text).replace("…", "")


def test_what_is_not_secret_stays() -> None:
    assert Redactor([]).hide("text") == "text"
    assert not Redactor([]).suspects(b"text")
    redactor = Redactor([Secret("12345"), Secret("0a1b2c3d4e")])
    text = '{"uid":"12345","price":"0a1b2c3d4","code":"50113"}'
    assert redactor.hide(text) == text
    assert not redactor.suspects(text.encode())


def test_a_message_is_cut_behind_a_secret_and_not_within() -> None:
    secret = canary()
    for length in range(MESSAGE_LIMIT - 60, MESSAGE_LIMIT):
        said = in_one_line(ValueError("x" * length + secret), Redactor([Secret(secret)]).hide)
        assert not any(secret[start : start + 3] in said for start in range(len(secret) - 2))
