"""Certificates as `cryptography` makes them: what they say is what was asked, and nothing more is taken over."""

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import AUTHORITY_S, CERTIFICATE_S, CLOCK_SLACK_S, DAY_S, Bearer
from thunderline.cluster.errors import InvalidRequest, Unauthenticated
from thunderline.process.certificates import (
    REQUEST_BYTES_MAX,
    authorities,
    belongs,
    facts,
    fingerprint,
    new_authority,
    new_key,
    public_key,
    read_request,
    request_pem,
    sign,
)

NOW_S = float(int(time.time()))
NODE = "6b7b0f4e-2c0e-4f2e-9f4f-5a1f1f0a9c11"
AUTHORITY = new_authority(NOW_S)
KEY = new_key()


def signed(caller: Caller = Caller.MEMBER, name: str = NODE, now_s: float = NOW_S) -> bytes:
    return sign(AUTHORITY, public_key(KEY), Bearer("home", caller, name), now_s)


@pytest.mark.parametrize(
    ("caller", "name"), [(Caller.SCHEDULER, NODE), (Caller.MEMBER, NODE), (Caller.CLIENT, "laptop")], ids=str
)
def test_a_certificate_says_what_was_asked(caller: Caller, name: str) -> None:
    found = facts(signed(caller, name), AUTHORITY.certificate_pem)
    assert found.bearer == Bearer("home", caller, name)
    assert found.authority == AUTHORITY.fingerprint
    assert found.valid.begins_s == NOW_S - CLOCK_SLACK_S
    assert found.valid.ends_s == NOW_S + CERTIFICATE_S


def purposes(pem: bytes) -> set[x509.ObjectIdentifier]:
    return set(x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_nobody_can_serve_with_a_clients_certificate() -> None:
    assert purposes(signed()) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    client = signed(Caller.CLIENT, "laptop")
    assert purposes(client) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    names = x509.load_pem_x509_certificate(client).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == []


def test_a_certificate_cannot_sign_others() -> None:
    found = x509.load_pem_x509_certificate(signed())
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not found.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_none_outlives_its_authority() -> None:
    late = NOW_S + AUTHORITY_S - DAY_S
    assert facts(signed(now_s=late), AUTHORITY.certificate_pem).valid.ends_s == NOW_S + AUTHORITY_S


def test_an_authority_of_another_cluster_has_not_signed_it() -> None:
    other = new_authority(NOW_S)
    assert facts(signed(), other.certificate_pem).authority == ""
    both = other.certificate_pem + AUTHORITY.certificate_pem
    assert facts(signed(), both).authority == AUTHORITY.fingerprint
    assert authorities(both) == [other.certificate_pem, AUTHORITY.certificate_pem]


@pytest.mark.parametrize("name", ["../laptop", "", "a b", "x" * 64])
def test_a_client_has_a_name_that_may_be_a_files(name: str) -> None:
    with pytest.raises(InvalidRequest):
        signed(Caller.CLIENT, name)


def test_a_request_names_a_node_and_proves_its_key() -> None:
    found = read_request(request_pem(KEY, NODE))
    assert found.name == NODE
    assert belongs(KEY, sign(AUTHORITY, found.public_key, Bearer("home", Caller.MEMBER, NODE), NOW_S))
    assert found.key == read_request(request_pem(KEY, NODE)).key
    assert found.key != read_request(request_pem(new_key(), NODE)).key


def another_curve() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NODE)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def forged() -> bytes:
    """Signed by another key than its own."""
    good = x509.load_pem_x509_csr(request_pem(KEY, NODE)).public_bytes(serialization.Encoding.DER)
    body = bytearray(good)
    body[-1] ^= 1
    try:
        return x509.load_der_x509_csr(bytes(body)).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        return bytes(body)


REQUESTS = {
    "nothing": b"",
    "no PEM": b"hello",
    "a certificate": AUTHORITY.certificate_pem,
    "a key": KEY,
    "too long": request_pem(KEY, NODE) + b"\n" * REQUEST_BYTES_MAX,
    "a client's name": request_pem(KEY, "laptop"),
    "a UUID in another form": request_pem(KEY, NODE.upper()),
    "another curve": another_curve(),
    "a broken signature": forged(),
}


@pytest.mark.parametrize("pem", REQUESTS.values(), ids=REQUESTS.keys())
def test_other_requests_are_refused(pem: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_request(pem)


@pytest.mark.parametrize("pem", [b"", b"hello", KEY, AUTHORITY.certificate_pem], ids=["empty", "text", "key", "CA"])
def test_what_is_nobodys_certificate(pem: bytes) -> None:
    with pytest.raises(Unauthenticated):
        facts(pem, AUTHORITY.certificate_pem)


def test_a_pin_is_of_one_authority() -> None:
    assert fingerprint(AUTHORITY.certificate_pem) == AUTHORITY.fingerprint
    assert len(bytes.fromhex(AUTHORITY.fingerprint)) == 32
    assert new_authority(NOW_S).fingerprint != AUTHORITY.fingerprint


def test_a_key_is_not_shown_by_accident() -> None:
    assert "PRIVATE" not in repr(AUTHORITY)
