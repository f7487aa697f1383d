"""Settings that would open a door, or mean nothing, are refused with a sentence that says what to do."""

import ssl

import pytest

from fedrec.errors import ConfigError
from server.gateway_settings import GatewaySettings, server_tls, upstream_tls
from tests.tiny_gateway import Authority


@pytest.fixture
def files(tmp_path):
    return Authority(tmp_path, "ours").issue("gateway")


def settings(files, **changes):
    values = {"certificate": files[0], "key": files[1], "upstream": "http://127.0.0.1:9091", "host": "127.0.0.1"}
    return GatewaySettings(**values | changes)


@pytest.mark.parametrize(
    "upstream",
    [
        "http://10.0.0.1:9091",
        "http://example.org",
        "ftp://127.0.0.1",
        "127.0.0.1:9091",
        "http://127.0.0.1:1/v1",
        "http://",
    ],
)
def test_an_upstream_beyond_this_machine_is_refused(files, upstream):
    with pytest.raises(ConfigError) as caught:
        settings(files, upstream=upstream)
    assert str(caught.value) == f"upstream={upstream}: expected http(s)://127.0.0.1:PORT, a SuperLink on this machine"


def test_https_upstream_needs_an_authority(files):
    with pytest.raises(ConfigError) as caught:
        settings(files, upstream="https://127.0.0.1:1")
    text = "upstream=https://127.0.0.1:1: https needs upstream_ca, the certificate of who signed SuperLink's"
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["max_body_bytes", "total_timeout_s", "requests_per_s", "burst", "max_connections"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_limit_that_limits_nothing_is_refused(files, name, value):
    with pytest.raises(ConfigError) as caught:
        settings(files, **{name: value})
    assert str(caught.value) == f"{name}={value}: expected > 0"


@pytest.mark.parametrize("name", ["port", "private_port"])
def test_a_port_out_of_range_is_refused(files, name):
    with pytest.raises(ConfigError) as caught:
        settings(files, **{name: 65536})
    assert str(caught.value) == f"{name}=65536: expected 0 to 65535"


def test_tls_starts_at_1_2(files):
    context = server_tls(settings(files))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_key_that_others_may_read_is_refused(files):
    files[1].chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        server_tls(settings(files))
    assert str(caught.value) == f"{files[1]}: others may read this key (mode 0640); chmod 600 it"


def test_a_missing_or_wrong_file_is_named_and_its_content_is_not(files, tmp_path):
    missing = tmp_path / "none.key"
    with pytest.raises(ConfigError) as caught:
        server_tls(settings(files, key=missing))
    expected = f"{files[0]}, {missing}: no usable certificate and key: No such file or directory"
    assert str(caught.value) == expected
    files[0].write_text("secret words")
    with pytest.raises(ConfigError, match="no usable certificate and key") as caught:
        server_tls(settings(files))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["client_ca", "upstream_ca"])
def test_a_wrong_authority_is_named(files, tmp_path, field):
    wrong = tmp_path / "wrong.crt"
    wrong.write_text("secret words")
    read = {"client_ca": server_tls, "upstream_ca": upstream_tls}[field]
    with pytest.raises(ConfigError, match=f"^{wrong}: no usable certificate authority: ") as caught:
        read(settings(files, **{field: wrong}))
    assert "secret" not in str(caught.value)


def test_without_an_authority_the_upstream_is_trusted_by_nobodys_word(files):
    context = upstream_tls(settings(files))
    assert (context.get_ca_certs(), context.verify_mode, context.check_hostname) == ([], ssl.CERT_REQUIRED, True)
