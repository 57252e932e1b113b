"""E-mail over SMTP, each recipient a message of its own: one that is refused holds up no other."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from flowlake.alerts.channels.checks import checked_host, is_on, listed
from flowlake.alerts.channels.transport import NoAnswerError, NotGivenError, within, words
from flowlake.alerts.model import Message, Result
from flowlake.alerts.templates import subject, text
from flowlake.core.alert_settings import LOOPBACK, SECURITIES, AlertSettings
from flowlake.core.errors import UsageError
from flowlake.core.secret import Secret

_POLICY = SMTP.clone(cte_type="7bit")
_GO_AHEAD = 354
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+|[A-Za-z0-9._+-]+@\[[0-9A-Fa-f:.]+\]")


class _RefusedError(Exception):
    """The server will not take this message for this recipient, now or later."""


@dataclass(frozen=True)
class Email:
    """One mail server. Every mail has the same Message-ID however often it is tried."""

    host: str
    port: int
    security: str
    user: str
    password: Secret
    sender: str
    addresses: tuple[str, ...]
    min_tier: str
    per_hour: int | None
    timeout_seconds: float
    name: str = "email"

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        mail = as_mail(message, self.sender, address).as_bytes(policy=_POLICY)
        try:
            server = self._connected()
        except (OSError, smtplib.SMTPException) as error:
            return Result("later", f"not reached: {_said(error)}")
        try:
            with within(self.timeout_seconds, lambda: server.sock):
                self._greeted(server)
                return Result("accepted", _given(server, self.sender, address, mail))
        except _RefusedError as error:
            return Result("refused", str(error))
        except NotGivenError as error:
            return Result("later", str(error))
        except NoAnswerError as error:
            return Result("unanswered", f"given, but not answered: {error}")
        except (OSError, smtplib.SMTPException) as error:
            return Result("later", f"before the mail was given: {_said(error)}")
        finally:
            server.close()

    def _connected(self) -> smtplib.SMTP:
        # Without a name of its own smtplib asks the name server for one, which can take minutes where there is none.
        own = socket.gethostname() if socket.gethostname().isascii() else "localhost"
        if self.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, own, timeout=self.timeout_seconds, context=context)
        return smtplib.SMTP(self.host, self.port, own, timeout=self.timeout_seconds)

    def _greeted(self, server: smtplib.SMTP) -> None:
        server.ehlo_or_helo_if_needed()
        if self.security == "starttls":
            code, said = server.starttls(context=ssl.create_default_context())
            if code != 220:
                raise NotGivenError(f"STARTTLS: {_reply(code, said)}")
            server.ehlo_or_helo_if_needed()
        if self.user:
            server.login(self.user, self.password.reveal())


def _given(server: smtplib.SMTP, sender: str, recipient: str, mail: bytes) -> str:
    """What the server said when it took the mail.

    Only once the last line was sent may the server have it: a failure before is NotGivenError, one after NoAnswerError.
    """
    code, said = server.mail(sender)
    if code != 250:
        raise NotGivenError(f"sender {sender}: {_reply(code, said)}")
    code, said = server.rcpt(recipient)
    if code not in (250, 251):
        _fail(f"recipient: {_reply(code, said)}", code)
    code, said = server.docmd("DATA")
    if code != _GO_AHEAD:
        _fail(_reply(code, said), code)
    try:
        server.send(re.sub(rb"(?m)^\.", b"..", mail) + b".\r\n")
        code, said = server.getreply()
    except (OSError, smtplib.SMTPException) as error:
        raise NoAnswerError(_said(error)) from None
    if code != 250:
        _fail(_reply(code, said), code)
    with suppress(OSError, smtplib.SMTPException):  # the mail is taken: how the server says goodbye changes nothing
        server.quit()
    return _reply(code, said)


def _fail(detail: str, code: int) -> None:
    if 500 <= code < 600:
        raise _RefusedError(detail)
    raise NotGivenError(detail)


def _reply(code: int, said: bytes) -> str:
    return f"SMTP {code}: {said.decode('utf-8', 'replace')}"


def _said(error: BaseException) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
        return _reply(error.smtp_code, said)
    return words(error)


def as_mail(message: Message, sender: str, recipient: str) -> EmailMessage:
    """The mail. The policy refuses line ends in headers, and `subject` leaves none."""
    mail = EmailMessage(policy=_POLICY)
    mail["Subject"] = subject(message)
    mail["From"] = f"flowlake <{sender}>"
    mail["To"] = recipient
    mail["Date"] = format_datetime(message.created_utc)
    mail["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2].strip('[]')}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text(message))
    return mail


def email_channel(settings: AlertSettings) -> Email | None:
    """The channel, or None where it is off. Raises UsageError where a setting is missing or wrong."""
    needs = {
        "alert_email_host": settings.email_host,
        "alert_email_from": settings.email_from,
        "alert_email_to": settings.email_to,
    }
    if not is_on("email", "alert_email_host", needs):
        if settings.email_user or settings.email_password:
            raise UsageError("alert_email_host is not set, but a user or password is", f"email needs {', '.join(needs)}")
        return None
    if bool(settings.email_user) != bool(settings.email_password):
        missing = "alert_email_password" if settings.email_user else "alert_email_user"
        raise UsageError(f"{missing} is not set", "give user and password, or neither where the server asks for none")
    if settings.email_password and settings.email_security == "plain" and settings.email_host not in LOOPBACK:
        raise UsageError("alert_email_security is plain, and the password would travel openly", "give starttls or tls")
    for name, given in (("alert_email_user", settings.email_user), ("alert_email_password", settings.email_password.reveal())):
        if not given.isascii():
            raise UsageError(f"{name} holds a letter that is not ASCII", "mail servers are logged in to with ASCII alone")
    recipients = listed("alert_email_to", settings.email_to)
    for name, address in (("alert_email_from", settings.email_from), *(("alert_email_to", one) for one in recipients)):
        if not _ADDRESS.fullmatch(address):
            raise UsageError(f"{name}: {address!r} is no e-mail address", "write it like name@example.com, without a display name")
    return Email(
        checked_host("alert_email_host", settings.email_host),
        settings.email_port or SECURITIES[settings.email_security],
        settings.email_security,
        settings.email_user,
        settings.email_password,
        settings.email_from,
        recipients,
        settings.email_min_tier,
        settings.per_hour,
        settings.timeout_seconds,
    )
