"""From the contents of a migration file, YAML or Python, to a Migration; and its checksum."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from blake3 import blake3
from pydantic import AfterValidator, Field, WithJsonSchema

from tokmigrate.errors import FileProblems, Problem, StorageError, suggest
from tokmigrate.files import read_file
from tokmigrate.formats import MIGRATION
from tokmigrate.init import InitSpec
from tokmigrate.memo import forget_with_all
from tokmigrate.model.documents.reading import is_tokenizer_file, read_tokenizer_files
from tokmigrate.operations.operation import Item
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.migration import (
    CHECKS,
    PRECONDITIONS,
    Check,
    CorpusCheck,
    Migration,
    PlannedOperation,
    Precondition,
    Replaced,
    with_listed,
)
from tokmigrate.strict_yaml.reading import decode, parse
from tokmigrate.strict_yaml.tree import Tree, Value, is_null
from tokmigrate.strict_yaml.validation import Closed, OptionalText, check, with_format_hint

CHECKSUM_VERSION = "1"

_RESERVED = ("head", "heads", "base")
"""Words that name a revision by its position, and so cannot be ids."""

_ID = re.compile(r"[0-9a-z_]{4,40}")


def _check_revision_id(value: str | None) -> str | None:
    if value is not None and not _ID.fullmatch(value):
        raise ValueError(f"'{value}' is not a revision id: 4 to 40 of 0-9, a-z and _")
    if value in _RESERVED:
        raise ValueError(f"'{value}' has a meaning of its own and cannot be a revision id")
    return value


_ID_SCHEMA = {"type": "string", "pattern": f"^{_ID.pattern}$"}
RevisionId = Annotated[str, AfterValidator(_check_revision_id), WithJsonSchema(_ID_SCHEMA)]
OptionalRevisionId = Annotated[
    OptionalText, AfterValidator(_check_revision_id), WithJsonSchema({"anyOf": [_ID_SCHEMA, {"type": "null"}]})
]


class _Header(Closed):
    """The fields that both kinds of files share; the lists are read item by item."""

    format: Literal["1"] = "1"
    revision: RevisionId = Field(description="The id of this migration; never changes.")
    down_revision: OptionalRevisionId = Field(
        default=None, description="The id of the migration before; null for the first."
    )
    message: str = Field(default="", description="What the migration is for.")
    author: OptionalText = Field(default=None, description="Who wrote it.")
    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("*",), min_length=1, description="Names or tags from tokmigrate.yaml; * for all models."
    )
    init: Any = Field(default=None, description="How new rows are initialised by default.")
    preconditions: list[Any] | None = Field(default=None, description="What has to hold before.")
    verify: list[Any] | None = Field(default=None, description="What has to hold after.")


H = TypeVar("H", bound=_Header)
T = TypeVar("T", bound=Item)


class YamlHeader(_Header):
    """The fields of a YAML migration."""

    format: Annotated[Literal["1"], WithJsonSchema({"const": 1})] = Field(description="The version of this format.")
    replaces: tuple[Replaced, ...] = Field(
        default=(),
        description="The migrations that were squashed into this one; `tokmigrate squash` writes it.",
    )
    operations: list[Any] | None = Field(default=None, description="What is done, in this order.")


class PythonHeader(_Header):
    """The module-level names that mean something in a Python migration."""

    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Body:
    """What both kinds of files hold besides the header."""

    init: InitSpec | None = None
    preconditions: tuple[Precondition, ...] = ()
    checks: tuple[Check, ...] = ()


def yaml_migration(data: bytes, path: Path, shown: str, root: Path) -> Migration:
    """Return the migration that the bytes of a YAML file are.

    Its `path` is absolute, and need not be there yet; messages call it `shown`. No reference may leave the workspace's
    directory `root`. Raises FileProblems with all that is wrong in it.
    """
    key = (data, path, shown, root)
    found = _KNOWN.get(key)
    if found is None or not _is_unchanged(found, path, root):
        found = _KNOWN[key] = _read(data, path, shown, root)
        if len(_KNOWN) > _MOST:
            _KNOWN.pop(next(iter(_KNOWN)), None)
    return found


def _read(data: bytes, path: Path, shown: str, root: Path) -> Migration:
    tree = parse(decode(data, shown), shown)
    problems: list[Problem] = []
    header, body = read_contents(YamlHeader, tree, problems)
    operations: list[PlannedOperation] = []
    references: list[tuple[str, str]] = []
    if isinstance(tree.value, Mapping):
        items = _read_items(tree, "operations", operation_types(), "operation", problems)
        operations = [PlannedOperation(operation, place) for operation, place in items]
        references = [(name, "operations") for planned in operations for name in planned.operation.references()]
        references += [(name, "operations") for name in _list_directories(operations)]
        references += [(name, "init") for name in (body.init.references() if body.init else ())]
        if header is not None and header.replaces:
            problems += _replaces_problems(tree, header, len(operations))
            origins = (replaced for replaced in header.replaces for _ in range(replaced.operations))
            operations = [replace(each, origin=origin) for each, origin in zip(operations, origins, strict=False)]
            specs = [replaced.init for replaced in header.replaces if replaced.init]
            references += [(name, "replaces") for spec in specs for name in spec.references()]
    references += list_corpora(body)
    attachments = read_attachments(path, root, tree, references, problems, _list_directories(operations))
    if header is None or problems:
        raise FileProblems(problems)
    checksum = yaml_checksum({**tree.value, "down_revision": header.down_revision}, attachments)
    migration = build_migration(header, body, data, path, shown, attachments, checksum)
    return replace(migration, operations=with_listed(operations, attachments, shown), replaces=header.replaces)


_KNOWN: dict[tuple[bytes, Path, str, Path], Migration] = {}
"""A command asks several times for its migrations, of which one may list 100,000 tokens."""
_MOST = 4096
forget_with_all(_KNOWN.clear)


def read_contents(kind: type[H], tree: Tree, problems: list[Problem]) -> tuple[H | None, Body]:
    """Return header and body of a migration file, and add all their faults to `problems`."""
    header, faults = check(kind, tree)
    problems += [with_format_hint(problem, MIGRATION) for problem in faults]
    if not isinstance(tree.value, Mapping):
        return header, Body()
    init: InitSpec | None = None
    if "init" in tree.value and not is_null(tree.value["init"]):
        init, faults = check(InitSpec, tree.at(("init",)))
        problems += faults
    preconditions = _read_items(tree, "preconditions", PRECONDITIONS, "precondition", problems)
    checks = _read_items(tree, "verify", CHECKS, "check", problems)
    return header, Body(init, tuple(item for item, _ in preconditions), tuple(item for item, _ in checks))


def list_corpora(body: Body) -> list[tuple[str, str]]:
    """Return the files that checks read, each with the field that it is in."""
    return [(each.corpus, "verify") for each in body.checks if isinstance(each, CorpusCheck)]


def build_migration(
    header: _Header,
    body: Body,
    data: bytes,
    path: Path,
    shown: str,
    attachments: Mapping[str, bytes],
    checksum: str,
) -> Migration:
    """Return a migration with what YAML and Python files have in common."""
    return Migration(
        revision=header.revision,
        down_revision=header.down_revision,
        message=header.message,
        author=header.author,
        models=header.models,
        init=body.init,
        preconditions=body.preconditions,
        checks=tuple(each.with_corpus(attachments) if isinstance(each, CorpusCheck) else each for each in body.checks),
        path=path,
        shown=shown,
        number=file_number(path),
        checksum=checksum,
        attachments=attachments,
        data=data,
    )


def _replaces_problems(tree: Tree, header: YamlHeader, operations: int) -> Iterator[Problem]:
    """Yield what of `replaces:` does not fit the rest of the file."""
    hint = "`tokmigrate squash` writes both"
    last = header.replaces[-1].revision
    if last != header.revision:
        message = f"a squashed migration has the id of the last one that it replaces, which is '{last}'"
        yield tree.problem(("revision",), message, hint)
    counted = sum(replaced.operations for replaced in header.replaces)
    if counted != operations:
        yield tree.problem(("replaces",), f"it gives {counted} operations, and there are {operations}", hint)


def attachment_path(migration: Path, name: str, root: Path) -> Path | None:
    """Return the path of a file that a migration names, relative to its own; None outside the workspace `root`."""
    target = Path(os.path.abspath(migration.parent / name))  # noqa: PTH100 - links stay as they are named
    return target if not Path(name).is_absolute() and target.is_relative_to(root) else None


def _list_directories(operations: Iterable[PlannedOperation]) -> list[str]:
    return sorted({name for planned in operations for name in planned.operation.directories()})


def _is_unchanged(migration: Migration, path: Path, root: Path) -> bool:
    """Return whether the files and directories that a migration refers to are as they were when it was read."""
    directories = _list_directories(migration.operations)
    inside = tuple(_files_in(name) for name in directories)
    files = [
        name
        for name in migration.attachments
        if not (name.startswith(inside) and is_tokenizer_file(name.rpartition("/")[2]))
    ]
    found: dict[str, bytes] = {}
    with suppress(StorageError):
        for name in (*files, *directories):
            if (target := attachment_path(path, name, root)) is not None:
                found |= _read_reference(target, name, directories)
    return found == migration.attachments


def _files_in(directory: str) -> str:
    """Return what the names of the files in a directory begin with."""
    return f"{directory.rstrip('/')}/"


def _read_reference(target: Path, name: str, directories: Collection[str]) -> dict[str, bytes]:
    """Return the bytes of a file that a migration names, or of the files of a tokenizer whose directory it names."""
    if name not in directories:
        return {name: read_file(target)}
    return {_files_in(name) + file: data for file, data in read_tokenizer_files(target).items()}


def read_attachments(
    path: Path,
    root: Path,
    tree: Tree,
    references: Iterable[tuple[str, str]],
    problems: list[Problem],
    directories: Collection[str],
) -> dict[str, bytes]:
    """Return the files that a migration refers to, and add the faults of those that cannot be read to `problems`.

    `references` has each name, and the field that it is in; `directories` those that stand for a tokenizer's files.
    """
    attachments: dict[str, bytes] = {}
    for name, field in references:
        if name in attachments:
            continue
        target = attachment_path(path, name, root)
        try:
            if target is not None:
                attachments |= _read_reference(target, name, directories)
                continue
            fault = f"'{name}' is outside the workspace"
        except StorageError as error:
            fault = f"'{name}': {error.message}"
        around = tree.at((field,)).root
        places = ((line, column) for text, line, column in around.places() if text == name)
        hint = f"a file is named relative to {Path(tree.path).parent}"
        problems.append(Problem(tree.path, *next(places, (around.line, around.column)), fault, hint))
    return attachments


def file_number(path: Path) -> str:
    """Return the digits that a file name begins with."""
    digits = re.match(r"[0-9]*", path.name)
    return digits[0] if digits else ""


def _read_items(
    tree: Tree, field: str, kinds: Mapping[str, type[T]], noun: str, problems: list[Problem]
) -> list[tuple[T, str]]:
    """Return the items of the list `field`, which may be missing, with their places; add all faults to `problems`."""
    content = tree.value.get(field)
    items: list[tuple[T, str]] = []
    for number in range(len(content) if isinstance(content, list) else 0):
        item, faults = _item(tree.at((field, number)), kinds, noun)
        problems += faults
        if item is not None:
            items.append((item, tree.where((field, number))))
    return items


def _item(tree: Tree, kinds: Mapping[str, type[T]], noun: str) -> tuple[T | None, list[Problem]]:
    content = tree.value
    if not isinstance(content, Mapping):
        hint = f"write '- {content}: {{…}}'" if isinstance(content, str) and content in kinds else None
        return None, [tree.problem((), f"an item has to be a mapping with the name of the {noun}", hint)]
    if len(content) != 1:
        found = ", ".join(f"'{name}'" for name in content) or "none"
        hint = "put '- ' before each, and indent its fields by two more"
        return None, [tree.problem((), f"expected one {noun}, found {found}", hint)]
    (name,) = content
    if name not in kinds:
        hint = suggest(name, kinds) or "known are " + ", ".join(kinds)
        return None, [tree.key_problem((name,), f"unknown {noun} '{name}'", hint)]
    return check(kinds[name], _with_fields(tree.at((name,)), kinds[name].shorthand))


def _with_fields(tree: Tree, shorthand: str | None) -> Tree:
    """Return the fields of an item as a mapping, also where they are left out or stand for one alone."""
    if isinstance(tree.value, Mapping):
        return tree
    if is_null(tree.value) and (shorthand is None or tree.value == ""):
        return Tree(tree.path, replace(tree.root, content={}))
    return tree.under(shorthand) if shorthand else tree


def yaml_checksum(content: Mapping[str, Value], attachments: Mapping[str, bytes]) -> str:
    """Return `1:` and the BLAKE3 digest of a YAML migration, as hex.

    It is taken over the texts of the file, not over typed fields, so that a field which a later version of
    tokmigrate adds, or whose default changes, leaves the checksums of old files as they are. `message`, `author` and
    `acknowledge` of operations do not count.
    """
    effective = {key: value for key, value in content.items() if key not in ("message", "author")}
    if isinstance(effective.get("operations"), list):
        effective["operations"] = [_without_consent(item) for item in effective["operations"]]
    return _compute_checksum({"yaml": effective}, attachments)


def _without_consent(item: Value) -> Value:
    """Return an operation without `acknowledge`, which may be added to a migration that models have already."""
    if not isinstance(item, Mapping):
        return item
    changed = {}
    for name, fields in item.items():
        kind = operation_types().get(name)
        # Where an operation cannot be written without it, all its checksums cover it.
        covers = not isinstance(fields, Mapping) or (kind and kind.model_fields["acknowledge"].is_required())
        changed[name] = fields if covers else {key: value for key, value in fields.items() if key != "acknowledge"}
    return changed


def python_checksum(source: str, attachments: Mapping[str, bytes]) -> str:
    """Return `1:` and the BLAKE3 digest of a Python migration, as hex.

    Line ends and white space at the ends of lines and of the file do not count.
    """
    code = "\n".join(line.rstrip() for line in re.split(r"\r\n|\r|\n", source)).rstrip()
    return _compute_checksum({"python": code}, attachments)


def _compute_checksum(content: Mapping[str, Value], attachments: Mapping[str, bytes]) -> str:
    files = {name: blake3(data).hexdigest() for name, data in attachments.items()}
    text = json.dumps({**content, "files": files}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"{CHECKSUM_VERSION}:{blake3(text.encode('utf-8')).hexdigest()}"
