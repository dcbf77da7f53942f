"""Confidential functions on the command line: written, tested, bundled, deployed; then see `_running`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister import jose
from cloister._cli._client import call, show
from cloister._cli._running import pairs, register
from cloister._cli._template import FUNCTION, TEST
from cloister.errors import ConfigurationError
from cloister.function.bundle import build_bundle
from cloister.function.names import check_name

__all__ = ["app"]

app = typer.Typer(help="Confidential functions: write, test, deploy and call them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="The folder that holds function.py.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE for a ${NAME} in the declaration; repeatable.")
]
_NOTHING_COLLECTED: Final = 5


@app.command("new")
def new(name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]) -> None:
    """Write a small working function with a test into a new folder."""
    check_name(name, "function")
    identifier = name.replace("-", "_")
    folder = Path(identifier)
    if folder.exists():
        raise ConfigurationError(f"{folder} exists already", hint="choose another name or remove it")
    folder.mkdir()
    for file, template in (("function.py", FUNCTION), ("test_function.py", TEST)):
        text = template.replace("NAME", name).replace("IDENTIFIER", identifier)
        (folder / file).write_text(text, encoding="utf-8")
    typer.echo(f"wrote {folder}/function.py and its test; next: cloister function test {folder}")


@app.command("test")
def test(directory: Directory) -> None:
    """Run the function's own tests: it is an ordinary function, so this is pytest."""
    if importlib.util.find_spec("pytest") is None:
        raise ConfigurationError("pytest is not installed", hint="pip install pytest")
    # A folder of its own at the front of the path is how the function's modules find each other.
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=prepend", str(directory)]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own interpreter
    if code == _NOTHING_COLLECTED:
        raise ConfigurationError(
            f"{directory} has no tests", hint="write test_function.py beside function.py"
        )
    raise typer.Exit(code)


@app.command("build")
def build(
    directory: Directory,
    settings: Setting = None,
    out: Annotated[Path | None, typer.Option(help="Write the bundle to this file.")] = None,
) -> None:
    """Bundle the function and show its digest, its manifest and the grants it needs."""
    bundle = build_bundle(directory, pairs(settings or [], "--set"))
    if out is not None:
        out.write_bytes(bundle.data)
    show(
        {
            "name": bundle.manifest.name,
            "digest": bundle.digest,
            "bytes": len(bundle.data),
            "needs": [need._asdict() for need in bundle.manifest.needs],
            "manifest": bundle.manifest.to_json(),
        }
    )


@app.command("deploy")
def deploy(
    directory: Directory,
    settings: Setting = None,
    *,
    alias: Annotated[str | None, typer.Option(help="Point this alias to it, e.g. prod.")] = None,
    grant: Annotated[
        bool, typer.Option("--grant", help="Grant the digest what its manifest asks for; read that first.")
    ] = False,
) -> None:
    """Bundle the function and bring it to the host. A new digest has no rights until they are granted."""
    bundle = build_bundle(directory, pairs(settings or [], "--set"))
    payload = {"bundle": jose.b64url_encode(bundle.data), **({"alias": alias} if alias else {})}
    deployed = call("function.deploy", payload)
    if grant:
        for need in deployed["needs"]:
            call("grant.create", {"principal": f"function:{deployed['digest']}", **need})
    show({**deployed, "granted": grant})


register(app)
