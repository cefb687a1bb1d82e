"""Commands that learn from a corpus or a model and write a migration: extend, prune, transplant and reinit."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.lazy_group import Command
from tokmigrate.cli.options import AsJson, Corpus, Field, Message, complete_model, open_workspace_for_writing
from tokmigrate.commands import diff as compare
from tokmigrate.commands import learn_extend as extending
from tokmigrate.commands import learn_prune as pruning
from tokmigrate.commands import learn_reinit as reinitialising
from tokmigrate.commands import learn_transplant as transplanting
from tokmigrate.commands import lock as locking
from tokmigrate.commands import token_selection
from tokmigrate.errors import UsageError
from tokmigrate.model.worker import corpora
from tokmigrate.operations import token_choice
from tokmigrate.render import learn as learn_report
from tokmigrate.render import terminal
from tokmigrate.revision import lock_file, new_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokmigrate.settings import ModelEntry, Workspace

learn = typer.Typer(rich_markup_mode="rich")

_TOKENS = "FILE|re:PATTERN|script:NAME|preset:NAME"

Model = Annotated[
    str | None,
    Option(
        "--model",
        "-M",
        help="Learn for the tokenizer of this model, as planned at the head.",
        metavar="NAME|DIR",
        autocompletion=complete_model,
    ),
]


@learn.command(cls=Command, help="Learn merges from a corpus, and write a migration for them.")
def extend(
    corpus: Corpus,
    tokens: Annotated[int, Option("--tokens", help="Learn so many new tokens.", metavar="N", min=1)],
    message: Message,
    model: Model = None,
    field: Field = None,
    min_count: Annotated[
        int, Option("--min-count", help="Learn a merge only if it applies so often.", metavar="K", min=1)
    ] = 2,
    max_length: Annotated[
        int, Option("--max-length", help="Learn no token with more letters.", metavar="N", min=2)
    ] = 24,
    script: Annotated[
        list[str] | None,
        Option("--script", help="Learn only tokens of this script, such as Arabic; repeatable.", metavar="NAME"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn merges from a corpus, and write a migration for them.

    The tokenizer, a BPE, goes on to learn where it is: the most frequent pair of neighbouring tokens of a word becomes
    a token, again and again. The migration appends the merges behind all others (extend_vocab), so old text keeps its
    tokens or has fewer. Every tenth text of a file is held out, and the tokens that the merges save there are shown.
    """
    with (
        _open_for_learning(model, message) as (workspace, _, side),
        corpora.open_corpus(corpus, field) as texts,
        terminal.progress() as on_progress,
    ):
        limits = extending.MergeLimits(min_count, max_length, script or ())
        learned = extending.learn_extension(
            workspace, side, texts, tokens, message, limits=limits, on_progress=on_progress
        )
    print_result(
        "learn extend", Result(learn_report.merges_content(learned), learn_report.merges_text(learned)), as_json
    )


@contextmanager
def _open_for_learning(model: str | None, message: str) -> Iterator[tuple[Workspace, ModelEntry, compare.Side]]:
    """Give the workspace, a model and its tokenizer at the head; lock the migration that is written for it."""
    new_file.check_message(message)
    workspace = open_workspace_for_writing()
    known = lock_file.read_lock(workspace)
    if not model and len(workspace.models) != 1:
        raise UsageError("the workspace has several models", hint="name the one to learn for: --model NAME")
    word = model or next(iter(workspace.models))
    (entry,) = workspace.select([word])
    yield workspace, entry, compare.side_at_head(workspace, word)
    locking.lock_head(workspace, known)


