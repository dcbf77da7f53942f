"""`cloister host root`: rotate the root key, move it, destroy what came before, survive a lost provider.

These commands open the root key as a host does at its start, and work on the store while hosts serve.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister_host._cli._unseal import (
    HSM_KEY,
    SHARES_FOLDER,
    HsmKey,
    HsmModule,
    HsmPinFile,
    HsmToken,
    Provider,
    ShareFiles,
    Shares,
    SharesFolder,
    Threshold,
    UnsealOptions,
    hsm_settings,
    kms_settings,
    shamir_settings,
    tpm2_settings,
    with_provider,
)
from cloister_host.attester.tpm_client import DEVICE as TPM
from cloister_host.settings import HostSettings
from cloister_host.unseal.settings import ShamirSettings

__all__ = ["app"]

app = typer.Typer(help="Rotate, move and recover the root key, while hosts serve.", no_args_is_help=True)

ToOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--to-option",
        metavar="NAME=VALUE",
        help="Options of --to: as --unseal-option, and hsm-module, hsm-token, hsm-key, hsm-pin-file, shares, "
        "threshold, shares-folder. Repeatable.",
    ),
]
FromOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--from-option", metavar="NAME=VALUE", help="Options of --from; as --to-option. Repeatable."
    ),
]
AcceptFileUnseal = Annotated[bool, typer.Option("--accept-file-unseal", help="As for `cloister host serve`.")]
Told = Annotated[
    list[str] | None,
    typer.Option(
        "--destroyed",
        help="Say that what opens this provider's copies is destroyed, where nobody can see it: shamir, "
        "recovery, or a provider that is lost. It is recorded as said, not seen. Repeatable.",
    ),
]


def _settings(  # noqa: PLR0917 (typer makes options of parameters)
    state: Annotated[Path, typer.Option(help="Directory of the database.")] = Path(".cloister"),
    attester: Annotated[str, typer.Option(help="As for `cloister host serve`.")] = "",
    tpm: Annotated[Path, typer.Option(help="The TPM, or the socket of a software TPM.")] = TPM,
    attester_trust_anchor: Annotated[
        list[Path] | None, typer.Option(help="As for `cloister host serve`.")
    ] = None,
    endorsements: Annotated[Path | None, typer.Option(help="As for `cloister host serve`.")] = None,
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    share: ShareFiles = None,
    unseal_option: UnsealOptions = None,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: Annotated[
        str, typer.Option(envvar="CLOISTER_HOST_DATABASE", help="As for `cloister host serve`.")
    ] = "",
    database_password_file: Annotated[Path | None, typer.Option(help="As for `cloister host serve`.")] = None,
) -> HostSettings:
    """The settings that a host is started with, as far as they concern the root key."""
    from cloister_host._cli import _attester, _database  # noqa: PLC0415 (that module imports this one)

    return HostSettings(
        state=state,
        database=_database(database, database_password_file),
        attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=False),
        unseal=unseal,
        pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
        tpm2=tpm2_settings(unseal_option, tpm=tpm),
        kms=kms_settings(unseal_option),
        shamir=shamir_settings(share, unseal_option),
        accept_file_unseal=accept_file_unseal,
    )


def _over_a_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that asks for `settings` the options that these are made of, after its own."""
    common = inspect.signature(_settings, eval_str=True).parameters
    own = [
        parameter
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "settings"
    ]

    def run(**given: Any) -> None:
        settings = _settings(**{name: given.pop(name) for name in common})
        command(settings=settings, **given)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *common.values())
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@app.command()
@_over_a_store
def status(settings: HostSettings) -> None:
    """Show every generation of the root key: where its copies are, and how many tenants hang on it."""
    from cloister_host.keeping import keep_root  # noqa: PLC0415 (keeps --help fast)

    with keep_root(settings) as (keeper, _):
        for found in keeper.status():
            record = found.record
            copies = ", ".join(found.copies) or "none"
            line = f"generation {found.number}: {record.state}, tenants {found.tenants}, copies {copies}"
            if record.checked:
                line += f", seen to be destroyed: {', '.join(record.checked)}"
            if record.told:
                line += f", said to be destroyed: {', '.join(record.told)}"
            typer.echo(line)


