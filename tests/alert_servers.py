"""Servers that notifications are sent to in the tests: real sockets on free ports, which answer well, badly or not at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

LONG_SECONDS = 60.0
"""Longer than any timeout of a test; what hangs is let go when the test ends."""


@dataclass
class Request:
    """One request as it came; `body` is whole, or the part that was read."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    """Answers the n-th request as `script[n]` says, and those after the last like the last.

    A number answers with that status; ok; a pair of status and header lines; hang: reads and says nothing; cut_unread: closes
    without reading; cut: reads all, then closes; half: closes within the status line; drip: a letter now and then.
    """

    script: list[object] = field(default_factory=lambda: ["ok"])
    body: bytes = b"{}"
    requests: list[Request] = field(default_factory=list)
    accepted: list[Request] = field(default_factory=list)
    taken: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    scheme: str = "http"
    _let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def handle(self, connection: socket.socket) -> None:
        step = self.script[min(len(self.requests), len(self.script) - 1)]
        request = Request("", {}, b"") if step == "cut_unread" else _read(connection)
        self.requests.append(request)
        self.taken.set()
        if step == "hang":
            self._let_go.wait(LONG_SECONDS)
        elif step == "half":
            connection.sendall(b"HTTP/1.1 2")
        elif step == "drip":
            for letter in b"HTTP/1.1 200 OK\r\n" * 20:
                connection.sendall(bytes([letter]))
                if self._let_go.wait(0.1):
                    return
        elif step not in ("cut", "cut_unread"):
            status, lines = (200, "") if step == "ok" else (step, "") if isinstance(step, int) else step  # type: ignore[misc]
            if status == 200:
                self.accepted.append(request)
            head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n{lines}\r\n"
            connection.sendall(head.encode() + self.body)


def _read(connection: socket.socket) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return Request("", {}, data)
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Request(first.split()[1], headers, body)


@contextmanager
def web_server(*script: object, body: bytes = b"{}", tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    server = WebServer(list(script) or ["ok"], body, scheme="https" if tls else "http")
    with _listening(server.handle, tls) as server.port:
        yield server
        server._let_go.set()


@dataclass
class MailServer:
    """A mail server that misbehaves. `mails` holds what it took: recipient and mail.

    `script` per connection: ok; hang: no greeting; silent: hangs after the mail; cut: closes after the mail, without an answer;
    cut_inside: closes while the mail comes; later: 451 for the recipient; no_such: 550 for it; spam: 554 after the mail;
    closing: 421 for the sender; rude: closes without QUIT after it took the mail.
    """

    script: list[str]
    mails: list[tuple[str, bytes]] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    refused: frozenset[str] = frozenset()
    _let_go: threading.Event = field(default_factory=threading.Event)

    def handle(self, connection: socket.socket) -> None:
        step = self.script[min(self.connections, len(self.script) - 1)]
        self.connections += 1
        if step == "hang":
            self._let_go.wait(LONG_SECONDS)
            return
        lines = connection.makefile("rb")

        def say(text: str) -> None:
            connection.sendall(text.encode() + b"\r\n")

        say("220 test")
        recipient = ""
        while line := lines.readline():
            verb = line.split(b":")[0].strip().upper()
            if verb.startswith(b"EHLO"):
                say("250 test")
            elif verb == b"MAIL FROM":
                say("421 closing" if step == "closing" else "250 ok")
            elif verb == b"RCPT TO":
                recipient = line.partition(b"<")[2].partition(b">")[0].decode()
                bad = step == "no_such" or recipient in self.refused
                say("451 come later" if step == "later" else "550 no such user" if bad else "250 ok")
            elif verb == b"DATA":
                say("354 go on")
                if step == "cut_inside":
                    lines.readline()
                    return
                mail = b"".join(iter(lines.readline, b".\r\n"))
                if step == "spam":
                    say("554 looks like spam")
                    continue
                self.mails.append((recipient, mail))
                if step == "silent":
                    self._let_go.wait(LONG_SECONDS)
                if step in ("silent", "cut"):
                    return
                say("250 taken")
                if step == "rude":
                    return
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


@contextmanager
def mail_server(*script: str, refused: frozenset[str] = frozenset()) -> Iterator[MailServer]:
    server = MailServer(list(script) or ["ok"], refused=refused)
    with _listening(server.handle, None) as server.port:
        yield server
        server._let_go.set()


@contextmanager
def _listening(handle: Callable[[socket.socket], None], tls: ssl.SSLContext | None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def one(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                guarded = tls.wrap_socket(connection, server_side=True) if tls else connection
                with guarded:
                    handle(guarded)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    thread = threading.Thread(target=one, args=(connection,), daemon=True)
                    threads.append(thread)
                    thread.start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Inbox:
    """What a real mail server took, by an implementation that is not ours."""

    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd calls it so
        self.envelopes.append(envelope)
        return "250 taken"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        good = data.password == b"right word"
        return AuthResult(success=good, handled=good)


@contextmanager
def real_mail_server(
    tls: ssl.SSLContext | None = None, *, at_once: bool = False, login: bool = False
) -> Iterator[tuple[Inbox, int]]:
    """aiosmtpd, with STARTTLS where it is given a context, or TLS from the first byte; the inbox and the port."""
    inbox = Inbox()
    settings: dict[str, object] = {"ssl_context": tls} if at_once else {"tls_context": tls, "require_starttls": tls is not None}
    if login:
        settings |= {
            "authenticator": inbox.authenticate,
            "auth_required": True,
            "auth_require_tls": tls is not None and not at_once,
        }
    port = closed_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port, **settings)
    controller.start()
    try:
        yield inbox, port
    finally:
        controller.stop()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that vouches for itself, and a server's context with it."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context
