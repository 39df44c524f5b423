"""``retr``: the root command. Importing this module loads no numpy, pyarrow, faiss or torch."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from retr.cli import _errors, _loudness, _streams
from retr.cli._lazy import LazyCommand, group
from retr.cli._once import Root
from retr.index.errors import UsageError
from retr.system import misread

# a shell that completes a word asks in this variable (`retr completion`)
COMPLETE = "_RETR_COMPLETE"


def _version(asked: bool) -> None:
    if asked:
        import retr

        sys.stdout.write(f"retr {retr.__version__}\n")
        raise typer.Exit


def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search a medical image archive by picture, by words, or both."""


app = group(
    "retr",
    "Search a medical image archive by picture, by words, or both.",
    [
        LazyCommand("query", "query:query", "Find the images most like an image, words, a row, or a mix."),
        LazyCommand("show", "query:show", "Show everything an index holds of one row."),
        LazyCommand("classify", "classify:classify", "Name what images show, and say how sure that is."),
        LazyCommand(
            "calibrate", "calibrate:calibrate", "Measure how far the answers of `retr classify` can be trusted."
        ),
        LazyCommand("align", "align:align", "Let --text work on an index whose encoder has images only."),
        LazyCommand("adapt", "adapt:adapt", "Write an index in which rows of one class lie closer together."),
        group(
            "sets",
            "Named sets of rows: label them, ask their questions again, hand them on.",
            [
                LazyCommand("ls", "sets:ls", "List the sets of an index."),
                LazyCommand("show", "sets:show", "Show the rows of a set, with their labels."),
                LazyCommand("add", "sets:add", "Put rows into a set."),
                LazyCommand("label", "sets:label", "Label rows of a set, or take a label away."),
                LazyCommand("reopen", "sets:reopen", "Ask the question of a set again, and say what is new."),
                LazyCommand("export", "sets:export", "Write a set as a table, or as a folder of copies."),
                LazyCommand("rm", "sets:remove", "Take rows out of a set, or the set away."),
            ],
        ),
        LazyCommand("map", "map:map_", "Make a map of the archive, or give new rows a place on it."),
        LazyCommand(
            "serve",
            "serve:serve",
            "Serve indexes over HTTP, and a page to look at them, to this machine or, with tokens, to others.",
        ),
        LazyCommand("mcp", "mcp:mcp", "Let agents search an index, over the Model Context Protocol."),
        LazyCommand("token", "serve:token", "Make a token for `retr serve`, and print it this once."),
        group(
            "index",
            "Make, look at and change an index.",
            [
                LazyCommand("build", "build:build", "Embed an archive into an index, or bring an index up to date."),
                LazyCommand("merge", "build:merge", "Make an index of the parts that --part built, in one commit."),
                LazyCommand("add", "build:add", "Embed a further folder, or one image, into an existing index."),
                LazyCommand("delete", "index:delete", "Delete rows by id or by a condition."),
                LazyCommand("info", "index:info", "Show what an index holds: rows, encoder, columns, size."),
                LazyCommand("ls", "rows:list_rows", "List the rows of an index."),
                LazyCommand("sql", "sql:sql", "Ask an index's rows in SQL."),
                LazyCommand("group", "declare:group", "Declare the column that tells patients apart, or show it."),
                LazyCommand(
                    "item", "declare:item", "Declare what a case is, whose rows are compared together, or show it."
                ),
                LazyCommand("check", "index:check", "Check that every file of an index is as it was written."),
                LazyCommand("compact", "index:compact", "Merge segments and drop deleted rows from disk."),
                LazyCommand(
                    "shard", "index:shard", "Spread the rows of an index over several folders, or back into one."
                ),
                LazyCommand(
                    "refit",
                    "index:refit",
                    "Fit the transform of an index again on all its rows, or a first one.",
                ),
                LazyCommand(
                    "reembed",
                    "index:reembed",
                    "Move an index to another encoder; ids, metadata and groups stay.",
                ),
                LazyCommand("regions", "regions:regions", "Add regions to an index: vectors of parts of its pictures."),
                LazyCommand(
                    "words",
                    "words:words",
                    "Keep the words of text columns, so that a search by words need not read the texts.",
                ),
                LazyCommand("duplicates", "duplicates:duplicates", "List rows that show the same picture."),
                LazyCommand("leaks", "duplicates:leaks", "List patients and duplicates that cross a train/test split."),
                LazyCommand("outliers", "curation:outliers", "List the rows that are most unlike the archive."),
                LazyCommand("suspects", "curation:suspects", "List the rows whose label is most likely wrong."),
                LazyCommand("sample", "curation:sample", "Choose the rows to annotate first."),
                LazyCommand("tune", "tune:tune", "Make search in a large archive fast, at a measured recall."),
                LazyCommand("push", "stores:push", "Bring an index up to date in an object store."),
                LazyCommand(
                    "pull", "stores:pull", "Bring an index down from an object store, or a copy of it up to date."
                ),
                LazyCommand("import", "vectors:import_", "Make an index of vectors that were made elsewhere."),
                LazyCommand("export", "vectors:export", "Write vectors and metadata for other programs."),
            ],
        ),
        group(
            "encoders",
            "Encoders: what there is, what it needs, whether it works here.",
            [
                LazyCommand("ls", "encoders:ls", "List the encoders, and whether their weights are here."),
                LazyCommand(
                    "info",
                    "encoders:info",
                    "Tell what an encoder is, what it costs, what it needs and where to get it.",
                ),
                LazyCommand(
                    "compare", "encoders:compare", "Evaluate several encoders on one labelled folder, and their cost."
                ),
                LazyCommand("verify", "encoders:verify", "Check that an encoder still gives the vectors it gave."),
            ],
        ),
        group(
            "eval",
            "Measure an index on its own labelled rows, patients kept apart.",
            [
                LazyCommand(
                    "retrieval", "evaluate:retrieval", "Measure how many of the nearest rows share the query's class."
                ),
                LazyCommand("neighbours", "evaluate:neighbours", "Measure naming by a vote of the nearest rows."),
                LazyCommand("probe", "evaluate:probe", "Measure naming by logistic regression on the vectors."),
                LazyCommand("zero-shot", "evaluate:zero_shot", "Measure naming by words alone."),
                LazyCommand(
                    "graded", "words:graded", "Measure search against graded judgements in TREC's form, by nDCG."
                ),
                LazyCommand(
                    "text",
                    "words:text",
                    "Measure how well pictures find their own texts, and texts their own pictures.",
                ),
            ],
        ),
        group(
            "bench",
            "Run a published protocol beside a strict one, on your data.",
            [
                LazyCommand(
                    "retizero", "bench:retizero", "Run RetiZero's retrieval protocol as published, and strictly."
                ),
                LazyCommand(
                    "flair", "bench:flair", "Run FLAIR's evaluation: zero-shot, a linear probe, and a few shots."
                ),
                LazyCommand("kad", "bench:kad", "Run KAD's evaluation: zero-shot, each finding by itself."),
                LazyCommand("rad-dino", "bench:rad_dino", "Run RAD-DINO's evaluation: a linear probe."),
                LazyCommand("lvm-med", "bench:lvm_med", "Run LVM-Med's evaluation: a linear classifier, three runs."),
            ],
        ),
        LazyCommand("config", "config:config", "Show what is set in retr.toml, and where each value comes from."),
        LazyCommand("completion", "completion:completion", "Print what makes a shell complete the words of a command."),
        group(
            "audit",
            "Who asked a server what.",
            [
                LazyCommand(
                    "verify", "serve:verify", "Look for lines of an audit that were changed, dropped, put in or moved."
                ),
            ],
        ),
    ],
    callback=root,
    cls=Root,
)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code (the console script's entry point)."""
    _streams.prepare()
    _errors.listen()
    _loudness.show_log()
    if COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    code = _errors.run(lambda: _run(args))
    # nothing is left to clean up after: a last Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _run(args: list[str] | None) -> object:
    # a condition that is read as another text would match other rows, and nobody would see it
    if any(misread(text) for text in sys.argv[1:]):
        raise UsageError(
            f"what was typed is UTF-8, and the locale reads it as {sys.getfilesystemencoding()!r}",
            hint="set LC_ALL=C.UTF-8, or PYTHONUTF8=1, and run again",
        )
    return app(args=args, prog_name="retr", standalone_mode=False)
