"""Whether the libraries load what a model's documents say, before and after a change; no weights are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.apply.candidate import Documents, stage_files, stage_tokenizer
from tokmigrate.errors import StorageError, TokmigrateError, VerificationError
from tokmigrate.events import Thoroughness
from tokmigrate.files import has_file, read_file
from tokmigrate.model.documents.pipeline_overrides import loading_class
from tokmigrate.model.documents.reading import with_files
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import SECTIONS
from tokmigrate.model.weights.weights import WEIGHT_FILES
from tokmigrate.model.worker.samples import SAMPLES
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.parallel import BackgroundCall
from tokmigrate.revision.migration import Check, TextCheck, TokensPerByteAtMost

FAST = "`verify: fast` in tokmigrate.yaml loads with tokenizers only"

_OF_THE_MODEL = ("died", "model", "shapes")
"""The kinds of faults that are not the tokenizer's."""

_DOES = {"tokenizes": "tokenizes", "surrounds": "puts special tokens around", "decodes": "decodes the tokens of"}


def verify_documents(
    snapshot: Snapshot, documents: Documents, checks: Sequence[Check], thoroughness: Thoroughness
) -> tuple[str, ...]:
    """Load a model's files as a change leaves them, compare with what is loaded now, and return notes for the user.

    Raises:
        VerificationError: A library would load something else than the documents say.
    """
    if thoroughness == "fast":
        _check_with_tokenizers(snapshot, documents, checks)
        return ()
    after = _load(stage_files(snapshot, documents), snapshot, documents, checks)
    faults = after.faults()
    if not faults and not after.different and not _changes_pipeline(snapshot, documents):
        return ()
    now = Documents.unchanged(snapshot)
    before = _load_now(snapshot, now, with_model=not faults.keys().isdisjoint(_OF_THE_MODEL))
    _raise_first(faults, before.faults(), snapshot)
    return tuple(_compare(before, after, snapshot))


def collect_inputs(snapshot: Snapshot, documents: Documents) -> Iterator[object]:
    """Yield all that the libraries read of a model before and after a change, and may use for it."""
    yield snapshot.state.traits.worker
    yield {name: blake3(data).digest() for name, data in snapshot.texts.items()}
    yield {name: data and blake3(data).digest() for name, data in documents.files.items()}
    yield documents.shapes(snapshot), documents.rows, documents.tokenizer and documents.tokenizer.fingerprint
    # Without a model type transformers looks for one in the name of the directory.
    yield snapshot.state.traits.model_type or snapshot.directory
    yield from _describe_others(snapshot)


def _describe_others(snapshot: Snapshot) -> Iterator[tuple[str, object]]:
    """Yield the names of further files that a library may read, and what they hold."""
    for place, folders, files in os.walk(snapshot.directory):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for path in (Path(place, name) for name in sorted(files) if not name.startswith(".")):
            name = str(path.relative_to(snapshot.directory))
            if name not in {*snapshot.texts, STAMP} and not name.endswith((*WEIGHT_FILES, ".md")):
                yield name, _digest_small(path)


def _digest_small(path: Path) -> object:
    """Return the digest of a file; where it is large or cannot be read, something that is equal to no other."""
    try:
        if has_file(path) and path.stat().st_size <= _SMALL_BYTES:
            return blake3(read_file(path)).digest()
    except (OSError, StorageError):
        pass
    return object()


_SMALL_BYTES = 1 << 20


def verify_adapter_documents(snapshot: Snapshot, documents: Documents) -> None:
    """Raise VerificationError where tokenizers would give an adapter's tokens other ids than its documents say."""
    if TOKENIZER in documents.files or TOKENIZER in snapshot.texts:
        _check_with_tokenizers(snapshot, documents, ())


def verify_model(snapshot: Snapshot, checks: Sequence[Check], thoroughness: Thoroughness) -> tuple[str, ...]:
    """Load a model as it is with the libraries, and return notes for the user.

    Raises:
        VerificationError: A library loads something else than the files say.
    """
    now = Documents.unchanged(snapshot)
    if thoroughness == "fast":
        _check_with_tokenizers(snapshot, now, checks)
        return ()
    loaded = _load(nullcontext(snapshot.directory), snapshot, now, checks)
    _raise_first(loaded.faults(), None, snapshot)
    return tuple(loaded.format_difference(doing, texts, "") for doing, texts in loaded.different.items())


def _load(
    place: AbstractContextManager[Path], snapshot: Snapshot, documents: Documents, checks: Sequence[Check]
) -> _Loaded:
    """Have both libraries load a directory at the same time; raise where tokenizers gives other ids or tokens."""
    with (
        place as directory,
        BackgroundCall(partial(_ask_tokenizers, directory / TOKENIZER, snapshot, documents, checks)) as asked,
    ):
        try:
            answer = _ask_transformers(directory, snapshot, documents, checks)
        except TokmigrateError:
            # If the tokenizers library alone fails as well, its error is the more exact one.
            _check_ids(asked.result(), snapshot, checks)
            raise
        library = asked.result()
    _check_ids(library, snapshot, checks)
    return _Loaded(library, answer["tokenizer"], answer["model"], checks)


