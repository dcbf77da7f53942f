"""`cloister transfer`: sealed values from one place to another, through a confidential function."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cloister._cli._verdict import REFUSED, UNUSABLE
from cloister.errors import AttestationError, CloisterError, ConfigurationError, DeniedError, IdentityError

if TYPE_CHECKING:
    from cloister.transfer import Items, Report, State
    from cloister.transfer.sinks import LineSink, StoreSink

__all__ = ["transfer"]

INCOMPLETE: Final = 1
INTERRUPTED: Final = 130
_REFUSALS: Final = (AttestationError, IdentityError, DeniedError)

Source = Annotated[
    str, typer.Argument(help="A file of JSON lines, or s3://bucket/prefix/ or azblob://container/prefix/.")
]
Function = Annotated[str, typer.Argument(help="NAME@ALIAS, or NAME@DIGEST.")]
Inputs = Annotated[
    list[str],
    typer.Option("--input", "-i", help="NAME or NAME=MEMBER: an input, and the member it comes from."),
]
Context = Annotated[
    list[str] | None, typer.Option("--context", "-c", help="NAME or NAME=MEMBER: likewise for the context.")
]
Id = Annotated[
    str | None, typer.Option("--id", help="Member that names an item; by default its whole content does.")
]
StateFile = Annotated[Path, typer.Option("--state", help="File that remembers what was done, over crashes.")]
Out = Annotated[str | None, typer.Option(help="File of JSON lines or bucket that the replies go to.")]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Calls under way at once.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, send and write nothing.")]
Repeat = Annotated[
    bool,
    typer.Option(help="Also send what may have been done over 23 hours ago: it may then act twice."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def transfer(
    source: Source,
    function: Function,
    *,
    input_: Inputs,
    state: StateFile,
    context: Context = None,
    id_: Id = None,
    out: Out = None,
    concurrency: Concurrency = 8,
    dry_run: DryRun = False,
    repeat_unknown: Repeat = False,
    as_json: AsJson = False,
) -> None:
    """Call a confidential function once for each sealed value of a source; run it again to go on.

    Exit code 0: all is done; 1: some items failed; 2: something cannot be used or does not answer;
    3: the host was not accepted, or it refused; 130: interrupted.
    """
    from cloister.client import Client  # noqa: PLC0415 (TLS and all, for this command alone)
    from cloister.config import Settings  # noqa: PLC0415 (as above)
    from cloister.transfer import Fields, State, Transfer  # noqa: PLC0415 (as above)

    try:
        fields = Fields(inputs=_members(input_), context=_members(context or []), id=id_)
        items = _items(source, fields)
        about = {
            "function": function,
            "tenant": Settings.load().tenant,
            "fields": {"inputs": dict(fields.inputs), "context": dict(fields.context), "id": fields.id},
        }
        looked = not dry_run or state.exists()
        known: AbstractContextManager[State | None] = (
            State(state, about, writable=not dry_run) if looked else nullcontext()
        )
        with (
            known as journal,
            _sink(None if dry_run else out) as sink,
            Client.from_env() as client,
            _bar(items) as tell,
        ):
            run = Transfer(
                items,
                function,
                client,
                concurrency=concurrency,
                sink=sink,
                repeat_unknown=repeat_unknown,
                progress=tell,
            )
            # Nothing is noted as sent before it is known that there is somebody to send to.
            client.attest()
            with _stopping(run.stop):
                report = run.run(journal) if journal is not None and not dry_run else run.plan(journal)
    except CloisterError as error:
        stopped = {"stopped": error.code, "reason": str(error.args[0]), "hint": error.hint}
        _tell({"function": function, "dry_run": dry_run, **stopped}, as_json=as_json)
        raise typer.Exit(REFUSED if isinstance(error, _REFUSALS) else UNUSABLE) from None
    _tell({"function": function, "dry_run": dry_run, **asdict(report)}, as_json=as_json)
    raise typer.Exit(_exit_code(report))


def _members(options: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        name, given, member = option.partition("=")
        if not name or (given and not member) or name in found:
            raise ConfigurationError(f"{option!r} is not NAME or NAME=MEMBER, each name once")
        found[name] = member or name
    return found


def _items(source: str, fields: Any) -> Items:
    from cloister.transfer import RecordItems, StoredItems  # noqa: PLC0415 (as above)
    from cloister.transfer.stores import open_values  # noqa: PLC0415 (as above)

    if "://" not in source:
        return RecordItems(Path(source), fields)
    store, prefix = open_values(source)
    return StoredItems(store, prefix, fields)


def _sink(out: str | None) -> AbstractContextManager[LineSink | StoreSink | None]:
    from cloister.transfer.sinks import LineSink, StoreSink  # noqa: PLC0415 (as above)
    from cloister.transfer.stores import open_values  # noqa: PLC0415 (as above)

    if out is None:
        return nullcontext()
    return LineSink(Path(out)) if "://" not in out else StoreSink(*open_values(out))


@contextmanager
def _bar(items: Items) -> Iterator[Callable[[], object]]:
    """A progress bar where somebody watches."""
    from rich.console import Console  # noqa: PLC0415 (as above)
    from rich.progress import (  # noqa: PLC0415 (as above)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=items.count())
        yield lambda: progress.advance(task)


@contextmanager
def _stopping(stop: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C, or SIGTERM, ends the run in order; the second one at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: object) -> None:
        restore()
        stop()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


def _tell(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    if "reason" in result:
        typer.echo(f"stopped [{result['stopped']}]: {result['reason']}", err=True)
        typer.echo(f"  try: {result['hint']}", err=True) if result["hint"] else None
        return
    would = f", {result['pending']} would be sent" if result["dry_run"] else ""
    typer.echo(
        f"{result['done']} transferred, {result['before']} done before, {result['failed']} failed, "
        f"{result['unknown']} unknown{would}"
    )
    for failure in result["failures"]:
        typer.echo(f"  {failure['place']}: {failure['code']}: {failure['reason']}")
    if result["stopped"]:
        typer.echo(f"stopped [{result['stopped']}]: run it again to go on")


def _exit_code(report: Report) -> int:
    if report.stopped == "interrupted":
        return INTERRUPTED
    if report.stopped is not None:
        refusals = {kind.code for kind in _all(_REFUSALS)}
        return REFUSED if report.stopped in refusals else UNUSABLE
    return INCOMPLETE if report.failed or report.unknown else 0


def _all(kinds: tuple[type[CloisterError], ...]) -> Iterator[type[CloisterError]]:
    for kind in kinds:
        yield kind
        yield from _all(tuple(kind.__subclasses__()))
