"""TM4: whether a migration means the same everywhere, and says what it is for."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator, Mapping

from tokmigrate.lint.rule import ERROR, WARNING, Found, operations, rule, upgrade
from tokmigrate.lint.subjects import Location, MigrationFile
from tokmigrate.revision.migration import Encodes


@rule(
    "TM401",
    ERROR,
    wrong=operations('add_tokens: ["<tool>", "<result>"]  # <result> was added later'),
    right=operations('add_tokens: ["<tool>"]'),
)
def edited_after_applied(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited after it was applied.

    Models that have it no longer match the file, and no command but `downgrade` will work on them. Comments,
    `message` and `author` may change.
    """
    if file.edited_on:
        message = f"it was applied to {', '.join(file.edited_on)} before it was edited"
        hint = "put it back with `tokmigrate restore` where it was applied, and write a new migration"
        yield Found(Location(1, 1), message, hint)


@rule(
    "TM411",
    ERROR,
    wrong=operations('add_tokens: ["<tool>", "<result>"]  # the branch has it without <result>'),
    right=operations('add_tokens: ["<tool>"]  # only this comment is new'),
    branch="main",
)
def edited_after_shared(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited that the branch given by `--git-base` has.

    Others have applied it, or will; their models then do not match the file, and commands refuse them.
    Comments, `message` and `author` may change.
    """
    if file.edited_since is not None:
        help_ = "restore it, and write a new migration"
        yield Found(Location(1, 1), f"'{file.edited_since}' has it with other contents", help_)


@rule(
    "TM402",
    ERROR,
    wrong=upgrade(
        'op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())', "from pathlib import Path"
    ),
    right="""\
from pathlib import Path

message = "Add the tools"
files = ["tools.txt"]


def upgrade(op):
    op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())
""",
)
def unpinned_file(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration reads a file that the checksum does not cover.

    If that file changes, the migration gives other tokens without an error. A file that is listed in `files` is
    part of the checksum.
    """
    for node, texts in find_file_reads(_parse(file)):
        if texts.isdisjoint(file.migration.attachments):
            message = f"`{ast.unparse(node.func)}` reads a file that is not pinned"
            yield Found(_location(node), message, 'name the file at the top: files = ["…"]')


