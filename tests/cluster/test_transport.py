"""Plain or TLS, by where and by whether there is a cluster."""

import pytest

from thunderline.cluster.transport import Transport, transport

PLAIN, TLS, REFUSED = Transport.PLAIN, Transport.TLS, Transport.REFUSED
# Without a certificate, then with one.
CASES = {
    "unix:/home/me/.thunderline/run/runner.sock": (PLAIN, PLAIN),
    "127.0.0.1:7401": (PLAIN, TLS),
    "127.8.0.1:7401": (PLAIN, TLS),
    "localhost:7401": (PLAIN, TLS),
    "[::1]:7401": (PLAIN, TLS),
    "192.168.4.2:7401": (REFUSED, TLS),
    "169.254.7.1:7401": (REFUSED, TLS),
    "100.64.0.2:7401": (REFUSED, TLS),
    "0.0.0.0:7401": (REFUSED, TLS),
    "[::]:7401": (REFUSED, TLS),
    "[fe80::1%en3]:7401": (REFUSED, TLS),
    "mac-one.local:7401": (REFUSED, TLS),
    "localhost.example.org:7401": (REFUSED, TLS),
    ":7401": (REFUSED, TLS),
    "": (REFUSED, TLS),
}


@pytest.mark.parametrize(("address", "expected"), CASES.items(), ids=CASES.keys())
def test_both_ends_decide_alike(address: str, expected: tuple[Transport, Transport]) -> None:
    assert (transport(address, False), transport(address, True)) == expected