@app.command()
@_over_a_store
def rotate(  # noqa: PLR0917 (typer makes options of parameters)
    settings: HostSettings,
    to: Annotated[str, typer.Option(help="Also seal it by this provider, to move there.")] = "",
    to_option: ToOptions = None,
    shares: Shares = 5,
    threshold: Threshold = 3,
    shares_folder: SharesFolder = SHARES_FOLDER,
) -> None:
    """Begin a new generation of the root key, and wrap every tenant's keys under it; or finish that.

    The deployment stays the one that clients know, and hosts go on. To move to another provider, name it
    with --to, start the hosts with it, and destroy the generation before with `destroy --from`.
    """
    from cloister_host.keeping import keep_root  # noqa: PLC0415 (keeps --help fast)

    split = replace(settings.shamir, shares=shares, threshold=threshold, folder=shares_folder)
    settings = replace(settings, shamir=split)
    with keep_root(settings) as (keeper, provider):
        providers = [provider(settings)]
        if to:
            providers.append(provider(with_provider(settings, to, to_option, tpm=settings.tpm2.device)))
        number = keeper.rotate(*providers)
    typer.echo(f"generation {number} of the root key wraps the keys of every tenant")


@app.command()
@_over_a_store
def destroy(
    settings: HostSettings,
    generation: Annotated[int, typer.Option(help="The generation, which nothing hangs on any more.")],
    from_: Annotated[str, typer.Option("--from", help="The provider that the root key was moved from.")] = "",
    from_option: FromOptions = None,
    destroyed: Told = None,
) -> None:
    """Destroy a generation, so that no copy of the database opens with it. This cannot be undone."""
    from cloister_host.keeping import keep_root  # noqa: PLC0415 (keeps --help fast)

    with keep_root(settings) as (keeper, provider):
        stays = provider(settings)
        left = []
        if from_:
            left = [provider(with_provider(settings, from_, from_option, tpm=settings.tpm2.device))]
        record = keeper.destroy(generation, [stays, *left], told=frozenset(destroyed or ()))
        for gone in left:
            keeper.leave(gone, stays=stays)
    typer.echo(f"generation {generation} is destroyed")
    if record.told:
        typer.echo(f"said, and not seen: {', '.join(record.told)}")


@app.command()
@_over_a_store
def recovery(
    settings: HostSettings,
    shares: Shares = 5,
    threshold: Threshold = 3,
    shares_folder: SharesFolder = SHARES_FOLDER,
) -> None:
    """Make recovery shares: enough operators together open the root key if its provider is lost.

    They stay good for later generations. Making them again lets the earlier ones open nothing new.
    """
    from cloister_host.keeping import keep_root  # noqa: PLC0415 (keeps --help fast)

    with keep_root(settings) as (keeper, _):
        keeper.make_recovery(ShamirSettings(shares=shares, threshold=threshold, folder=shares_folder))
    typer.echo(
        f"{shares_folder}: give each operator one, and keep none here; {threshold} recover the root key"
    )


@app.command()
@_over_a_store
def recover(
    settings: HostSettings,
    to: Annotated[str, typer.Option(help="The provider that seals the root key from now on.")],
    to_option: ToOptions = None,
) -> None:
    """Open the root key with recovery shares (--share), and seal a new generation by another provider."""
    from cloister_host.keeping import keep_root  # noqa: PLC0415 (keeps --help fast)

    with keep_root(settings, lost=True) as (keeper, provider):
        number = keeper.rotate(provider(with_provider(settings, to, to_option, tpm=settings.tpm2.device)))
    typer.echo(
        f"generation {number} of the root key wraps the keys of every tenant; start hosts with --unseal {to}"
    )
