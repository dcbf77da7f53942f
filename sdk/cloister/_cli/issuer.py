"""`cloister issuer`: whose word about callers is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister._cli._arguments import read_data, seconds
from cloister._cli._client import call, show
from cloister.errors import ConfigurationError

__all__ = ["app"]

Name = Annotated[str, typer.Argument(help="The issuer's URL exactly as in its tokens, or ca:NAME.")]
Jwks = Annotated[Path | None, typer.Option(help="File with its public keys, so that nothing is fetched.")]
JwksUrl = Annotated[str, typer.Option(help="Where its keys are, if it has no discovery document.")]
Audience = Annotated[str, typer.Option(help="Another audience than cloister:<deployment>, with its name.")]
Algorithms = Annotated[list[str] | None, typer.Option("--algorithm", help="The only ones it may use.")]
Lifetime = Annotated[str, typer.Option(help="Longest life of a token that is accepted.")]
Certificates = Annotated[Path | None, typer.Option(help="For ca:NAME: the authority's certificates, PEM.")]

app = typer.Typer(help="OIDC issuers and certificate authorities whose word is taken.", no_args_is_help=True)


@app.command("add")
def issuer_add(
    issuer: Name,
    *,
    jwks: Jwks = None,
    jwks_url: JwksUrl = "",
    audience: Audience = "",
    algorithm: Algorithms = None,
    max_lifetime: Lifetime = "1h",
    certificates: Certificates = None,
) -> None:
    """Trust an issuer. That alone lets nobody in: bind principals to its claims."""
    payload = _issuer(issuer, jwks, jwks_url, audience, algorithm, max_lifetime, certificates)
    show(call("issuer.create", payload))


@app.command("update")
def issuer_update(
    issuer: Name,
    *,
    jwks: Jwks = None,
    jwks_url: JwksUrl = "",
    audience: Audience = "",
    algorithm: Algorithms = None,
    max_lifetime: Lifetime = "1h",
    certificates: Certificates = None,
) -> None:
    """Replace all that is known of an issuer, such as pinned keys that it has rotated."""
    payload = _issuer(issuer, jwks, jwks_url, audience, algorithm, max_lifetime, certificates)
    show(call("issuer.update", payload))


@app.command("remove")
def issuer_remove(issuer: Name) -> None:
    """Trust an issuer no longer; its bindings end with it."""
    show(call("issuer.delete", {"issuer": issuer}))


@app.command("list")
def issuer_list() -> None:
    """List the issuers."""
    show(call("issuer.list", {}), "issuers")


def _issuer(  # noqa: PLR0917 (the options of two commands)
    issuer: str,
    jwks: Path | None,
    jwks_url: str,
    audience: str,
    algorithms: list[str] | None,
    max_lifetime: str,
    certificates: Path | None,
) -> dict[str, Any]:
    payload: dict[str, Any] = {"issuer": issuer}
    if jwks is not None:
        try:
            payload["jwks"] = json.loads(read_data(jwks))
        except ValueError:
            raise ConfigurationError(f"{jwks} does not hold JSON") from None
    if certificates is not None:
        payload["certificates"] = read_data(certificates).decode("ascii", "replace")
    else:
        payload["max_lifetime_seconds"] = seconds(max_lifetime)
    given = {"jwks_url": jwks_url, "audience": audience, "algorithms": algorithms}
    return payload | {name: value for name, value in given.items() if value}
