"""`cloister token-policy`: how values become tokens, from files that say it all."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister._cli._arguments import read_data
from cloister._cli._client import call, show
from cloister.errors import ConfigurationError

__all__ = ["app"]

MAX_BYTES = 1024 * 1024

app = typer.Typer(no_args_is_help=True, help="How values become tokens.")

File = Annotated[Path, typer.Argument(help="The policy, as TOML or JSON; see docs/tokenization.md.")]


Name = Annotated[str, typer.Argument(help="The token policy.")]


@app.command("create")
def create(
    source: Annotated[str, typer.Argument(help="A file with the policy, or a name for random tokens.")],
    name: Annotated[str | None, typer.Option(help="Its name, if the file does not say `policy`.")] = None,
    *,
    alphabet: Annotated[str, typer.Option(help="Without a file: what tokens are made of.")] = "0123456789",
    length: Annotated[int, typer.Option(help="Without a file: how many symbols a token has.")] = 12,
) -> None:
    """Create a policy from a file, or one with random tokens for values kept in the host's vault."""
    if source.endswith((".toml", ".json")):
        document = _document(Path(source))
        payload = document if name is None else {**document, "policy": name}
        if "policy" not in payload:
            raise ConfigurationError("the policy has no name", hint="say --name, or `policy` in the file")
    else:
        payload = {"policy": source, "plan": "vault", "alphabet": alphabet, "length": length}
    show(call("policy.create", payload))


@app.command("check")
def check(file: File) -> None:
    """Compile a policy and keep nothing: its plan, its domain, or why it is refused and the way out."""
    document = _document(file)
    document.pop("policy", None)
    show(call("policy.check", document))


@app.command("show")
def show_(name: Name) -> None:
    """Show a policy with the arithmetic that found it safe."""
    show(call("policy.show", {"policy": name}))


@app.command("list")
def list_() -> None:
    """List the token policies, a line each."""
    show(call("policy.list", {}), "policies")


@app.command("rotate")
def rotate(name: Name) -> None:
    """Start a new key version of an ff1 policy; older tokens stay good."""
    show(call("policy.rotate", {"policy": name}))


def _document(file: Path) -> dict[str, Any]:
    raw = read_data(file)
    if len(raw) > MAX_BYTES:
        raise ConfigurationError(f"{file} is too large to be a policy")
    try:
        found = json.loads(raw) if file.suffix == ".json" else tomllib.loads(raw.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} is neither TOML nor JSON", hint="see docs/tokenization.md")
    return found