@rule(
    "TM403",
    ERROR,
    wrong=upgrade('op.add_tokens(tokens=[os.environ.get("TOOL_TOKEN", "<tool>")])', "import os"),
    right=upgrade('op.add_tokens(tokens=["<tool>"])'),
)
def unpinned_world(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration uses the time, randomness, the environment, the network or another program.

    It gives other operations elsewhere or later, so that two models with the same revision differ.
    """
    module = _parse(file)
    for node in find_world_uses(module, find_world_names(module)):
        yield Found(_location(node), f"`{ast.unparse(node)}` is not the same everywhere", "write down what it gave")


@rule(
    "TM404",
    ERROR,
    wrong=upgrade('op.add_tokens(tokens=list({"<tool>", "<result>"}))'),
    right=upgrade('op.add_tokens(tokens=sorted({"<tool>", "<result>"}))'),
)
def order_of_a_set(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration iterates over a set.

    Python gives texts in a set another order in each process, so that tokens get other ids each time.
    """
    for node in find_set_orders(_parse(file)):
        message = f"`{ast.unparse(node)}` goes through a set, in any order"
        yield Found(_location(node), message, "sort it, or use a list")


@rule(
    "TM405",
    WARNING,
    wrong=upgrade('op.add_tokens(tokens=yaml.safe_load("[<tool>]"))', "import yaml"),
    right=upgrade("""op.add_tokens(tokens=json.loads('["<tool>"]'))""", "import json"),
)
def imported_code(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration imports a module that does not come with Python or tokmigrate.

    The checksum does not cover it: with another version of it the migration may do something else.
    """
    for node in ast.walk(_parse(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            if name.split(".")[0] not in {*sys.stdlib_module_names, "tokmigrate"}:
                message = f"it imports '{name}', which is not pinned"
                yield Found(_location(node), message, "write what it needs into the file")


@rule(
    "TM406",
    WARNING,
    wrong=operations("set_chat_template: {file: ignored.jinja}  # .gitignore names it"),
    right=operations("set_chat_template: {file: chat.jinja}"),
)
def not_in_git(file: MigrationFile) -> Iterator[Found]:
    """A file that a committed migration refers to is not in Git.

    On other machines the migration cannot be read.
    """
    for name in sorted(file.not_in_git):
        # A directory is named, and not each file in it.
        named = (name, name.rpartition("/")[0])
        places = (
            written.location_of(*named)
            for written in file.operations
            if not {*named}.isdisjoint(written.operation.references())
        )
        place = next(places, None) or file.location_of("files" if file.is_python else "init")
        help_ = f"git add -f {shlex.quote(name)}, in the folder of the migrations"
        yield Found(place, f"'{name}' is not in Git", help_)


_EMPTY_WORDS = re.compile(
    r"(what it is for|(new |a |the |add |my )?(migration|revision|change|update|fix(es)?|token|wip|todo|test)s?"
    r"|initial|.{0,2})[.!]?",
    re.IGNORECASE,
)


@rule(
    "TM407",
    WARNING,
    wrong="message: update\n" + operations("set_init: {strategy: mean}"),
    right="message: Start new rows from the mean\n" + operations("set_init: {strategy: mean}"),
)
def message_says_nothing(file: MigrationFile) -> Iterator[Found]:
    """The message does not say what the migration is for.

    It is what `history`, `log` and the ledger show in a year.
    """
    message = file.migration.message
    if _EMPTY_WORDS.fullmatch(message.strip()):
        shown = f"the message '{message}' does not say" if message.strip() else "no message says"
        yield Found(file.location_of("message"), f"{shown} what it is for", "name the tokens and their purpose")


@rule("TM408", WARNING, wrong="operations: []\n", right=operations("set_init: {strategy: mean}"))
def does_nothing(file: MigrationFile) -> Iterator[Found]:
    """A migration has no operations.

    Usually it was created and not filled in.
    """
    if not file.is_python and not file.operations:
        help_ = "fill it in; or delete the file, if it was not applied and no migration follows it"
        yield Found(file.location_of("operations"), "it has no operations", help_)


@rule(
    "TM410",
    WARNING,
    wrong=operations("set_normalizer: NFKC"),
    right=operations("set_normalizer: NFKC") + 'verify:\n  - encodes: {text: "①", tokens: ["1"]}\n',
)
def pipeline_without_check(file: MigrationFile) -> Iterator[Found]:
    """How text is tokenized changes, and no `encodes` under `verify:` says what comes out.

    A reviewer sees the intention, and a version of the library that tokenizes differently is noticed before a
    model is published.
    """
    if any(isinstance(check, Encodes) for check in file.migration.checks):
        return
    for written in file.operations:
        if written.footprint.writes & {"the normalizer", "the pre_tokenizer"}:
            message = f"{written.operation.name} changes how text is tokenized, and no example shows how"
            yield Found(written.location, message, "verify: [{encodes: {text: …, tokens: […]}}]")


@rule(
    "TM409",
    WARNING,
    wrong="models: [dmeo]\n" + operations("set_init: {strategy: mean}"),
    right="models: [demo]\n" + operations("set_init: {strategy: mean}"),
)
def for_no_model(file: MigrationFile) -> Iterator[Found]:
    """`models` names something that is neither a model nor a tag of the workspace.

    With a misspelt name the migration applies to no model, without a warning.
    """
    known = sorted(file.known_models)
    for place, name in enumerate(file.migration.models):
        if known and name not in ("*", *known):
            message = f"'{name}' is neither a model nor a tag of the workspace"
            yield Found(file.location_of("models", place), message, f"known are {', '.join(known)}")


_READING = frozenset({"open", "read_text", "read_bytes", "readlines", "iterdir", "glob", "rglob", "listdir", "scandir"})
_WORLD = frozenset({"random", "secrets", "uuid", "time", "socket", "subprocess", "urllib", "http", "requests", "httpx"})
_ASKING = frozenset(
    {"argv", "cpu_count", "cwd", "environ", "getcwd", "getenv", "gethostname", "getpid", "home", "now", "platform"}
    | {"popen", "random", "system", "today", "uname", "urandom", "utcnow"}
)
_BUILT_IN = frozenset({"hash", "id", "input"})
_ORDERING = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "join", "dict"})


def _parse(file: MigrationFile) -> ast.Module:
    return ast.parse(file.migration.source or "")


def find_file_reads(module: ast.Module) -> Iterator[tuple[ast.Call, frozenset[str]]]:
    """Yield each call that reads a file or a directory, with the texts in it and in what its names stand for."""
    meanings = _meanings(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _last_name(node.func) in _READING:
            yield node, frozenset(_texts(node, meanings, set()))


def find_world_uses(node: ast.AST, names: frozenset[str]) -> Iterator[ast.expr]:
    """Yield each use of what is not the same at another time or on another machine, with all that is taken out of it.

    `names` are those of `find_world_names`.
    """
    if isinstance(node, ast.Attribute) and (node.attr in _ASKING or ast.unparse(node).split(".")[0] in names):
        yield node
        return
    if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
        yield node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BUILT_IN:
        yield node.func
    for inner in ast.iter_child_nodes(node):
        yield from find_world_uses(inner, names)


def find_set_orders(module: ast.Module) -> Iterator[ast.expr]:
    """Yield each piece of code that takes the members of a set one after the other."""
    meanings = _meanings(module).items()
    sets = frozenset(name for name, values in meanings if all(_is_set(value, frozenset()) for value in values))
    for node in ast.walk(module):
        used: list[ast.expr] = []
        match node:
            case ast.Call(func=func, args=args) if _last_name(func) in _ORDERING:
                used = args
            case ast.For(iter=part) | ast.comprehension(iter=part) | ast.Starred(value=part):
                used = [part]
        yield from (part for part in used if _is_set(part, sets))


def find_world_names(module: ast.Module) -> frozenset[str]:
    """Return the names under which a file knows modules of the world, and what it takes out of them."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            pairs = ((alias.name.split(".")[0], alias.asname) for alias in node.names)
            found |= {known_as or top for top, known_as in pairs if top in _WORLD}
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_world = node.module.split(".")[0] in _WORLD
            found |= {alias.asname or alias.name for alias in node.names if is_world or alias.name in _ASKING}
    return frozenset(found)


def _meanings(module: ast.Module) -> dict[str, list[ast.expr]]:
    """Return what each name of a file may stand for: what is assigned to it, or what it goes through."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(module):
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign):
            targets, value = [node.target], node.value
        elif isinstance(node, ast.For | ast.comprehension):
            # A member of a set is none itself.
            targets, value = [node.target], ast.Tuple([node.iter], ast.Load())
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets, value = [node.optional_vars], node.context_expr
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                found.setdefault(target.id, []).append(value)
    return found


def _texts(node: ast.AST, meanings: Mapping[str, list[ast.expr]], seen: set[str]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name) and part.id not in seen:
            seen.add(part.id)
            for value in meanings.get(part.id, []):
                yield from _texts(value, meanings, seen)


def _is_set(node: ast.expr, names: frozenset[str]) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_set(node.left, names) or _is_set(node.right, names)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Name) and node.id in names)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _location(node: ast.expr | ast.stmt) -> Location:
    return Location(node.lineno, node.col_offset + 1)