@learn.command(cls=Command, help="Choose the tokens that a corpus needs; write a migration.")
def prune(
    corpus: Corpus,
    message: Message,
    model: Model = None,
    field: Field = None,
    tokens: Annotated[int | None, Option("--tokens", help="Keep so many tokens.", metavar="N", min=1)] = None,
    coverage: Annotated[
        float | None,
        Option("--coverage", help="Keep this share of the tokens of the corpus.", metavar="SHARE", min=0.0, max=1.0),
    ] = None,
    min_count: Annotated[
        int | None, Option("--min-count", help="Keep the tokens that occur so often.", metavar="K", min=1)
    ] = None,
    unused: Annotated[bool, Option("--unused", help="Remove only the tokens that do not occur.")] = False,
    replace: Annotated[
        int | None, Option("--replace", help="Give the rows of so many tokens to new ones.", metavar="N", min=1)
    ] = None,
    keep: Annotated[
        list[str] | None, Option("--keep", help="Keep these tokens too; repeatable.", metavar=_TOKENS)
    ] = None,
    keep_text: Annotated[
        list[Path] | None, Option("--keep-text", help="Keep all tokens of this text; repeatable.", metavar="FILE")
    ] = None,
    drop: Annotated[
        list[str] | None, Option("--drop", help="Remove these tokens if they may go; repeatable.", metavar=_TOKENS)
    ] = None,
    weight: Annotated[
        list[str] | None,
        Option("--weight", help="Count the tokens of a file or directory so often; repeatable.", metavar="CORPUS=W"),
    ] = None,
    ids: Annotated[
        Literal["compact", "tombstone"] | None,
        Option("--ids", help="Move higher ids down, or keep all ids with placeholders.", show_default="compact"),
    ] = None,
    multiple_of: Annotated[
        int | None, Option("--multiple-of", help="Make the number of rows a multiple of this.", metavar="N", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose the tokens that a corpus needs; write a migration.

    The migration removes all other tokens. Letters, bytes, special and added tokens, and the tokens that files and chat
    templates name, stay anyhow. A token of a BPE is removed only when no token that stays is merged from it, so text
    that is made of kept tokens is tokenized as before. Every tenth text of a file is held out, and its tokens are
    counted before and after.

    `--keep` and `--drop` take a file with a token in each line, `re:PATTERN`, `script:Latin` (or several:
    `script:Han,Hiragana,Katakana`), or `preset:NAME` with one of alphanumeric, ascii_letters, ascii_printable, digits,
    punctuation, single_characters, whitespace. Patterns match the text that a token stands for. A token to drop stays
    if it has to, or is one to keep, or a token that stays is merged from it; the report counts these by reason.

    With `--replace N` the N rarest tokens go, those to drop first, and N new ones that the corpus has use for get their
    ids and rows, as `learn extend` learns them. All other ids stay, and so does the size of the matrix.
    """
    given = [tokens is not None, coverage is not None, min_count is not None, unused, replace is not None]
    if sum(given) > 1 or not (any(given) or drop):
        raise UsageError(
            "several options say how many tokens stay" if sum(given) > 1 else "how many tokens stay is not known",
            hint="give one of --tokens, --coverage, --min-count, --unused, --replace, or --drop",
        )
    if replace is not None and (ids is not None or multiple_of is not None):
        raise UsageError("with --replace ids and rows stay", hint="leave out --ids and --multiple-of")
    selection = token_selection.Selection(keep or (), drop or (), keep_text or ())
    wanted = token_choice.Wanted(tokens, 1 if unused else min_count, coverage)
    with (
        _open_for_learning(model, message) as (workspace, _, side),
        corpora.open_corpus(corpus, field, _read_weights(weight or [])) as texts,
        terminal.progress() as on_progress,
    ):
        if replace is not None:
            replaced = pruning.learn_replacement(
                workspace, side, texts, replace, message, selection, on_progress=on_progress
            )
            result = Result(learn_report.choice_content(replaced), learn_report.replacement_text(replaced))
        else:
            chosen = pruning.learn_removal(
                workspace,
                side,
                texts,
                wanted,
                message,
                selection,
                ids=ids or "compact",
                multiple_of=multiple_of,
                on_progress=on_progress,
            )
            result = Result(learn_report.choice_content(chosen), learn_report.removal_text(chosen))
    print_result("learn prune", result, as_json)


def _read_weights(words: list[str]) -> dict[str, float]:
    """Return how often the tokens of each file or directory count; raises UsageError for what is no `CORPUS=W`."""
    weights: dict[str, float] = {}
    for word in words:
        corpus, _, number = word.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not corpus or not 0 < weight < float("inf"):
            raise UsageError(
                f"'{word}' is no weight", hint="give a file or directory of the corpus: --weight news.txt=2"
            )
        weights[corpus] = int(weight) if weight.is_integer() else weight
    return weights


@learn.command(cls=Command, help="Write a migration that takes another model's tokenizer.")
def transplant(
    donor: Annotated[Path, Option("--donor", help="Use the tokenizer of this model.", metavar="DIR")],
    message: Message,
    model: Model = None,
    method: Annotated[
        Literal["omp", "focus", "subtokens"], Option("--method", help="Choose how new rows are made of old ones.")
    ] = "omp",
    most: Annotated[
        int, Option("-k", help="Use at most so many rows in a sum, with omp and focus.", metavar="K", min=1)
    ] = 64,
    corpus: Annotated[
        list[str] | None,
        Option("--corpus", help="Read the texts of this file or directory, with focus; repeatable.", metavar="CORPUS"),
    ] = None,
    field: Field = None,
    template: Annotated[
        Literal["keep", "donor"], Option("--template", help="Keep the chat template, or take the other model's.")
    ] = "keep",
    as_json: AsJson = False,
) -> None:
    """Write a migration that takes another model's tokenizer.

    Tokens that both models have keep their rows. With `omp`, orthogonal matching pursuit (arXiv 2506.06607), the other
    model's row of a new token is written as a sum of its rows of shared tokens, and the same sum of this model's rows
    is the new one. The other methods need no weights of it. With `focus` (arXiv 2305.14481) a new row is a weighted
    mean of the tokens that occur in like places of `--corpus`; it needs `pip install "tokmigrate[focus]"`. With
    `subtokens` it is the mean of the old tokens that its text is made of. The files of the tokenizer and the
    coefficients are written beside the migration, and no weights of the other model.
    """
    with (
        _open_for_learning(model, message) as (workspace, entry, side),
        corpora.open_corpus(corpus, field) if corpus else nullcontext() as texts,
        terminal.progress() as on_progress,
    ):
        learned = transplanting.learn_transplant(
            workspace,
            side,
            entry,
            donor,
            method,
            most,
            message,
            corpus=texts,
            template=template,
            on_progress=on_progress,
        )
    print_result(
        "learn transplant",
        Result(learn_report.transplant_content(learned), learn_report.transplant_text(learned)),
        as_json,
    )


@learn.command(cls=Command, help="List tokens that were never trained; write a migration.")
def reinit(
    message: Message,
    model: Model = None,
    shorter_than: Annotated[
        float,
        Option(
            "--shorter-than",
            help="List tokens whose rows have less than this share of the median norm.",
            metavar="SHARE",
            min=0.0,
            max=1.0,
        ),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """List tokens that were never trained; write a migration.

    The row of a token that no text had stays where it began, or weight decay takes it to zero. Tokens of the baseline
    whose input rows are that short are listed in a file beside the migration, and the migration initialises them again
    with the mean of all others (reinit_tokens). The padding token is left out. Weights are read, nothing is guessed:
    look at the list before you apply it, above all where --shorter-than is more than a few hundredths, and where
    embeddings are tied, since the softmax moves such rows too.
    """
    with _open_for_learning(model, message) as (workspace, entry, _):
        found = reinitialising.learn_reinit(workspace, entry, shorter_than, message)
    print_result("learn reinit", Result(vars(found), learn_report.reinit_text(found)), as_json)