def _load_now(snapshot: Snapshot, now: Documents, *, with_model: bool) -> _Loaded:
    """Have both libraries load a model as it is; what tokenizers cannot load is not compared."""
    file = snapshot.directory.absolute() / TOKENIZER
    with BackgroundCall(partial(_ask_tokenizers, file, snapshot, now, ())) as asked:
        answer = _ask_transformers(snapshot.directory, snapshot, now, (), with_model=with_model)
        try:
            library = asked.result()
        except TokmigrateError:
            library = {}
    return _Loaded(library, answer["tokenizer"], answer["model"], ())


def _check_with_tokenizers(snapshot: Snapshot, documents: Documents, checks: Sequence[Check]) -> None:
    """Raise where the tokenizers library cannot load tokenizer.json, or gives other ids or tokens."""
    with stage_tokenizer(snapshot, documents) as file:
        answer = _ask_tokenizers(file, snapshot, documents, checks, samples=False)
    _check_ids(answer, snapshot, checks)


def _ask_tokenizers(
    file: Path, snapshot: Snapshot, documents: Documents, checks: Sequence[Check], *, samples: bool = True
) -> Mapping[str, Any]:
    counted = [check.read_texts() for check in checks if isinstance(check, TokensPerByteAtMost)]
    try:
        request = {
            "file": str(file),
            "expected": dict(documents.ids),
            "encode": _texts_of(checks),
            "count": counted,
            "samples": samples,
        }
        return call_worker("tokenizer", request, snapshot.state.traits.worker)
    except TokmigrateError as error:
        error.where = str(snapshot.directory)
        raise


def _check_ids(answer: Mapping[str, Any], snapshot: Snapshot, checks: Sequence[Check]) -> None:
    """Raise VerificationError where an answer of the tokenizers library is not what is expected."""
    where = str(snapshot.directory)
    if answer["differences"]["count"]:
        raise VerificationError(
            _other_ids("tokenizers", answer["differences"]),
            where=where,
            hint="nothing was changed; if tokens were added by hand after those that go, put the tokenizer back first;"
            " else install another version of tokenizers, and report this one",
        )
    for reason in _find_faults(answer, checks):
        hint = "nothing was changed; correct the case in the migration, or its operations"
        raise VerificationError(f"a `verify:` case does not hold: {reason}", where=where, hint=hint)


def _texts_of(checks: Sequence[Check]) -> list[str]:
    return [check.text for check in checks if isinstance(check, TextCheck)]


def _find_faults(answer: Mapping[str, Any], checks: Sequence[Check]) -> Iterator[str]:
    encodings, counts = iter(answer["encodings"]), iter(answer["counts"])
    for check in checks:
        if isinstance(check, TextCheck):
            encoding = next(encodings)
            failed = f"'{check.text}' cannot be tokenized: {encoding['error']}" if "error" in encoding else None
            fault = failed or check.find_fault(tuple(encoding["tokens"]))
        elif isinstance(check, TokensPerByteAtMost):
            count = next(counts)
            failed = f"{check.corpus} cannot be tokenized: {count['error']}" if "error" in count else None
            fault = failed or check.find_fault(count["tokens"], count["bytes"])
        else:
            # It needs a model that runs.
            continue
        if fault is not None:
            yield fault


def _ask_transformers(
    directory: Path, snapshot: Snapshot, documents: Documents, checks: Sequence[Check], *, with_model: bool = True
) -> Mapping[str, Any]:
    request = {
        "directory": str(directory),
        "expected": dict(documents.ids),
        "shapes": documents.shapes(snapshot),
        "encode": _texts_of(checks),
        "model": with_model,
    }
    try:
        answer = call_worker("transformers", request, snapshot.state.traits.worker)
    except VerificationError as error:
        # The worker died, or never answered: what of is not known.
        answer = {"tokenizer": {}, "model": {"died": error.message}}
    except TokmigrateError as error:
        error.where = str(snapshot.directory)
        raise
    for part in answer.values():
        if "error" in part:
            part["error"] = part["error"].replace(str(directory), str(snapshot.directory))
    return answer


