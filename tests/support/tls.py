"""TLS on loopback: a certificate that signs itself, and the two ends."""

import datetime
import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.fake_provider import Upstream


def certify(file: Path, *hosts: str) -> Path:
    """Key and certificate of a server on loopback, and of these hosts, written to `file`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server for tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = [*map(x509.DNSName, ("localhost", *hosts)), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return file


def serving(certificate: Path, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols([*protocols])
    return context


def trusting(*protocols: str) -> ssl.SSLContext:
    """Of a client that believes everyone."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([*protocols])
    return context


class TlsUpstream(Upstream):
    """A scripted provider that speaks HTTP/1.1 over TLS."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(serving(certificate))
        self.url = self.url.replace("http:", "https:")


class SaysNoTls(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"220 this speaks no TLS\r\n")


@contextmanager
def speaks_no_tls() -> Iterator[int]:
    """The port of a server that answers a TLS handshake with something else."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), SaysNoTls) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
