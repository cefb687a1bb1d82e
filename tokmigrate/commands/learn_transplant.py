"""Computes how rows for another model's tokenizer are sums of a model's own, and writes the migration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokmigrate import __version__
from tokmigrate.commands.diff import Side as TokenizerSide
from tokmigrate.commands.diff import side_of
from tokmigrate.commands.transplant_sums import Method, Tokens, check_method, compute_sums
from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.files import has_file
from tokmigrate.init.coefficients import Terms, write_coefficients
from tokmigrate.model.documents.declared import Documents, state_without_weights
from tokmigrate.model.documents.reading import read_tokenizer_files
from tokmigrate.model.documents.state import CONFIG
from tokmigrate.model.dummy_model import lacks_weights
from tokmigrate.model.tokenizer.tokenizer_json import FILE, view
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.operations.operation import Context
from tokmigrate.operations.registry import operation_types
from tokmigrate.operations.transplant import match_documents
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.row_edit import Side


@dataclass(frozen=True)
class LearnedTransplant:
    """Coefficients for the tokens of another tokenizer, and the migration that takes it.

    Args:
        path: The migration; `coefficients`, of `size` bytes, and the directory `tokenizer` are beside it; without new
            rows there are no coefficients.
        kept: How many tokens keep a row; `copied` how many are second spellings of one.
        new: How many get a row that is a sum.
        left_out: How many shared tokens are under-trained, and in no sum; None where the method asks nothing of that.
        rare: How many new tokens are too rare in the corpus, and get the mean of their subtokens; None without one.
        error: The mean share of the length of the other model's rows that the sums leave over, by the side.
    """

    path: Path
    coefficients: Path | None
    size: int
    tokenizer: Path
    kept: int
    copied: int
    new: int
    left_out: int | None
    rare: int | None
    error: Mapping[Side, float]


def learn_transplant(
    workspace: Workspace,
    side: TokenizerSide,
    entry: ModelEntry,
    donor: Path,
    method: Method,
    most: int,
    message: str,
    *,
    corpus: Corpus | None = None,
    template: Literal["keep", "donor"] = "keep",
    on_progress: OnProgress = no_progress,
) -> LearnedTransplant:
    """Compute the rows of another model's tokenizer as sums of a model's own, and write a migration that takes it.

    It is planned on the tokenizer's files before it is written. Nothing of the other model's weights is written.

    Args:
        side: The tokenizer of the model `entry` at the head.
        donor: The other model; `omp` needs its weights, the other methods its tokenizer only.
        method: `omp` writes the other model's row of a new token as a sum of its rows of shared tokens; `focus` adds up
            the shared tokens that occur in like places of the corpus; `subtokens` takes the mean of the tokens that the
            new one's text is made of.
        most: How many rows `omp` and `focus` add up at most.
        corpus: The texts that `focus` reads, and no other method.

    Raises:
        UsageError: The other model has no weights for `omp`; for `focus` the corpus is missing, or gensim; the two have
            no token in common that is trained, and in the corpus if there is one.
        FileProblems: A file of the corpus is not text.
        ModelError: The other model cannot be read.
        OperationError: The model cannot have that tokenizer.
    """
    check_method(method, corpus)
    files, documents = _read_donor(donor, method)
    state, new = state_without_weights(side.documents, 0), view(documents[FILE]).check()
    folder, name = (file_name(workspace, message, suffix) for suffix in (".tokenizer", ".safetensors"))
    attached = {f"{folder}/{file}": data for file, data in files.items()}
    kind = operation_types()["transplant"]
    fields = {"tokenizer": folder, "acknowledge": "breaking"} | ({"template": template} if template != "keep" else {})
    # What the model cannot have is known before anything is computed.
    kind.model_validate(fields).with_listed(attached).apply(state, Context("0000"))
    match = match_documents(state, documents)
    rows = {number: row for row, number in match.kept.items()}
    left = [number for number in sorted(new.texts) if number not in rows and number not in match.copied]
    tokens = Tokens(state.tokenizer, new, rows, left)
    sums = compute_sums(workspace, entry, donor, tokens, method, most, corpus, on_progress)
    copies: Terms = {number: ([row], [1.0]) for number, row in match.copied.items()}
    if left or copies:
        terms = {which: {**held, **copies} for which, held in sums.sides.items()}
        said = {"method": method, "tokmigrate": __version__, "donor": new.fingerprint, **sums.said}
        attached[name] = write_coefficients(terms, state.tokenizer.texts, said)
        fields["coefficients"] = name
    operation = kind.model_validate(fields)
    operation.with_listed(attached).apply(state, Context("0000"))
    remarks = [
        f"The tokenizer of another model: {len(rows):,} tokens keep their rows, {len(match.copied):,} copy one, and"
        f" {len(left):,} get a sum of rows by {method}."
    ]
    path = write_yaml_migration(
        workspace, message, (operation,), remarks=remarks, models=side.models, attachments=attached
    )
    return LearnedTransplant(
        path=path,
        coefficients=path.parent / name if name in attached else None,
        size=len(attached.get(name, b"")),
        tokenizer=path.parent / folder,
        kept=len(rows),
        copied=len(copies),
        new=len(left),
        left_out=sums.left_out,
        rare=sums.rare,
        error=sums.error,
    )


def _read_donor(donor: Path, method: Method) -> tuple[dict[str, bytes], Documents]:
    """Return the bytes of the files of the other model's tokenizer, and what they hold."""
    files = read_tokenizer_files(donor)
    documents = {name: held for name, held in side_of(donor).documents.items() if name in files}
    if method == "omp" and (not has_file(donor / CONFIG) or lacks_weights(donor)):
        hint = "choose --method subtokens or focus, which need its tokenizer only"
        raise UsageError("the other model has no weights here", where=str(donor), hint=hint)
    return files, documents
