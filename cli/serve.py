"""``retr serve``, ``retr token``, ``retr audit``: indexes over HTTP with a page, who may ask, and who asked what."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._options import JsonOption, LoadOptions, ShardOptions, find_index, unfold
from retr.cli._output import Output
from retr.index.errors import RetrError, UsageError
from retr.index.machine.home import home

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from retr.serve.settings import Settings

_TOKENS = typer.Option("--token-file", help="The file of tokens, which says who may ask; `retr token` makes it.")


@unfold
def serve(
    *,
    index: Annotated[
        list[str] | None,
        typer.Option("--index", metavar="[NAME=]DIR", help="An index to serve, under a name; repeats."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; another needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 7860,
    token_file: Annotated[Path | None, _TOKENS] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="Write down who asked what, to this file.")] = None,
    audit_words: Annotated[
        bool,
        typer.Option("--audit-words/--audit-hashed-words", help="Whether the audit holds words as given."),
    ] = True,
    audit_ids: Annotated[bool, typer.Option("--audit-ids", help="Have ids in the audit unhashed.")] = False,
    additions: Annotated[Path | None, typer.Option("--additions", help="Keep the pictures of writers here.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse all changes.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A further name under which it is asked; repeats.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="A site whose pages may ask it; repeats.")
    ] = None,
    rate: Annotated[
        float,
        typer.Option("--rate", min=0.1, help="Questions a second of one token; four times so many after a pause."),
    ] = 50.0,
    root_path: Annotated[str, typer.Option("--root-path", help="The path under which a proxy offers it.")] = "",
    trusted_proxy: Annotated[
        list[str] | None, typer.Option("--trusted-proxy", help="The address of a proxy whose headers count; repeats.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="A certificate for TLS (PEM).")] = None,
    certificate_key: Annotated[Path | None, typer.Option("--certificate-key", help="Its key (PEM).")] = None,
    loading: LoadOptions,
    shards: ShardOptions,
) -> None:
    """Serve indexes over HTTP, and a page to look at them, to this machine or, with tokens, to others.

    Example: retr serve --index fundus=/data/fundus.retr --port 7860
    """
    import uvicorn

    from retr.serve.app import create_app
    from retr.serve.settings import Settings

    out = Output()
    settings = Settings(
        host=host,
        port=port,
        token_file=token_file,
        audit_file=audit,
        hash_words=not audit_words,
        plain_ids=audit_ids,
        additions=additions,
        read_only=read_only,
        hosts=frozenset(allow_host or ()),
        origins=frozenset(origin.lower().rstrip("/") for origin in allow_origin or ()),
        rate=rate,
        burst=max(1, round(4 * rate)),
        root_path=root_path,
        trusted_proxies=tuple(trusted_proxy or ()),
        certificate=certificate,
        certificate_key=certificate_key,
    )
    served = _named(index or [])
    options = {**loading.options, **shards.options}
    if "ray" in options:
        # a shard that is late is named, before the answer is
        options.setdefault("shard_seconds", 0.75 * settings.answer_seconds)
    config = _config(create_app(served, settings, options), settings)
    listening = _listening(host, port)
    scheme, named = "http" if certificate is None else "https", f"[{host}]" if ":" in host else host
    place = f"{scheme}://{named}:{listening.getsockname()[1]}{root_path}/"
    out.note(f"serving {', '.join(served)} at {place} (Ctrl-C ends it)")
    server = uvicorn.Server(config)
    for ending in (signal.SIGINT, signal.SIGTERM):
        # what was asked is answered, and that was it: uvicorn would die of the signal, which a unit takes for a failure
        signal.signal(ending, server.handle_exit)
    server.run([listening])


def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; the audit names them so.")],
    *,
    token_file: Annotated[Path, _TOKENS],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it may do: read, label (sets and labels), write (rows); repeats."),
    ] = None,
) -> None:
    """Make a token for `retr serve`, and print it this once.

    Only its hash is kept. It ends when its line is taken out of the file.

    Example: retr token anna --token-file tokens --scope read --scope label
    """
    from retr.serve.tokens import make_token

    out = Output()
    out.line(make_token(home(token_file), name, frozenset(scope or ["read"])))
    out.note(f"this is the token of {name!r}; it is shown this once, and its hash is in {str(token_file)!r}")


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audit file of `retr serve --audit`.")],
    *,
    json_: JsonOption = False,
) -> None:
    """Look for lines of an audit that were changed, dropped, put in or moved.

    Example: retr audit verify audit.jsonl
    """
    from retr.serve import audit

    out = Output(json_=json_)
    verdict = audit.verify(home(file))
    if out.form == "json":
        out.record({"lines": verdict.lines, "problem": verdict.problem})
    elif verdict.problem is None:
        out.line(f"{verdict.lines} lines, each as it was written")
    if verdict.problem is not None:
        raise RetrError(f"{verdict.problem}; the {verdict.lines} lines before are as they were written")


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn runs the application; raise `UsageError` where the certificate cannot be used."""
    import uvicorn

    from retr.serve.protocol import TimedProtocol

    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.certificate_key,
        server_header=False,
        # paths hold ids
        access_log=False,
        log_level="warning",
        timeout_keep_alive=20,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=1 << 16,
        # what was asked before the end is answered
        timeout_graceful_shutdown=int(settings.answer_seconds) + 5,
    )
    try:
        config.load()
    except OSError as error:
        raise UsageError(
            f"the certificate and its key cannot be used: {error.strerror or error}",
            hint="both are PEM files that this user may read, and belong together",
        ) from None
    return config


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; raise `UsageError` where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # of a name that is none the number is negative
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(
            f"cannot listen on {host}, port {port}: {why}",
            hint="choose another --host or --port",
        ) from None


def _named(given: list[str]) -> dict[str, Path]:
    """Read ``NAME=DIR`` and ``DIR``; an index without a name is called as its folder is."""
    found: dict[str, Path] = {}
    for one in given or [""]:
        name, equals, folder = one.rpartition("=")
        path = find_index(Path(folder) if folder else None)
        if not equals:
            name = path.stem.lstrip(".") or path.resolve().parent.name
        if not name or "/" in name or name in found:
            raise UsageError(f"two indexes, or one without a name: {name!r}", hint="give --index NAME=DIR")
        found[name] = path
    return found