@dataclass(frozen=True)
class _Loaded:
    """What the libraries make of a model's files.

    Args:
        library: The answer of the tokenizers library, empty where it cannot load them.
        tokenizer: What transformers says of the tokenizer, empty where it died; `model` likewise.
    """

    library: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    model: Mapping[str, Any]
    checks: Sequence[Check]

    @property
    def is_compared(self) -> bool:
        """Whether there are two tokenizers to compare."""
        return "samples" in self.library and "samples" in self.tokenizer

    @cached_property
    def different(self) -> Mapping[str, list[str]]:
        """By what transformers does differently from tokenizer.json, the sample texts that show it."""
        found: dict[str, list[str]] = {}
        for place, text in enumerate(SAMPLES if self.is_compared else ()):
            for doing in _DOES:
                if self.library["samples"][doing][place] != self.tokenizer["samples"][doing][place]:
                    found.setdefault(doing, []).append(text)
                    # A text that is tokenized differently needs no other report.
                    if doing == "tokenizes":
                        break
        return found

    @property
    def parts(self) -> Mapping[str, tuple[str, str]]:
        """By part of the pipeline a digest of what transformers has, and of what tokenizer.json says."""
        if not self.is_compared:
            return {}
        declared = self.library["samples"]["parts"]
        return {part: (actual, declared[part]) for part, actual in self.tokenizer["samples"]["parts"].items()}

    def faults(self) -> dict[str, str]:
        """Return what is wrong by kind, the gravest first."""
        return dict(self._faults())

    def _faults(self) -> Iterator[tuple[str, str]]:
        tokenizer, model = self.tokenizer, self.model
        if "died" in model:
            yield "died", model["died"]
        if "error" in tokenizer:
            yield "tokenizer", f"transformers cannot load the tokenizer: {tokenizer['error']}"
        if "error" in model:
            yield "model", f"transformers cannot build the model of config.json: {model['error']}"
        if model.get("mismatched"):
            yield "shapes", f"transformers expects other shapes: {model['mismatched']}"
        if tokenizer.get("differences", {}).get("count"):
            yield "ids", _other_ids("transformers", tokenizer["differences"])
        if "chat_error" in tokenizer:
            yield "chat", f"the chat template cannot be rendered: {tokenizer['chat_error']}"
        for text, found, wanted in zip(
            _texts_of(self.checks), tokenizer.get("encodings", ()), self.library.get("encodings", ()), strict=False
        ):
            if found != wanted["ids"]:
                yield "check", f"transformers tokenizes '{text}' differently from tokenizers: {found}"

    def format_difference(self, doing: str, texts: Sequence[str], when: str) -> str:
        """Return in words what transformers does differently from tokenizer.json."""
        shown = f"{texts[0]!r}{f' and {len(texts) - 1} more sample texts' if len(texts) > 1 else ''}"
        return f"transformers' {self.tokenizer['class']} {_DOES[doing]} {shown} differently from tokenizer.json{when}"


def _raise_first(after: Mapping[str, str], before: Mapping[str, str] | None, snapshot: Snapshot) -> None:
    """Raise the gravest fault, if there is one; `before` is None where there is no change."""
    if not after:
        return
    kind, what = next(iter(after.items()))
    where = str(snapshot.directory)
    if before is None:
        raise VerificationError(what, where=where, hint=f"fix it; {FAST}")
    if kind in before:
        hint = f"the migration is not the cause, and nothing was changed: fix the model first; {FAST}"
        raise VerificationError(f"both before and after the change, {what}", where=where, hint=hint)
    raise VerificationError(
        what, where=where, hint="nothing was changed; correct the migration: it is not so before the change"
    )


def _compare(before: _Loaded, after: _Loaded, snapshot: Snapshot) -> Iterator[str]:
    """Yield where transformers reads another pipeline than tokenizer.json says; raise where the change makes it so."""
    if not after.is_compared:
        return
    where = str(snapshot.directory)
    for part, (actual, declared) in after.parts.items():
        actual_before, declared_before = before.parts.get(part, (None, None))
        if actual_before != actual or declared in (declared_before, actual):
            continue
        ignored = f"transformers ignores the change of the {part}: its {after.tokenizer['class']} builds that itself"
        if actual_before == declared_before:
            raise VerificationError(ignored, where=where, hint=f"nothing was changed; {FAST}")
        yield ignored
    for doing, texts in after.different.items():
        new = [text for text in texts if text not in before.different.get(doing, ())]
        if new and before.is_compared:
            raise VerificationError(
                after.format_difference(doing, new, " after the change, and not before it"),
                where=where,
                hint=f"nothing was changed; {FAST}",
            )
        yield after.format_difference(doing, texts, ", both before and after the change" if before.is_compared else "")
    for doing, texts in before.different.items():
        if gone := [text for text in texts if text not in after.different.get(doing, ())]:
            yield before.format_difference(doing, gone, " before the change, and not after it")


def _changes_pipeline(snapshot: Snapshot, documents: Documents) -> bool:
    """Return whether a change sets a part of the pipeline, or another class that loads the tokenizer."""
    held = snapshot.state.documents
    files = {name: documents.files[name] for name in (CONFIG, TOKENIZER_CONFIG) if name in documents.files}
    if files and loading_class(held) != loading_class(with_files(held, files)):
        return True
    after = documents.tokenizer.document if documents.tokenizer else held[TOKENIZER]
    return any(held[TOKENIZER].get(section) != after.get(section) for section in SECTIONS)


def _other_ids(library: str, differences: Mapping[str, Any]) -> str:
    return f"{library} gives {differences['count']} tokens other ids: {differences['examples']}"
