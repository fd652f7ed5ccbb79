"""Unusable URLs in the configuration are refused when it is read, and their contents stay secret."""

import pytest

from schemas import redis_urls, urls
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
        ("redis+cluster://", "expected hosts with commas between them"),
        ("redis+cluster://a:1,,b:2", "expected hosts with commas between them"),
        ("redis+cluster://a,:7000", "expected hosts with commas between them"),
        ("redis+cluster://:s3cr3t@a#s3cr3t", "expected hosts with commas between them"),
        ("redis+cluster://:s3cr3t@a:port,b:2", "expected a URL"),
        ("redis+cluster://:s3cr3t@a:1,b:0", "expected a port from 1 to 65535"),
        ("redis+cluster://:s3cr3t%zz@a,b", "two hexadecimal digits after each %"),
        ("redis+cluster://:s3cr3t@a,b/1", "it has database 0 alone"),
        ("redis+cluster://:s3cr3t@a,b?db=1", "expected no other database than 0"),
        ("redis+cluster://a,b?sentinel_password=s3cr3t", "expected no option but client_name"),
        ("redis+cluster://a,b?ssl_ca_certs=ca.pem", "expected rediss:// where an option is for TLS (ssl_ca_certs)"),
        ("redis+sentinel://:s3cr3t@a,b", "expected the service's name behind the Sentinels"),
        ("redis+sentinel://a,b/s3cr3t%20name", "expected the service's name behind the Sentinels"),
        ("redis+sentinel://:s3cr3t@a,b/mymaster/db", "expected a database's number after the host"),
        ("redis+sentinel://a,b/mymaster?sentinel_password=", "expected a value for the option"),
        ("redis+sentinel://a,b/mymaster?sentinel_password=s3cr3t%zz", "two hexadecimal digits after each %"),
        ("redis+sentinel://:s3cr3t@a,b/mymaster?socket_timeout=1", "expected no option but client_name"),
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
        "redis+cluster://localhost",
        "redis+cluster://u:s3%25cr3t@a:7000,[::1]:7001,b/0?client_name=fleet",
        "rediss+cluster://a,b?ssl_ca_certs=/etc/fleet/ca.pem",
        "redis+sentinel://:s3cr3t@a:26379,[::1],b/my.master/3?sentinel_username=u&sentinel_password=p",
        "rediss+sentinel://a,b/mymaster?ssl_ca_certs=/etc/fleet/ca.pem&ssl_cert_reqs=required",
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


def test_urls_of_several_servers_name_each_and_its_secrets() -> None:
    url = "rediss+sentinel://u:p@a,[::1]:5,c:9/mymaster/2?sentinel_username=s&sentinel_password=t&ssl_ca_certs=x&protocol=3"
    found = redis_urls.read(url)
    at = ("a:26379", "[::1]:5", "c:9")
    assert found.urls == tuple(f"rediss://s:t@{place}/?ssl_ca_certs=x" for place in at)
    assert (found.kind, found.service) == ("sentinel", "mymaster")
    assert found.data_url == "rediss://u:p@a:6379/2?ssl_ca_certs=x&protocol=3"
    found = redis_urls.read("redis+cluster://:p@a:1,b?client_name=x")
    assert found.urls == ("redis://:p@a:1/?client_name=x", "redis://:p@b:6379/?client_name=x")
    assert (found.kind, found.data_url) == ("cluster", found.urls[0])
    assert redis_urls.read("redis://:p@a/0") == redis_urls.Servers("one", ("redis://:p@a/0",), "redis://:p@a/0")
    assert urls.place(url) == "a:26379, ::1:5, c:9"
