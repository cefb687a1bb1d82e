"""Commands for those who ask what became of models and tokens: blame, peft-config."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.each import document_each
from tokmigrate.cli.options import AsJson, Models, selected, workspace
from tokmigrate.cli.output import print_json, show

if TYPE_CHECKING:
    from tokmigrate.audit.lora import LoraRows


def blame(
    token: Annotated[
        str | None, typer.Argument(help="A token's text, now or once; escapes such as \\n are understood.")
    ] = None,
    number: Annotated[int | None, typer.Option("--id", help="Ask by id instead.", min=0, metavar="ID")] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Show the whole life of a token in each model: what befell it, by which line of which migration, who, when.

    It is followed under all its names. The line's author is Git's; the runs are those of the ledger.
    """
    from tokmigrate.audit.blame import blame_id, blame_text  # noqa: PLC0415
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report import blame as report  # noqa: PLC0415
    from tokmigrate.report.machine import document  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    if token is not None and number is None:
        found = blame_text(place, entries, token)
    elif number is not None and token is None:
        found = blame_id(place, entries, number)
    else:
        raise UsageError("blame takes a token's text or --id", hint='for example: tokmigrate blame "<|im_start|>"')
    if as_json:
        print_json(document("blame", models=[report.blame_content(each) for each in found]))
        return
    for each in found:
        show(report.blame_text(each))


def peft_config(model: Models = None, as_json: AsJson = False) -> None:
    """Print the `trainable_token_indices` of a LoRA run that trains the rows of tokens that were never trained.

    The JSON is an argument of peft's LoraConfig: `LoraConfig(**json.load(file), r=16, …)`. Layers are named as peft
    finds them; a model that does not tie its embeddings has its head listed too. With --json one document tells of
    all models.
    """
    from tokmigrate.audit.lora import lora_rows  # noqa: PLC0415
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.training import lora_content  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    act = partial(lora_rows, place)
    if as_json:
        document_each("peft-config", entries, act, lora_content)
        return
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError("a LoRA run is for one model", hint=f"name it: --model; there are {names}")
    found = act(entries[0])
    print_json({"trainable_token_indices": found.indices or None})
    _say_left_out(found)


def _say_left_out(found: LoraRows) -> None:
    if not found.indices:
        sys.stderr.write(f"note: {found.model}: no token is known to be untrained\n")
    if found.unknown:
        sys.stderr.write(f"warning: {found.model}: {found.unknown} tokens are left out, {found.why}\n")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Look")(blame)
    app.command("peft-config", rich_help_panel="Run")(peft_config)
