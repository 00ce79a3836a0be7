"""Keys, requests and certificates of a cluster, made and read with `cryptography`: P-256 throughout.

gRPC's TLS takes no Ed25519 by default. What they say and how long they count is decided in cluster/certificates.py.
"""

import datetime
import re
import uuid
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import (
    AUTHORITY_S,
    CERTIFICATE_S,
    CLIENT_NAME,
    ENROLMENT_DOMAIN,
    NODE_DOMAIN,
    Bearer,
    Facts,
    Validity,
    bearer,
    domain,
    validity,
)
from thunderline.cluster.errors import InvalidRequest, Unauthenticated

# A request is some 400 bytes; ten times that is no request of ours.
REQUEST_BYTES_MAX = 4096
# What reading somebody else's certificate or request may raise.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs. `certificate_pem` is one certificate."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate_pem)


@dataclass(frozen=True, slots=True)
class Request:
    """What is taken from a certificate request: whose it claims to be, and its key's fingerprint. No more."""

    name: str
    key: str
    public_key: ec.EllipticCurvePublicKey


def new_key() -> bytes:
    """A private key, as PEM without a passphrase: the file is 0600."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_authority(now_s: float) -> Authority:
    """The cluster's own, self-signed. It also answers at the enrolment port, hence its DNS name."""
    key_pem = new_key()
    key = _private(key_pem)
    # Two authorities of one cluster have different names, so that no chain is built with the wrong one.
    name = _name(f"thunderline authority {_key_fingerprint(key.public_key())[:16]}")
    builder = (
        _builder(name, name, key.public_key(), validity(now_s, AUTHORITY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(ENROLMENT_DOMAIN)]), critical=False)
    )
    return Authority(key_pem, _pem(builder.sign(key, hashes.SHA256())))


def request_pem(key_pem: bytes, name: str) -> bytes:
    """A request for a certificate of this key, under a node_id."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(_private(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> Request:
    """A node's request, made by who holds the key. Raises InvalidRequest."""
    try:
        if len(pem) > REQUEST_BYTES_MAX:
            raise ValueError("too long")
        found = x509.load_pem_x509_csr(pem)
        key = found.public_key()
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        fine = found.is_signature_valid and isinstance(key, ec.EllipticCurvePublicKey)
        if not fine or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key's own")
        if str(uuid.UUID(name)) != name:
            raise ValueError("not a node_id")
    except UNREADABLE as error:
        message = f"the certificate request is no node's: {error}"
        raise InvalidRequest(message, param="certificate_request_pem") from None
    return Request(name, _key_fingerprint(key), key)


def sign(authority: Authority, key: ec.EllipticCurvePublicKey, to: Bearer, now_s: float) -> bytes:
    """A certificate for this key, as PEM. Raises InvalidRequest for a name that no bearer may have."""
    if to.caller is Caller.CLIENT and not CLIENT_NAME.fullmatch(to.name):
        raise InvalidRequest(f"{to.name!r} is no name for a client: letters, digits, '.', '_' and '-'", param="name")
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(to.uri)]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if to.caller is not Caller.CLIENT:
        # A client's certificate has neither: nobody can serve with it.
        names += [x509.DNSName(domain(NodeId(to.name))), x509.DNSName(NODE_DOMAIN)]
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    valid = validity(now_s, CERTIFICATE_S, int(issuer.not_valid_after_utc.timestamp()))
    authority_key = _private(authority.key_pem)
    builder = (
        _builder(_name(to.name), issuer.subject, key, valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    return _pem(builder.sign(authority_key, hashes.SHA256()))


def public_key(key_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Raises ValueError."""
    return _private(key_pem).public_key()


def belongs(key_pem: bytes, certificate_pem: bytes) -> bool:
    """Whether the certificate is this key's. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate_pem).public_key()
    return isinstance(found, ec.EllipticCurvePublicKey) and _key_fingerprint(found) == _key_fingerprint(
        public_key(key_pem)
    )


# At each call and each card: the same few certificates over and over.
@lru_cache(maxsize=256)
def facts(certificate_pem: bytes, authorities_pem: bytes) -> Facts:
    """What a certificate says, and which of these authorities signed it. Raises Unauthenticated."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        valid = Validity(
            int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())
        )
        signers = [one for one in authorities(authorities_pem) if _has_signed(one, certificate)]
    except UNREADABLE:
        raise Unauthenticated("what was shown is no certificate of thunderline") from None
    return Facts(bearer(uris), valid, fingerprint(signers[0]) if signers else "")


def authorities(pem: bytes) -> list[bytes]:
    """The certificates of a bundle, each as PEM of its own."""
    return [match[0] for match in PEM_BLOCK.finditer(pem) if match[1] == b"CERTIFICATE"]


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 of the certificate, in hex: what a join token pins. Raises ValueError."""
    return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()


def _has_signed(authority_pem: bytes, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem))
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(valid.begins_s, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(valid.ends_s, datetime.UTC))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key of ours")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
