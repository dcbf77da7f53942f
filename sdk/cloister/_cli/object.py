"""`cloister object`: files of any size, sealed here and stored anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from cloister._cli._client import show
from cloister._cli._files import opened, replacing
from cloister._cli.values import Context, context_of
from cloister.client import Client
from cloister.errors import ConfigurationError
from cloister.objects import FileSource, RangeSource, Readable, UploadState
from cloister.objects.stores import SCHEMES, open_store
from cloister.objects.streams import Progress as Tell

__all__ = ["app"]

CHUNK: Final = 1024 * 1024
Place = Annotated[
    str, typer.Argument(help="A file, s3://bucket/name, gs://bucket/name or azblob://container/name.")
]

app = typer.Typer(no_args_is_help=True, help="Sealed objects: files of any size, in files or buckets.")


@app.command("put")
def put(
    source: Annotated[Path, typer.Argument(help="The file to seal.")],
    target: Place,
    *,
    key: Annotated[str, typer.Option(help="Name of the key.")],
    context: Context = None,
    content_type: Annotated[str | None, typer.Option(help="Media type; everybody can read it.")] = None,
    only_new: Annotated[bool, typer.Option(help="Refuse to replace an object.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="File that lets an interrupted upload go on; run the command again.")
    ] = None,
) -> None:
    """Seal a file into another file or into a bucket."""
    bound = context_of(context)
    with Client.from_env() as client, opened(source) as file, _bar(source.stat().st_size) as tell:
        if not _in_store(target):
            if only_new and Path(target).exists():
                raise ConfigurationError(f"{target} exists already", hint="nothing was replaced")
            with replacing(Path(target)) as sink:
                header = client.seal_object(
                    file, sink, key=key, context=bound, cty=content_type, progress=tell
                )
        else:
            store, name = open_store(target)
            header = client.upload_object(
                file,
                store,
                name,
                key=key,
                context=bound,
                cty=content_type,
                only_new=only_new,
                journal=None if journal is None else lambda state: _replace(journal, state.to_bytes()),
                resume=_resume(journal),
                progress=tell,
            )
    if journal is not None:
        journal.unlink(missing_ok=True)
    show({"kid": header.kid, "cty": header.cty})


@app.command("get")
def get(
    source: Place, target: Annotated[Path, typer.Argument(help="The file to write.")], context: Context = None
) -> None:
    """Open a sealed object into a file (right `unwrap`). The file appears only when the object was whole."""
    bound = context_of(context)
    with (
        Client.from_env() as client,
        _stream(source) as (stream, size),
        _bar(size) as tell,
        replacing(target) as sink,
    ):
        written = client.open_object(stream, sink, context=bound, progress=tell)
    show({"bytes": written})


@app.command("verify")
def verify(source: Place, context: Context = None) -> None:
    """Open every frame of a sealed object and write nothing (right `unwrap`)."""
    bound = context_of(context)
    with (
        Client.from_env() as client,
        _range(source) as ranged,
        client.object_reader(ranged, context=bound) as reader,
        _bar(reader.size) as tell,
    ):
        buffer = bytearray(CHUNK)
        while reader.readinto(buffer):
            tell(reader.tell())
        show({"kid": reader.header.kid, "cty": reader.header.cty, "bytes": reader.tell()})


@contextmanager
def _bar(total: int | None) -> Iterator[Tell]:
    """A progress bar where somebody watches."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def _in_store(place: str) -> bool:
    return place.partition("://")[0] in SCHEMES


@contextmanager
def _stream(place: str) -> Iterator[tuple[Readable, int | None]]:
    if _in_store(place):
        store, name = open_store(place)
        yield store.stream(name), None
        return
    with opened(Path(place)) as file:
        yield file, Path(place).stat().st_size


@contextmanager
def _range(place: str) -> Iterator[RangeSource]:
    if _in_store(place):
        store, name = open_store(place)
        yield store.source(name)
        return
    with opened(Path(place)) as file:
        yield FileSource(file)


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _resume(journal: Path | None) -> UploadState | None:
    if journal is None or not journal.exists():
        return None
    return UploadState.from_bytes(journal.read_bytes())
