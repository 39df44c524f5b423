"""``retr``: the root command. Importing this module loads no numpy, pyarrow, faiss or torch."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated

import typer

from retr.cli import (
    _errors,
    _once,
    _streams,
    adapt,
    align,
    bench,
    calibrate,
    classify,
    duplicates,
    encoders,
    evaluate,
    index,
    query,
    serve,
    tune,
    vectors,
)
from retr.retrieval.visible_text import visible

app = typer.Typer(
    name="retr",
    help="Search a medical image archive by picture, by words, or both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
index.app.command("duplicates")(duplicates.duplicates)
index.app.command("leaks")(duplicates.leaks)
index.app.command("tune")(tune.tune)
index.app.command("import")(vectors.import_)
index.app.command("export")(vectors.export)
app.add_typer(index.app, name="index")
app.add_typer(encoders.app, name="encoders")
app.add_typer(evaluate.app, name="eval")
app.command("query")(query.query)
app.command("show")(query.show)
app.command("classify")(classify.classify)
app.command("calibrate")(calibrate.calibrate)
app.command("align")(align.align)
app.command("adapt")(adapt.adapt)
app.add_typer(bench.app, name="bench")
app.command("serve")(serve.serve)
app.command("token")(serve.token)
app.add_typer(serve.audit_app, name="audit")
_once.count(app)


def _version(asked: bool) -> None:
    if asked:
        import retr

        sys.stdout.write(f"retr {retr.__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search a medical image archive by picture, by words, or both."""


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code (the console script's entry point)."""
    _streams.prepare()
    _errors.listen()
    # what a wait is for (`retr.index.machine.waiting`)
    logger = logging.getLogger("retr")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logger.addHandler(handler)
    code = _errors.run(lambda: app(args=args, standalone_mode=False))
    # nothing is left to clean up after: a last Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
