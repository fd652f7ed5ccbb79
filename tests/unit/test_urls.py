"""Unusable URLs in the configuration are refused when it is read, and their contents stay secret."""

import pytest

from schemas import urls
from schemas.errors import ConfigError

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://u:s3cr3t@host:port/", "expected a URL"),
        ("amqp://u:s3cr3t@host:99999/", "expected a URL"),
        ("amqp://u:s3cr3t@host:-1/", "expected a URL"),
        ("amqp://u:s3cr3t@[host/", "expected a URL"),
        ("amqp://u:s3cr3t@host:0/", "expected a port from 1 to 65535"),
        ("amqp:///", "expected a host"),
        ("amqp://u:s3cr3t@a..b/", "expected a host whose name has 1 to 63 characters between dots"),
        (f"redis://:s3cr3t@{'a' * 64}.b/", "expected a host whose name has 1 to 63 characters between dots"),
        ("amqp://u:s3cr3t@/", "expected a host"),
        ("amqp://u:s3cr3t%zz@host/", "two hexadecimal digits after each %"),
        ("amqp://u:s3cr3t%@host/", "two hexadecimal digits after each %"),
        ("amqp://u:s3cr3t%ff@host/", "expected a URL"),
        ("amqp://u:s3cr3t@host/\n", "no blanks and no line breaks"),
        ("amqp://u:s3cr3t @host/", "no blanks and no line breaks"),
        ("amqp://u:s3cr3t@host/?heartbeat=abc", "expected no option but auth; [broker] has the times"),
        ("amqp://u:s3cr3t@host/?timeout=5", "expected no option but auth; [broker] has the times"),
        ("amqp://u:s3cr3t@host/?cafile=ca.pem", "expected amqps:// where an option is for TLS (cafile)"),
        ("amqps://u:s3cr3t@host/?cafile=", "expected a value for the option cafile"),
        ("amqps://u:s3cr3t@host/?ssl_ca_certs=ca.pem", "expected no option but auth, cadata, cafile"),
        ("redis://:s3cr3t@host:port/0", "expected a URL"),
        ("redis://:s3cr3t@host:99999/0", "expected a URL"),
        ("redis://:s3cr3t%zz@host/0", "two hexadecimal digits after each %"),
        ("redis://:s3cr3t@host/db", "expected a database's number after the host"),
        ("redis://:s3cr3t@host/0/1", "expected a database's number after the host"),
        ("redis://:s3cr3t@host/?db=abc", "one of db has another form"),
        ("redis://:s3cr3t@host/0?socket_timeout=abc", "expected no option but client_name, db"),
        ("redis://:s3cr3t@host/0?retry_on_timeout=yes", "expected no option but client_name, db"),
        ("redis://:s3cr3t@host/0?decode_responses=1", "expected no option but client_name, db"),
        ("redis://:s3cr3t@host/0?ssl_ca_certs=ca.pem", "expected rediss:// where an option is for TLS (ssl_ca_certs)"),
        ("redis://host/0?password=", "expected a value for the option password"),
        ("rediss://:s3cr3t@host/0?ssl_cert_reqs=perhaps", "one of ssl_cert_reqs has another form"),
        ("rediss://:s3cr3t@host/0?ssl_min_version=new", "one of ssl_min_version has another form"),
        ("unix://run/redis.sock", "expected the path of a socket"),
        ("http://u:s3cr3t@host:port", "expected a URL"),
        ("http://u:s3cr3t@host:0", "expected a port from 1 to 65535"),
        ("http://u:s3cr3t%zz@host:80", "two hexadecimal digits after each %"),
        ("https://", "expected a host"),
    ],
)
def test_what_is_no_url_is_refused_by_name_and_not_shown(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        urls.check("here", url)
    assert str(raised.value).startswith("here: ")
    assert says in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost/",
        "amqp://müller.example./",
        "amqp://u:s3%40cr3t@host:5672/%2Fvhost",
        "amqps://u@host/?cafile=/etc/fleet/ca.pem&certfile=a.pem&keyfile=a.key",
        "amqps://host/?auth=external&no_verify_ssl=1",
        "redis://localhost",
        "redis://:s3%25cr3t@[::1]:6379/15",
        "redis://host/?db=3&client_name=fleet",
        "rediss://host:6380/0?ssl_ca_certs=/etc/fleet/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=no",
        "unix:///run/redis.sock?db=1",
        "http://u:p@proxy:3128",
    ],
)
def test_what_can_be_used_is_let_through(url: str) -> None:
    urls.check("here", url)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"api": {"public": "api.example"}}, "here.api.public: expected a URL that begins with https://"),
        ({"api": "https://host:port/api"}, "here.api: expected a URL"),
        ({"api": {"rest": "https:///api"}}, "here.api.rest: expected a host"),
    ],
)
def test_a_lane_s_own_urls_are_checked(tree: object, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        urls.check_own("here", tree)
    assert str(raised.value).startswith(says)


def test_a_lane_s_own_urls_may_hold_what_ccxt_fills_in() -> None:
    urls.check_own("here", {"api": {"public": "https://api.{hostname}:8443/v1", "ws": "wss://{hostname}"}})
    urls.check_own("here", None)
