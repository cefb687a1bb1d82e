"""The command `tokmigrate`: parse, call, render. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import gc
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from tokmigrate.cli import audit, author, compare, gate, look, operate, page, run, stamp, team
from tokmigrate.cli.output import TRACEBACKS, print_error, say_aside
from tokmigrate.cli.streams import CHANGES_SOMETHING, kept_errors
from tokmigrate.errors import EXIT_CODES, StoppedError, TokmigrateError, UsageError
from tokmigrate.files import storage_error
from tokmigrate.signals import ended_like_ctrl_c

ELSEWHERE = {
    **dict.fromkeys(("migrate", "up", "apply", "update", "run"), "upgrade"),
    **dict.fromkeys(("down", "revert"), "downgrade -1"),
    **dict.fromkeys(("rollback", "undo"), "downgrade -1"),
    **dict.fromkeys(("new", "create", "generate", "add", "makemigrations", "make"), 'revision -m "What it is for"'),
    **dict.fromkeys(("list", "ls", "showmigrations", "branches"), "history"),
    **dict.fromkeys(("info", "state"), "status"),
    **dict.fromkeys(("dry-run", "preview", "sql", "sqlmigrate"), "plan"),
    **dict.fromkeys(("repair", "fix", "unlock"), "recover"),
    "merge": "rebase",
    "edit": "lock",
}
"""The commands that other tools for migrations have, and the command to use here."""

_WORDINGS = (
    ("Value error, ", ""),
    ("Input should be a valid integer.*", "expected a whole number"),
    ("Input should be a valid number.*", "expected a number"),
    ("Input should ", "has to "),
)


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    """Return parameters of which the help says no type where they take no value."""
    for each in parameters:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return parameters


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))


app = typer.Typer(
    name="tokmigrate",
    cls=_Group,
    help="Schema migrations for tokenizers: token changes as ordered files, applied to tokenizer and embedding "
    "matrix together, and undone to the exact bytes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tokmigrate import __version__  # noqa: PLC0415

        typer.echo(f"tokmigrate {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(
        False, "--debug", help="Before or behind a command: an error comes with its traceback, on stderr."
    ),
) -> None:
    pass


def in_paragraphs(text: str | None) -> str:
    """Return a text with a line for each paragraph: the terminal decides where lines end."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n"))


# Who asks for help sees the groups in this order.
for group in (run, stamp, author, look, audit, compare, page, gate, team, operate):
    group.register(app)
for command in app.registered_commands:
    command.cls = _Command
    command.help = in_paragraphs(inspect.getdoc(inspect.unwrap(command.callback)) if command.callback else None)


def _status(arguments: list[str]) -> int:
    status = app(args=arguments, prog_name="tokmigrate", standalone_mode=False)
    if status == StoppedError.exit_code:
        # Typer makes an exit of it, without a word.
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _wrong_usage(error: typer.TyperException) -> UsageError:
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "tokmigrate"
    hint = f"`{command} --help` shows what it takes"
    if getattr(error, "option_name", None) == "-m":
        hint = "-M NAME is for a model, -m TEXT for a message"
    unknown = re.match(r"No such command '(.+?)'", error.format_message())
    if unknown and unknown[1] in ELSEWHERE:
        before = "open the file in your editor, then " if unknown[1] == "edit" else ""
        hint = f"{before}use `tokmigrate {ELSEWHERE[unknown[1]]}`"
    usage = UsageError(_worded(error.format_message()), hint=hint)
    usage.__cause__ = error
    return usage


def _worded(message: str) -> str:
    """Return what the parser of the command line found, in the words of all other messages."""
    for found, said in _WORDINGS:
        message = re.sub(found, said, message)
    return message


def _without_debug(arguments: list[str]) -> list[str]:
    """Return the arguments without --debug, which may stand anywhere before `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [word for word in arguments[:end] if word != "--debug"] + arguments[end:]


def main() -> None:
    """Run the command line; errors become messages and exit codes, and come with a traceback only with --debug."""
    # A vocabulary is a million objects and no cycle: looking for cycles as often as usual takes a fifth of the time.
    gc.set_threshold(100_000)
    arguments = _without_debug(sys.argv[1:])
    as_json = "--json" in arguments
    TRACEBACKS.set(len(arguments) < len(sys.argv[1:]))
    CHANGES_SOMETHING.set(False)
    with kept_errors() as (out, _), ended_like_ctrl_c():
        code = _exit_code(arguments, as_json)
        out.flush()
        if out.error:
            say_aside(f"error: the output could not be written: {out.error}{_what_stays(code)}")
            # What only says something has failed then; what does something has not.
            code = code or (0 if CHANGES_SOMETHING.get() else TokmigrateError.exit_code)
    sys.exit(code)


def _what_stays(code: int) -> str:
    return "; what the command did is done" if CHANGES_SOMETHING.get() and not code else ""


def _exit_code(arguments: list[str], as_json: bool) -> int:
    """Run a command, tell its error, and return the exit code."""
    try:
        return _status(arguments)
    except TokmigrateError as error:
        print_error(error, as_json)
        return error.exit_code
    except typer.TyperException as error:
        # Without any word it is the help that was shown, and there is nothing to add.
        if arguments:
            print_error(_wrong_usage(error), as_json)
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        hint = "`tokmigrate status` says where each model is; `tokmigrate recover` finishes or undoes what may be left"
        print_error(StoppedError("stopped", hint=hint), as_json)
        return StoppedError.exit_code
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        failure: TokmigrateError = storage_error("go on", where, error)
        failure.__cause__ = error
        print_error(failure, as_json)
        return failure.exit_code
    except Exception as error:
        failure = TokmigrateError(
            f"an error in tokmigrate itself: {type(error).__name__}: {error}",
            hint="run it again with --debug and report what it prints",
        )
        failure.__cause__ = error
        print_error(failure, as_json)
        return failure.exit_code


if __name__ == "__main__":
    main()
