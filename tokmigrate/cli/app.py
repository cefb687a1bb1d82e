"""The command `tokmigrate`: parse, call, render. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys

import click
import typer

from tokmigrate.cli import author, look, operate, run
from tokmigrate.cli.output import print_error
from tokmigrate.errors import TokmigrateError, UsageError

app = typer.Typer(
    name="tokmigrate",
    help="Schema migrations for tokenizers: token changes as ordered files, applied to tokenizer and embedding "
    "matrix together, and undone to the exact bytes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done; 1 failed, nothing changed; 2 usage; 3 pending migrations; 4 drift or tampering; "
    "5 locked, or recovery needed.",
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


for group in (author, look, run, operate):
    group.register(app)


def main() -> None:
    """Run the command line; errors become messages and exit codes, and a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        status = app(args=[word for word in arguments if word != "--debug"], standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except TokmigrateError as error:
        if debug:
            raise
        print_error(error, as_json)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as error:
        if as_json:
            print_error(UsageError(error.format_message(), hint="tokmigrate --help"), as_json)
        else:
            error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print_error(TokmigrateError("stopped; what was under way is undone by the next command"), as_json)
        sys.exit(1)
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
