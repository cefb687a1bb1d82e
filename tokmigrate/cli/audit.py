"""Commands for those who ask what became of models and tokens: peft-config."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import typer

from tokmigrate.cli.each import document_each
from tokmigrate.cli.options import AsJson, Models, selected, workspace
from tokmigrate.cli.output import print_json

if TYPE_CHECKING:
    from tokmigrate.runner.audit import LoraRows


def peft_config(model: Models = None, as_json: AsJson = False) -> None:
    """Print the `trainable_token_indices` of a LoRA run that trains the rows of tokens that were never trained.

    The JSON is an argument of peft's LoraConfig: `LoraConfig(**json.load(file), r=16, …)`. Layers are named as peft
    finds them; a model that does not tie its embeddings has its head listed too. With --json one document tells of
    all models.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.training import lora_content  # noqa: PLC0415
    from tokmigrate.runner.audit import lora_rows  # noqa: PLC0415

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
    app.command("peft-config", rich_help_panel="Run")(peft_config)
