"""The command `tokmigrate`: the table of its commands, and how errors are printed."""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer

from tokmigrate import __version__
from tokmigrate.cli.lazy_group import Entry, LazyGroup, postpone_imports
from tokmigrate.cli.output import MAKES_CHANGES, TRACEBACKS, Stream, capture_stream_errors, echo_err, print_error
from tokmigrate.cli.pager import PAGES
from tokmigrate.errors import EXIT_CODES, StoppedError, TokmigrateError, UsageError
from tokmigrate.files import storage_error
from tokmigrate.render.verbosity import VERBOSITY, Verbosity
from tokmigrate.signals import raise_keyboard_interrupt

COMMANDS = {
    "plan": Entry("Run", "plan", "Show what an upgrade would change, without writing anything.", pages=True),
    "upgrade": Entry("Run", "run", "Apply pending migrations to tokenizer and embeddings."),
    "downgrade": Entry("Run", "run", "Undo migrations down to a revision, byte for byte.", takes_negative=True),
    "stamp": Entry("Run", "run", "Record that an existing model is at a revision."),
    "tag": Entry("Run", "run", "Give a revision a name, or list all tags."),
    "evaluate": Entry("Train", "train", "Measure a model on text, before and after its migrations."),
    "train": Entry("Train", "train", "Train the rows of new tokens; write a migration with them."),
    "distil": Entry("Train", "train", "Distil the rows of new tokens from the model before them."),
    "bake": Entry("Train", "train", "Write an adapter's token rows into a migration of its model."),
    "peft-config": Entry("Train", "run", "Print peft's trainable_token_indices for untrained tokens."),
    "init": Entry("Author", "author", "Create a workspace with tokmigrate.yaml and migrations/."),
    "revision": Entry("Author", "author", "Write a new migration file after the head."),
    "learn": Entry("Author", "learn", "Learn from a corpus or a model which tokens to have."),
    "lock": Entry("Author", "author", "Update tokmigrate.lock; run it after you edit a migration."),
    "rebase": Entry("Author", "author", "Move unapplied migrations after the new head; update the lock."),
    "squash": Entry("Author", "author", "Replace a range of migrations with an equivalent one."),
    "schema": Entry("Author", "author", "Print the JSON Schema of a migration file."),
    "current": Entry("Inspect", "inspect", "Show the revision in each model's stamp."),
    "heads": Entry("Inspect", "inspect", "Show the heads of the migration history."),
    "history": Entry("Inspect", "inspect", "List migrations, newest first, with tags and models.", pages=True),
    "show": Entry("Inspect", "inspect", "Show one migration, and edits since it was applied.", pages=True),
    "status": Entry("Inspect", "inspect", "Show revision, pending migrations and rows of each model.", pages=True),
    "diff": Entry(
        "Inspect",
        "inspect",
        "Compare two tokenizers: tokens, ids, pipeline and templates.",
        takes_negative=True,
        pages=True,
    ),
    "log": Entry("Inspect", "audit", "List all runs, newest first, failed and undone ones included.", pages=True),
    "blame": Entry("Inspect", "audit", "Show a token's full history in each model.", pages=True),
    "report": Entry("Inspect", "audit", "Write an HTML page about each model."),
    "explain": Entry("Inspect", "explain", "Explain a rule, error, exit code, operation or init strategy.", pages=True),
    "validate": Entry("CI", "ci", "Check migration files and the lock; no model is needed."),
    "lint": Entry("CI", "ci", "Check migrations against the lint rules."),
    "check": Entry("CI", "ci", "Exit with 0 if up to date, 3 if pending, 4 on drift."),
    "verify": Entry("CI", "inspect", "Compare each model with its stamp byte for byte, and load it."),
    "test": Entry("CI", "ci", "Run migrations up, down and up on a copy, and compare bytes."),
    "recover": Entry("Maintain", "audit", "Finish or undo what an interrupted command left."),
    "doctor": Entry("Maintain", "doctor", "Show versions, extras, the state, and what filesystems can do."),
    "restore": Entry("Maintain", "audit", "Restore a migration file as it was applied."),
    "import": Entry("Maintain", "audit", "Import the ledger of another workspace."),
}
"""Every command, in the order of the help. The docstring of its function begins with the same sentence."""

_USE = "use `tokmigrate {}`"
ELSEWHERE = {
    **dict.fromkeys(("migrate", "up", "apply", "update", "run"), _USE.format("upgrade")),
    **dict.fromkeys(("down", "revert", "rollback", "undo"), _USE.format("downgrade -1")),
    **dict.fromkeys(
        ("new", "create", "generate", "add", "makemigrations", "make"), _USE.format('revision -m "What it is for"')
    ),
    **dict.fromkeys(("list", "ls", "showmigrations", "branches"), _USE.format("history")),
    **dict.fromkeys(("info", "state"), _USE.format("status")),
    **dict.fromkeys(("dry-run", "preview", "sql", "sqlmigrate"), _USE.format("plan")),
    **dict.fromkeys(("repair", "fix", "unlock"), _USE.format("recover")),
    "merge": "use `tokmigrate rebase`: it puts one branch after the other and names what both change",
    "edit": "open the file in your editor, then run `tokmigrate lock`",
}
"""The commands of other migration tools, and of earlier versions, with what to use here."""

_MISSING = {
    "tokmigrate downgrade": "`tokmigrate downgrade -1` undoes the last migration, `tokmigrate downgrade base` all of "
    "them; `tokmigrate history` lists the revisions that can be named",
}
"""What to do where the argument of a command is missing, if its help is not enough."""

