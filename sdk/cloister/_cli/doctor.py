"""`cloister doctor`: what is wrong, in the order in which things have to be right."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final, Literal

import typer

from cloister._cli._client import show
from cloister._cli._verdict import REFUSED
from cloister._cli.attest import challenge
from cloister.attestation import AppraisalPolicy
from cloister.attestation.lint import lint
from cloister.client import Client, policy_from
from cloister.config import Settings
from cloister.errors import AppraisalError, CloisterError, EvidenceError
from cloister.protocol.attest import AttestationDocument, appraise_document
from cloister.protocol.keyset import Keyset, verify_keyset
from cloister.transport.stdlib import split_url

__all__ = ["Examination", "Finding", "doctor"]

TIMEOUT_SECONDS: Final = 10.0
SKEW_SECONDS: Final = 60
CERTIFICATE_DAYS: Final = 14
Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one step found."""

    step: str
    status: Status
    detail: str
    hint: str = ""


class _FoundError(Exception):
    """A step failed; what depends on it is not tried."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Find out what is wrong: settings, URL, TLS, clock, evidence, policy, identity, grants.

    The steps are tried in this order; what depends on a failed one is skipped. Exit code 0: all is
    well; 3: something is wrong.
    """
    findings = Examination().findings()
    healthy = all(finding.status != "failed" for finding in findings)
    if as_json:
        show({"healthy": healthy, "steps": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{finding.status:<8} {finding.step:<9} {finding.detail}")
            if finding.hint:
                typer.echo(f"{'':<18} try: {finding.hint}")
    if not healthy:
        raise typer.Exit(REFUSED)


class Examination:
    """One look at everything between this machine and the answer of a host."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._policy: AppraisalPolicy | None = None
        self._document: AttestationDocument | None = None
        self._nonce = b""
        self._notes: list[tuple[str, str]] = []

    def findings(self) -> list[Finding]:
        """Try every step until one fails."""
        steps: dict[str, Callable[[], str]] = {
            "settings": self.settings,
            "url": self.url,
            "tls": self.tls,
            "clock": self.clock,
            "evidence": self.evidence,
            "policy": self.policy,
            "identity": self.identity,
            "grants": self.grants,
        }
        found: list[Finding] = []
        failed = False
        for step, look in steps.items():
            if failed:
                found.append(Finding(step=step, status="skipped", detail="an earlier step failed"))
                continue
            self._notes.clear()
            try:
                detail = look()
            except _FoundError as error:
                found.append(Finding(step=step, status="failed", detail=error.detail, hint=error.hint))
                failed = True
            except CloisterError as error:
                found.append(Finding(step=step, status="failed", detail=error.args[0], hint=error.hint))
                failed = True
            else:
                notes = [Finding(step=step, status="warning", detail=text, hint=h) for text, h in self._notes]
                found += notes or [Finding(step=step, status="ok", detail=detail)]
        return found

    def settings(self) -> str:
        """The settings are complete, and the policy is one."""
        self._settings = Settings.load()
        self._policy = policy_from(self._settings.policy)
        for finding in lint(self._policy):
            if finding.severity == "error":
                self._notes.append((f"policy: {finding.where}: {finding.problem}", finding.remedy))
        return f"tenant {self._settings.tenant}, policy {self._settings.policy}"

    def url(self) -> str:
        """The name resolves and something listens."""
        _, host, port, _ = self._place()
        try:
            addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except OSError:
            raise _FoundError(f"the name {host} does not resolve", "check CLOISTER_URL and DNS") from None
        try:
            with socket.create_connection((host, port), timeout=TIMEOUT_SECONDS):
                pass
        except OSError as error:
            raise _FoundError(
                f"nothing answers on {host} port {port} ({error.strerror or 'time-out'})",
                "is the host running, and does a firewall or proxy stand between?",
            ) from None
        return f"{host} port {port} answers ({', '.join(sorted(addresses))})"

    def tls(self) -> str:
        """The certificate is trusted, is for this name, and lives a while yet."""
        scheme, host, port, _ = self._place()
        if scheme == "http":
            return "plain HTTP on loopback; requests are sealed all the same"
        try:
            with (
                socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as raw,
                ssl.create_default_context().wrap_socket(raw, server_hostname=host) as connection,
            ):
                certificate, version = connection.getpeercert() or {}, connection.version()
        except ssl.SSLCertVerificationError as error:
            raise _FoundError(
                f"the certificate is refused: {error.verify_message}",
                "renew it, fix its names, or trust its authority (SSL_CERT_FILE)",
            ) from None
        except OSError as error:
            raise _FoundError(
                f"no TLS on this port ({type(error).__name__})", "does TLS end elsewhere?"
            ) from None
        days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
        if days < CERTIFICATE_DAYS:
            self._notes.append((f"the certificate expires in {days:.0f} days", "renew it"))
        return f"{version}, certificate for {days:.0f} more days"

    def clock(self) -> str:
        """This clock and the host's agree well enough for certificates and keysets."""
        settings = self._loaded()
        now = time.time()
        if (far := self._date_header(now)) is not None and abs(far) > SKEW_SECONDS:
            raise _FoundError(
                f"this clock is {abs(far):.0f} s {'ahead of' if far > 0 else 'behind'} the answer's date",
                "set this machine's clock (NTP)",
            )
        self._nonce, self._document = challenge(settings.url, timeout_seconds=settings.timeout_seconds)
        keyset = self._keyset()
        if now < keyset.issued_at - SKEW_SECONDS:
            raise _FoundError(
                f"this clock is at least {keyset.issued_at - now:.0f} s behind the host's",
                "set this machine's clock (NTP); if it is right, the host's is wrong",
            )
        if now >= keyset.expires:
            raise _FoundError(
                f"this clock is at least {now - keyset.expires:.0f} s ahead of the host's",
                "set this machine's clock (NTP); if it is right, the host's is wrong",
            )
        return "this clock agrees with the host's keyset"

    def evidence(self) -> str:
        """The evidence is genuine, answers our challenge, and is of the deployment that is meant."""
        try:
            self._appraise()
        except EvidenceError:
            raise
        except AppraisalError:
            pass  # genuine; whether it is acceptable is the next step's question
        assert self._document is not None
        return f"genuine {self._document.format} evidence of deployment {self._keyset().deployment}"

    def policy(self) -> str:
        """The policy accepts what the evidence says."""
        result = self._appraise()
        for line in result.not_checked:
            if line.startswith(("tcb_status", "reference values", "deployment")):
                self._notes.append((f"not checked: {line}", "see docs/attestation.md"))
        return f"accepted, environment {result.environment}"

    def identity(self) -> str:
        """The host knows this caller."""
        own = self._own_grants()
        return f"{own['kind']} {own['principal']} of tenant {own['tenant']}"

    def grants(self) -> str:
        """The caller may do something."""
        grants = self._own_grants()["grants"]
        if not grants:
            self._notes.append(
                (
                    "no grant was given to this principal or its groups",
                    "`cloister grant add`, by an administrator",
                )
            )
        return "; ".join(f"{grant['action']} on {grant['resource']}" for grant in grants)

    # --- what the steps share ---

    def _loaded(self) -> Settings:
        assert self._settings is not None
        return self._settings

    def _place(self) -> tuple[str, str, int, str]:
        return split_url(self._loaded().url)

    def _date_header(self, now: float) -> float | None:
        """Seconds by which this clock is ahead of the `Date` of whoever answers, if it has one."""
        import http.client  # noqa: PLC0415 (only this command needs it)

        scheme, host, port, prefix = self._place()
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"{prefix}/healthz")
            date = connection.getresponse().getheader("Date")
            return None if date is None else now - parsedate_to_datetime(date).timestamp()
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def _keyset(self) -> Keyset:
        """The keyset, signed by whichever deployment it names."""
        assert self._document is not None
        return verify_keyset(self._document.keyset, deployment=None)

    def _appraise(self) -> Any:
        assert self._document is not None
        assert self._policy is not None
        return appraise_document(self._document, self._policy, nonce=self._nonce, now=time.time())

    def _own_grants(self) -> dict[str, Any]:
        with Client.from_env() as client:
            return dict(client.call("grant.mine", {}))
