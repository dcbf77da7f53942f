"""Confidential functions on the command line: written, tested, bundled, deployed; then see `_running`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister import jose
from cloister._cli._client import call, read_jwk, seal_bundle, show, tenant_of_settings
from cloister._cli._running import pairs, register
from cloister._cli._template import FUNCTION, TEST
from cloister.errors import ConfigurationError
from cloister.function.bundle import build_bundle, read_bundle
from cloister.function.names import check_name
from cloister.function.signing import sign_bundle

__all__ = ["app"]

app = typer.Typer(help="Confidential functions: write, test, deploy and call them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="The folder that holds function.py.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE for a ${NAME} in the declaration; repeatable.")
]
Wheels = Annotated[
    Path | None, typer.Option(help="Folder with the wheels of requirements.lock; default: wheels/ beside it.")
]
PythonVersion = Annotated[
    str | None, typer.Option("--python", help="Python of the host, for native wheels, e.g. 3.11.")
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
    wheels: Wheels = None,
    python: PythonVersion = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Write the bundle to this file.")] = None,
    seal: Annotated[
        str | None,
        typer.Option(help="Key (seal-public) whose public half --out is sealed to: only the host reads it."),
    ] = None,
) -> None:
    """Bundle the function and show its digest, its manifest and the grants it needs."""
    bundle = build_bundle(directory, pairs(settings or [], "--set"), wheels=wheels, python=python)
    if seal is not None and out is None:
        raise ConfigurationError("--seal writes a file", hint="give --out FILE")
    if out is not None:
        out.write_bytes(bundle.data if seal is None else seal_bundle(bundle.data, seal).encode())
    show(
        {
            "name": bundle.manifest.name,
            "digest": bundle.digest,
            "bytes": len(bundle.data),
            "needs": [need._asdict() for need in bundle.manifest.needs],
            "manifest": bundle.manifest.to_json(),
        }
    )


@app.command("sign")
def sign(
    bundle: Annotated[Path, typer.Argument(help="A file that `cloister function build --out` wrote.")],
    key: Annotated[Path, typer.Argument(help="Private key of a registered deployer.")],
    *,
    tenant: Annotated[str, typer.Option(help="Where it will be deployed.")],
) -> None:
    """Sign a bundle for its deployment; prints the signature. Needs no host."""
    read = read_bundle(bundle.read_bytes())
    typer.echo(sign_bundle(read.digest, function=read.manifest.name, tenant=tenant, key=read_jwk(key)))


@app.command("deploy")
def deploy(
    source: Annotated[
        Path, typer.Argument(help="The folder that holds function.py, or a bundle, sealed or not.")
    ],
    settings: Setting = None,
    wheels: Wheels = None,
    python: PythonVersion = None,
    *,
    alias: Annotated[str | None, typer.Option(help="Point this alias to it, e.g. prod.")] = None,
    key: Annotated[
        Path | None, typer.Option("--sign", help="Sign with this private key of a registered deployer.")
    ] = None,
    signature: Annotated[str | None, typer.Option(help="What `cloister function sign` printed.")] = None,
    grant: Annotated[
        bool, typer.Option("--grant", help="Grant the digest what its manifest asks for; read that first.")
    ] = False,
) -> None:
    """Bring the function to the host, bundled if it is a folder. A new digest has no rights until granted."""
    payload: dict[str, Any] = {"alias": alias} if alias else {}
    if source.is_file() and not (data := source.read_bytes()).startswith(b"PK"):
        payload["sealed"] = data.decode("ascii", "replace")
        if key is not None:
            raise ConfigurationError(
                "a sealed bundle cannot be signed here", hint="sign it before: `cloister function sign`"
            )
    else:
        bundle = (
            read_bundle(data)
            if source.is_file()
            else build_bundle(source, pairs(settings or [], "--set"), wheels=wheels, python=python)
        )
        payload["bundle"] = jose.b64url_encode(bundle.data)
        if key is not None:
            signature = sign_bundle(
                bundle.digest, function=bundle.manifest.name, tenant=tenant_of_settings(), key=read_jwk(key)
            )
    if signature is not None:
        payload["signature"] = signature
    deployed = call("function.deploy", payload)
    if grant:
        for need in deployed["needs"]:
            call("grant.create", {"principal": f"function:{deployed['digest']}", **need})
    show({**deployed, "granted": grant})


register(app)