_WORDINGS = (
    ("Value error, ", ""),
    ("Input should be a valid integer.*", "expected a whole number"),
    ("Input should be a valid number.*", "expected a number"),
    ("Input should ", "has to "),
)


class _Commands(LazyGroup):
    entries = COMMANDS


app = typer.Typer(
    name="tokmigrate",
    cls=_Commands,
    help="Migrate tokenizers: apply ordered token changes to tokenizer and embedding matrix together, and undo them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}. "
    "`tokmigrate explain 4` says what to do about one.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokmigrate {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print results and errors only: no notes, no progress."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Print each step with its time to stderr."),
    no_pager: bool = typer.Option(False, "--no-pager", help="Use no pager for output longer than the terminal."),
    debug: bool = typer.Option(False, "--debug", help="Print errors with their traceback."),
) -> None:
    pass


def _usage_error(error: typer.TyperException) -> UsageError:
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "tokmigrate"
    hint, message = f"`{command} --help` shows what it takes", error.format_message()
    if getattr(error, "option_name", None) == "-m":
        hint = "-M NAME is for a model, -m TEXT for a message"
    if message.startswith("Missing argument"):
        hint = _MISSING.get(command, hint)
    unknown = re.match(r"No such command '(.+?)'", message)
    if unknown:
        hint = ELSEWHERE.get(unknown[1], hint)
    for pattern, replacement in _WORDINGS:
        message = re.sub(pattern, replacement, message)
    return UsageError(message, hint=hint)


COMMON_OPTIONS: dict[str, tuple[ContextVar[Any], object]] = {
    **dict.fromkeys(("--quiet", "-q"), (VERBOSITY, Verbosity.QUIET)),
    **dict.fromkeys(("--verbose", "-v"), (VERBOSITY, Verbosity.VERBOSE)),
    "--no-pager": (PAGES, False),
    "--debug": (TRACEBACKS, True),
}
"""What each option of `_common` sets; they hold for every command, and may stand after it."""


def _take_common(arguments: list[str]) -> list[str]:
    """Return the arguments without the common options before `--`, after setting what they say."""
    VERBOSITY.set(Verbosity.NORMAL)
    PAGES.set(True)
    TRACEBACKS.set(False)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for variable, value in (COMMON_OPTIONS[word] for word in arguments[:end] if word in COMMON_OPTIONS):
        variable.set(value)
    return [word for word in arguments[:end] if word not in COMMON_OPTIONS] + arguments[end:]


def main() -> None:
    """Run the command line; errors become messages and exit codes, and come with a traceback only with --debug."""
    # A vocabulary is a million objects without cycles: the usual number of collections takes a fifth of the time.
    gc.set_threshold(400_000)
    # At the end of the process a last collection would only look at all that was imported.
    atexit.register(gc.freeze)
    arguments = _take_common(sys.argv[1:])
    as_json = "--json" in arguments
    started = time.monotonic()
    MAKES_CHANGES.set(False)
    with (
        postpone_imports("numpy"),
        postpone_imports("sqlalchemy"),
        postpone_imports("tokmigrate.state.*"),
        capture_stream_errors() as (out, _),
        raise_keyboard_interrupt(),
    ):
        code = _exit_code(arguments, as_json, out)
        out.release()
        if VERBOSITY.get() is Verbosity.VERBOSE:
            echo_err(f"exit code {code} after {time.monotonic() - started:.2f} s")
        out.flush()
        if out.error:
            remains = "; what the command did is done" if MAKES_CHANGES.get() and not code else ""
            # A reader that has seen enough, such as `head`, is no error where nothing was changed.
            if MAKES_CHANGES.get() or not out.lost_reader:
                echo_err(f"error: the output could not be written: {out.error}{remains}")
            # A command that only prints has failed then; one that changed something has not.
            code = code or (0 if MAKES_CHANGES.get() else TokmigrateError.exit_code)
    sys.exit(code)


def _exit_code(arguments: list[str], as_json: bool, out: Stream) -> int:
    try:
        try:
            status = app(args=arguments, prog_name="tokmigrate", standalone_mode=False)
        finally:
            out.release()
        # Typer turns an interrupt into an exit without a message.
        failure = _explain(KeyboardInterrupt()) if status == StoppedError.exit_code else None
    except (Exception, KeyboardInterrupt) as error:
        failure = _explain(error)
        if isinstance(error, typer.TyperException) and not arguments:
            # Without arguments the help is printed, and there is nothing to add.
            return failure.exit_code
    if failure is None:
        return status if isinstance(status, int) else 0
    print_error(failure, as_json)
    return failure.exit_code


def _explain(error: BaseException) -> TokmigrateError:
    match error:
        case TokmigrateError():
            return error
        case typer.TyperException():
            found: TokmigrateError = _usage_error(error)
        case typer.Abort() | KeyboardInterrupt():
            hint = "`tokmigrate status` shows each model; `tokmigrate recover` finishes or undoes what may be left"
            found = StoppedError("stopped", hint=hint)
        case OSError():
            where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
            found = storage_error("go on", where, error)
        case _:
            found = TokmigrateError(
                f"an error in tokmigrate itself: {type(error).__name__}: {error}",
                hint="run it again with --debug and report what it prints",
            )
    found.__cause__ = error
    return found


if __name__ == "__main__":
    main()
