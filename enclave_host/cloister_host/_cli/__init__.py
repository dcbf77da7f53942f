"""`cloister host`: make a root key, serve, or run everything for development in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cloister._cli._client import write_private
from cloister.errors import ConfigurationError
from cloister_host._cli import root
from cloister_host._cli._enclave import enclave, outbound_of, parent
from cloister_host._cli._serving import (
    Advertise,
    DatabaseTimeout,
    DrainNotice,
    DrainSeconds,
    Peer,
    TlsCertificate,
    TlsElsewhere,
    TlsKey,
    Workers,
    listening_on,
    serve_with,
)
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
)
from cloister_host.attester.settings import AttesterSettings
from cloister_host.attester.tpm_client import DEVICE as TPM
from cloister_host.functions.sandbox.choose import Level
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.unseal.settings import ShamirSettings

__all__ = ["app"]

app = typer.Typer(help="Run an enclave host.", no_args_is_help=True)
app.callback()(enclave)
app.command()(parent)
app.add_typer(root.app, name="root")

State = Annotated[Path, typer.Option(help="Directory of the database and the sealed root key.")]
TrustAnchor = Annotated[
    list[Path] | None,
    typer.Option("--egress-trust-anchor", help="PEM file of an authority that egress trusts; repeatable."),
]
PrivateEgress = Annotated[
    bool,
    typer.Option(
        "--egress-allow-private-addresses",
        help="Debug: let egress reach loopback and private addresses. It is attested.",
    ),
]
AttesterName = Annotated[
    str,
    typer.Option(
        "--attester",
        help="nitro, tsm (SEV-SNP, TDX), gcp-confidential-space, tpm or simulated; "
        "the strongest TEE that answers if not given.",
    ),
]
Tpm = Annotated[Path, typer.Option(help="The TPM: a device, or the UNIX socket of a software TPM.")]
AttesterAnchor = Annotated[
    list[Path] | None,
    typer.Option(
        "--attester-trust-anchor",
        help="Root, or pinned TPM key, that vouches for this machine, which makes it a test. Repeatable.",
    ),
]
Endorsements = Annotated[
    Path | None, typer.Option(help="Folder that `cloister evidence fetch` wrote, for closed networks.")
]
FetchEndorsements = Annotated[
    bool, typer.Option(help="Fetch endorsements at AMD, Intel or Google and keep them fresh.")
]
AcceptFileUnseal = Annotated[
    bool,
    typer.Option(
        "--accept-file-unseal", help="Seal the root key with a file outside a simulation. It is attested."
    ),
]

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="CLOISTER_HOST_DATABASE",
        help="URL of a PostgreSQL database, without a password; the embedded SQLite if not given.",
    ),
]
DatabasePassword = Annotated[
    Path | None,
    typer.Option(
        "--database-password-file", help="File with the database's password; PGPASSWORD is read too."
    ),
]
AnchorFile = Annotated[
    Path | None,
    typer.Option(
        "--anchor",
        help="File out of reach of the database and its backups; tells if the store was rolled back.",
    ),
]


@app.command()
def init(  # noqa: PLR0917 (typer makes options of parameters)
    state: State = Path(".cloister"),
    attester: AttesterName = "",
    tpm: Tpm = TPM,
    attester_trust_anchor: AttesterAnchor = None,
    endorsements: Endorsements = None,
    fetch_endorsements: FetchEndorsements = True,  # noqa: FBT002 (an option)
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    unseal_option: UnsealOptions = None,
    shares: Shares = 5,
    threshold: Threshold = 3,
    shares_folder: SharesFolder = SHARES_FOLDER,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: DatabaseUrl = "",
    database_password_file: DatabasePassword = None,
    anchor: AnchorFile = None,
) -> None:
    """Generate the root key, the database and the operator's API key.

    The root key is bound to what this machine's own evidence proves: hardware, a simulation, or a test.
    Writes into the state directory: the sealed root key, the database, `operator.key`, and
    `policy.toml`, the appraisal policy by which clients recognise this deployment.
    """
    from cloister_host.app import initialize  # noqa: PLC0415 (keeps --help fast)

    split = ShamirSettings(shares=shares, threshold=threshold, folder=shares_folder)
    settings = HostSettings(
        state=state,
        database=_database(database, database_password_file),
        anchor=anchor,
        attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=fetch_endorsements),
        unseal=unseal,
        pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
        tpm2=tpm2_settings(unseal_option, tpm=tpm),
        kms=kms_settings(unseal_option),
        shamir=split,
        accept_file_unseal=accept_file_unseal,
    )
    api_key = initialize(settings)
    write_private(state / "operator.key", api_key)
    if unseal == "shamir":
        settings = replace(settings, shamir=replace(split, files=split.paths[:threshold]))
        typer.echo(f"shares           {shares_folder}: give each operator one, and keep none here")
    deployment = _write_policy(settings, state / "policy.toml")
    typer.echo(f"deployment       {deployment}")
    typer.echo(f"operator's key   {state / 'operator.key'}")
    typer.echo(f"clients' policy  {state / 'policy.toml'}")


@app.command()
def serve(  # noqa: PLR0917 (typer makes options of parameters)
    context: typer.Context,
    state: State = Path(".cloister"),
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:8787",
    attester: AttesterName = "",
    tpm: Tpm = TPM,
    attester_trust_anchor: AttesterAnchor = None,
    endorsements: Endorsements = None,
    fetch_endorsements: FetchEndorsements = True,  # noqa: FBT002 (an option)
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    unseal_option: UnsealOptions = None,
    share: ShareFiles = None,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: DatabaseUrl = "",
    database_password_file: DatabasePassword = None,
    anchor: AnchorFile = None,
    egress_trust_anchor: TrustAnchor = None,
    egress_allow_private_addresses: PrivateEgress = False,  # noqa: FBT002 (an option)
    accept_sandbox: Annotated[
        Level | None,
        typer.Option(help="Also accept this weaker sandbox for functions. It is attested."),
    ] = None,
    accept_missing_layer: Annotated[
        list[str] | None,
        typer.Option(help="Run functions though this machine lacks this layer; repeatable. It is attested."),
    ] = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_elsewhere: TlsElsewhere = False,  # noqa: FBT002 (an option)
    workers: Workers = 1,
    advertise: Advertise = None,
    peer: Peer = None,
    database_timeout: DatabaseTimeout = 15.0,
    drain_seconds: DrainSeconds = 10.0,
    drain_notice: DrainNotice = 0.0,
    witness: Annotated[str, typer.Option(help="URL of a witness that cosigns the audit log.")] = "",
    witness_key: Annotated[str, typer.Option(help="Its public key: name+hash+key.")] = "",
) -> None:
    """Serve until interrupted."""
    listening = listening_on(
        listen,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_elsewhere=tls_elsewhere,
        notice_seconds=drain_notice,
        drain_seconds=drain_seconds,
    )
    settings = HostSettings(
        state=state,
        database=_database(database, database_password_file),
        anchor=anchor,
        attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=fetch_endorsements),
        unseal=unseal,
        pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
        tpm2=tpm2_settings(unseal_option, tpm=tpm),
        kms=kms_settings(unseal_option),
        shamir=shamir_settings(share, unseal_option),
        accept_file_unseal=accept_file_unseal,
        egress_trust_anchors=tuple(egress_trust_anchor or ()),
        egress_allow_private_addresses=egress_allow_private_addresses,
        outbound=outbound_of(context),
        accepted_sandboxes=frozenset({"namespaces", accept_sandbox or "namespaces"}),
        accepted_missing_layers=frozenset(accept_missing_layer or ()),
        witness=(witness, witness_key) if witness else None,
        database_timeout_seconds=database_timeout,
        doors=tuple(advertise or ()),
        peers=tuple(peer or ()),
    )
    serve_with(settings, listening, workers=workers, announce=listen)


@app.command()
def dev(
    state: State = Path(".cloister"),
    listen: Annotated[str, typer.Option(help="Loopback address and port.")] = "127.0.0.1:8787",
    tenant: Annotated[str, typer.Option(help="The tenant that is made.")] = "dev",
    egress_trust_anchor: TrustAnchor = None,
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the host is ready; `cloister host stop` ends it.")
    ] = False,
) -> None:
    """Run a host for development: simulated TEE, one tenant, one principal that may do everything.

    Writes `cloister.toml` here, so that clients and commands started in this folder find the host.
    """
    from cloister_host import background, server  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.app import build  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.development import prepare  # noqa: PLC0415 (keeps --help fast)

    address, _, port = listen.rpartition(":")
    if address not in server.LOOPBACK or not port.isdecimal():
        raise ConfigurationError(
            "a development host listens on loopback only", hint="for example 127.0.0.1:8787"
        )
    settings = HostSettings(
        state=state,
        attester=AttesterSettings(name="simulated"),
        egress_trust_anchors=tuple(egress_trust_anchor or ()),
        egress_allow_private_addresses=True,
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    url = f"http://{listen}"
    prepare(settings, tenant=tenant, url=url, profile=Path("cloister.toml"))
    if detach:
        anchors = [f"--egress-trust-anchor={path}" for path in settings.egress_trust_anchors]
        arguments = ["dev", f"--state={state}", f"--listen={listen}", f"--tenant={tenant}", *anchors]
        background.start(arguments, url=url, state=state)
        typer.echo(f"development host on {url}, tenant {tenant}; `cloister host stop` ends it")
        return
    with build(settings) as host:
        typer.echo(f"development host on {url}, tenant {tenant}; settings in cloister.toml")
        typer.echo(f"sandbox level: {host.sandbox}; the TEE is simulated and protects nothing here")
        listening = server.Listening(address=address, port=int(port))
        server.serve(host.app, listening, stopping=host.stopping)


@app.command()
def stop(state: State = Path(".cloister")) -> None:
    """Stop the host that `cloister host dev --detach` started."""
    from cloister_host import background  # noqa: PLC0415 (keeps --help fast)

    background.stop(state)


@app.command()
def policy(  # noqa: PLR0917 (typer makes options of parameters)
    state: State = Path(".cloister"),
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("policy.toml"),
    attester: AttesterName = "",
    tpm: Tpm = TPM,
    attester_trust_anchor: AttesterAnchor = None,
    endorsements: Endorsements = None,
    fetch_endorsements: FetchEndorsements = True,  # noqa: FBT002 (an option)
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    unseal_option: UnsealOptions = None,
    share: ShareFiles = None,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: DatabaseUrl = "",
    database_password_file: DatabasePassword = None,
    anchor: AnchorFile = None,
) -> None:
    """Write the appraisal policy for this deployment and this image, for clients."""
    settings = HostSettings(
        state=state,
        database=_database(database, database_password_file),
        anchor=anchor,
        attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=fetch_endorsements),
        unseal=unseal,
        pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
        tpm2=tpm2_settings(unseal_option, tpm=tpm),
        kms=kms_settings(unseal_option),
        shamir=shamir_settings(share, unseal_option),
        accept_file_unseal=accept_file_unseal,
    )
    typer.echo(f"deployment {_write_policy(settings, out)}")


@app.command("anchor")
def accept_store_command(  # noqa: PLR0917 (typer makes options of parameters)
    state: State = Path(".cloister"),
    attester: AttesterName = "",
    tpm: Tpm = TPM,
    attester_trust_anchor: AttesterAnchor = None,
    endorsements: Endorsements = None,
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    unseal_option: UnsealOptions = None,
    share: ShareFiles = None,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: DatabaseUrl = "",
    database_password_file: DatabasePassword = None,
    anchor: AnchorFile = None,
    *,
    accept_this_store: Annotated[
        bool,
        typer.Option(
            "--accept-this-store", help="Trust the store as it is now, also if it is older than its anchor."
        ),
    ] = False,
) -> None:
    """Begin an anchor, or go on from a store that was restored from a backup on purpose.

    The host must not be running. Whatever was revoked after that backup was made is valid again.
    """
    from cloister_host.app import accept_store  # noqa: PLC0415 (keeps --help fast)

    if not accept_this_store:
        raise ConfigurationError(
            "nothing was anchored", hint="--accept-this-store, once you know why the store is what it is"
        )
    accept_store(
        HostSettings(
            state=state,
            database=_database(database, database_password_file),
            anchor=anchor,
            attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=False),
            unseal=unseal,
            pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
            tpm2=tpm2_settings(unseal_option, tpm=tpm),
            kms=kms_settings(unseal_option),
            shamir=shamir_settings(share, unseal_option),
            accept_file_unseal=accept_file_unseal,
        )
    )
    typer.echo(f"anchored in {anchor}")


@app.command("restore")
def restore_command(  # noqa: PLR0917 (typer makes options of parameters)
    backup: Annotated[Path, typer.Argument(help="A backup, from `cloister backup create`.")],
    key: Annotated[Path, typer.Option("--key", help="File with the private backup key.")],
    state: State = Path(".cloister"),
    attester: AttesterName = "",
    tpm: Tpm = TPM,
    attester_trust_anchor: AttesterAnchor = None,
    endorsements: Endorsements = None,
    unseal: Provider = "file",
    hsm_module: HsmModule = None,
    hsm_token: HsmToken = "",
    hsm_key: HsmKey = HSM_KEY,
    hsm_pin_file: HsmPinFile = None,
    unseal_option: UnsealOptions = None,
    share: ShareFiles = None,
    accept_file_unseal: AcceptFileUnseal = False,  # noqa: FBT002 (an option)
    database: DatabaseUrl = "",
    database_password_file: DatabasePassword = None,
    anchor: AnchorFile = None,
    *,
    heads: Annotated[
        Path | None,
        typer.Option(help="Tree heads that a client kept (CLOISTER_HEAD_FILE): none may be lost."),
    ] = None,
    accept_rollback: Annotated[
        str, typer.Option(help="Id of the backup, if it may undo what was seen since. It is logged.")
    ] = "",
) -> None:
    """Restore a backup into an empty store: all of it or nothing. Run it again if it was interrupted.

    The unseal provider is the one that the backup was taken under. Deliveries that were under way wait
    for `cloister delivery replay`; jobs that may have had effects elsewhere are lost.
    """
    from cloister import jose  # noqa: PLC0415 (keeps --help fast)
    from cloister._cli._client import read_jwk  # noqa: PLC0415 (keeps --help fast)
    from cloister._cli._files import opened  # noqa: PLC0415 (keeps --help fast)
    from cloister._cli.backup import known_head  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.backups.restore import restore  # noqa: PLC0415 (keeps --help fast)

    settings = HostSettings(
        state=state,
        database=_database(database, database_password_file),
        anchor=anchor,
        attester=_attester(attester, tpm, attester_trust_anchor, endorsements, fetch=False),
        unseal=unseal,
        pkcs11=hsm_settings(hsm_module, hsm_token, hsm_key, hsm_pin_file),
        tpm2=tpm2_settings(unseal_option, tpm=tpm),
        kms=kms_settings(unseal_option),
        shamir=shamir_settings(share, unseal_option),
        accept_file_unseal=accept_file_unseal,
    )
    private = jose.Key.from_jwk(read_jwk(key))
    with opened(backup) as source:
        done = restore(
            settings,
            source,
            key=private,
            known=known_head(heads, source),
            accept_rollback=accept_rollback,
        )
    typer.echo(f"deployment   {done.deployment}")
    typer.echo(f"backup       {done.backup}{' (restored before, complete)' if done.again else ''}")
    typer.echo(f"incarnation  {done.incarnation}")
    if not done.again:
        typer.echo(f"held         {done.held} deliveries; see `cloister delivery list`")
        typer.echo(f"lost         {done.lost} jobs")
    if anchor is None:
        typer.echo("not checked  whether this is the latest backup: there is no anchor")


@app.command()
def holder(attester: AttesterName = "", tpm: Tpm = TPM, attester_trust_anchor: AttesterAnchor = None) -> None:
    """Print this kind of machine, as `cloister holder add --file` takes it."""
    import json  # noqa: PLC0415 (keeps --help fast)
    import tempfile  # noqa: PLC0415 (keeps --help fast)
    import time  # noqa: PLC0415 (keeps --help fast)

    from cloister_host.attester.parts import build_attester  # noqa: PLC0415 (keeps --help fast)

    settings = _attester(attester, tpm, attester_trust_anchor, None, fetch=True)
    with tempfile.TemporaryDirectory() as folder:
        parts = build_attester(settings, state=Path(folder), clock=time.time)
        try:
            typer.echo(json.dumps(parts.machine.holder(), indent=2))
        finally:
            parts.endorser.close()


@app.command()
def evidence(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("evidence.bin"),
    attester: AttesterName = "",
    tpm: Tpm = TPM,
) -> None:
    """Write this machine's evidence, for `cloister evidence fetch` on a machine that reaches its vendor."""
    import os  # noqa: PLC0415 (keeps --help fast)

    from cloister_host.attester.probing import choose_attester  # noqa: PLC0415 (keeps --help fast)

    chosen = choose_attester(attester, tpm=tpm)
    out.write_bytes(chosen.evidence(statement=b"{}", nonce=os.urandom(32)))
    typer.echo(f"{out}: pass it to `cloister evidence fetch {out} --format {chosen.format}`")


def _database(url: str, password_file: Path | None) -> str:
    """The URL with its password, which comes from a file; arguments are seen by every user of a machine."""
    from cloister_host.store.database import with_password  # noqa: PLC0415 (keeps --help fast)

    if not url and password_file is None:
        return ""
    password = None
    if password_file is not None:
        try:
            password = password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the database's password cannot be read ({type(error).__name__})", hint=str(password_file)
            ) from None
    return with_password(url, password)


def _attester(
    name: str, tpm: Path, trust_anchors: list[Path] | None, endorsements: Path | None, *, fetch: bool
) -> AttesterSettings:
    return AttesterSettings(
        name=name,
        tpm=tpm,
        trust_anchors=tuple(trust_anchors or ()),
        endorsements=endorsements,
        fetch=fetch,
    )


def _write_policy(settings: HostSettings, path: Path) -> str:
    from cloister_host.app import build  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.development import policy_text  # noqa: PLC0415 (keeps --help fast)

    with build(replace(settings, alone=True)) as host:
        path.write_text(policy_text(host), encoding="utf-8")
        return host.deployment
