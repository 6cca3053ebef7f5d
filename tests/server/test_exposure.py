"""Which addresses are this machine's only, and what may be open beyond it."""

from __future__ import annotations

import itertools
import logging

import pytest

from server.config import SettingsError
from server.exposure import check_exposure, is_loopback

LOOPBACK = [
    *("127.0.0.1:50051", "127.0.0.1:0", "127.1.2.3:1", "[::1]:50051", "[0:0::0:1]:1", "localhost:50051"),
    *("LocalHost:1", "unix:/run/llamarpc.sock", "unix:relative", "unix:///run/a:b"),
]
BEYOND = [
    *("0.0.0.0:50051", "[::]:50051", ":50051", "*:50051", "10.0.0.1:1", "192.168.1.2:1", "[fe80::1]:1"),
    *("[2001:db8::1]:443", "example.test:50051", "localhost.example.test:1", "my-host:1"),
    # Spelled in ways that some resolvers take for loopback, and others don't.
    *("127.1:1", "0:1", "2130706433:1", "0x7f000001:1", "127.0.0.01:1", "localhost.:1"),
    # gRPC reads the first as the address ::1:5005 without a port.
    *("::1:5005", "::1", "dns:localhost:1", "ipv4:127.0.0.1:1", "127.0.0.1", "", "[127.0.0.1]:1"),
    *("[::ffff:10.0.0.1]:1", "[::%lo]:1"),
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    for tls, authenticated, insecure in itertools.product([False, True], repeat=3):
        check_exposure(address, tls=tls, authenticated=authenticated, insecure=insecure)


@pytest.mark.parametrize("address", BEYOND)
def test_beyond_it_both_are_needed(address: str) -> None:
    assert not is_loopback(address)
    check_exposure(address, tls=True, authenticated=True, insecure=False)
    for tls, authenticated in [(False, False), (True, False), (False, True)]:
        with pytest.raises(SettingsError):
            check_exposure(address, tls=tls, authenticated=authenticated, insecure=False)


@pytest.mark.parametrize(
    ("tls", "authenticated", "lacking"),
    [(False, False, "TLS and authentication"), (True, False, "authentication"), (False, True, "TLS")],
)
def test_the_texts(tls: bool, authenticated: bool, lacking: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError) as caught:
        check_exposure("0.0.0.0:50051", tls=tls, authenticated=authenticated, insecure=False)
    text = str(caught.value)
    assert f"--address is 0.0.0.0:50051, which others than this machine can reach, without {lacking};" in text
    ways_out = ("--tls-certificate", "--tls-key", "--token-file", "--tls-client-ca", "127.0.0.1:50051", "--insecure")
    assert all(way in text for way in ways_out)
    with caplog.at_level(logging.WARNING):
        check_exposure("0.0.0.0:50051", tls=tls, authenticated=authenticated, insecure=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"listening on 0.0.0.0:50051 without {lacking}, as --insecure allows"
    ]
