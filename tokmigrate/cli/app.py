"""The command `tokmigrate`: parse, call, render. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import re
import sys

import typer

from tokmigrate.cli import audit, author, compare, gate, look, operate, page, run, stamp, team
from tokmigrate.cli.output import print_error
from tokmigrate.errors import TokmigrateError, UsageError

_WORDINGS = (
    ("Value error, ", ""),
    ("Input should be a valid integer.*", "expected a whole number"),
    ("Input should be a valid number.*", "expected a number"),
    ("Input should ", "has to "),
)

# What a shell expects of a program that Ctrl-C ended.
_INTERRUPTED = 130

app = typer.Typer(
    name="tokmigrate",
    help="Schema migrations for tokenizers: token changes as ordered files, applied to tokenizer and embedding "
    "matrix together, and undone to the exact bytes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done; 1 failed, nothing changed; 2 usage; 4 drift or tampering; 5 locked, or recovery "
    "needed. With --debug, an error comes with its traceback.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tokmigrate import __version__  # noqa: PLC0415

        typer.echo(f"tokmigrate {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


for group in (author, look, audit, run, stamp, operate, compare, gate, team, page):
    group.register(app)


def _status(arguments: list[str]) -> int:
    status = app(args=arguments, prog_name="tokmigrate", standalone_mode=False)
    if status == _INTERRUPTED:
        # Typer makes an exit of it, without a word.
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _wrong_usage(error: typer.TyperException) -> UsageError:
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "tokmigrate"
    return UsageError(_worded(error.format_message()), hint=f"`{command} --help` shows what it takes")


def _worded(message: str) -> str:
    """Return what the parser of the command line found, in the words of all other messages."""
    for found, said in _WORDINGS:
        message = re.sub(found, said, message)
    return message


def main() -> None:
    """Run the command line; errors become messages and exit codes, and a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        sys.exit(_status([word for word in arguments if word != "--debug"]))
    except TokmigrateError as error:
        if debug:
            raise
        print_error(error, as_json)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        # Without any word it is the help that was shown, and there is nothing to add.
        if arguments:
            print_error(_wrong_usage(error), as_json)
        sys.exit(UsageError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        hint = "`tokmigrate recover` finishes or undoes what was under way"
        print_error(TokmigrateError("stopped", hint=hint), as_json)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        failure = TokmigrateError(
            f"an error in tokmigrate itself: {type(error).__name__}: {error}",
            hint="run it again with --debug and report what it prints",
        )
        print_error(failure, as_json)
        sys.exit(1)


if __name__ == "__main__":
    main()
