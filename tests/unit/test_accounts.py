"""Secrets come from the environment or from files, and show themselves nowhere."""

import json
import logging
import pickle
from pathlib import Path

import msgspec
import pytest

from schemas.accounts import CCXT_NAMES, AccountConfig, Secret, SecretSource
from schemas.errors import ConfigError
from schemas.runtime.logs import KeyValueFormatter

SECRET = "s3cr3t-value"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(SECRET)
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>40}",
        repr([secret, (secret,)]),
    ):
        assert SECRET not in shown
    assert secret.reveal() == SECRET


def test_a_secret_is_not_written_anywhere() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(SECRET))
    with pytest.raises(TypeError):
        json.dumps(Secret(SECRET))
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret(SECRET))
    record = logging.LogRecord("x", logging.INFO, "x", 1, "event", None, None)
    record.__dict__["credentials"] = {"secret": Secret(SECRET)}
    assert SECRET not in KeyValueFormatter().format(record)


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("-----BEGIN\nKEY-----\n")
    account = AccountConfig(api_key=SecretSource(env="KEY"), secret=SecretSource(file=str(file)))
    found = account.credentials("main", {"KEY": "k"})
    assert {name: secret.reveal() for name, secret in found.items()} == {
        "apiKey": "k",
        "secret": "-----BEGIN\nKEY-----",
    }


def test_keys_have_ccxt_s_names() -> None:
    names = ["apiKey", "secret", "password", "uid", "privateKey", "walletAddress", "token"]
    assert list(CCXT_NAMES.values()) == names


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (SecretSource(env="NONE"), "accounts.main.secret: the environment variable NONE is not set"),
        (SecretSource(env="EMPTY"), "accounts.main.secret: the environment variable EMPTY is not set"),
        (SecretSource(file="/nowhere/at/all"), "accounts.main.secret: the file /nowhere/at/all can't be read: No such"),
        (SecretSource(file="/dev/null"), "accounts.main.secret: the file /dev/null is empty"),
        (SecretSource(env="A", file="B"), "accounts.main.secret: expected either env or file"),
        (SecretSource(), "accounts.main.secret: expected either env or file"),
    ],
)
def test_a_secret_that_is_not_there_says_where_it_was_looked_for(source: SecretSource, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AccountConfig(secret=source).credentials("main", {"EMPTY": ""})
    assert str(caught.value).startswith(says)


def test_an_account_has_something() -> None:
    with pytest.raises(ConfigError, match=r"accounts\.main: expected at least one of api_key"):
        AccountConfig().credentials("main", {})
