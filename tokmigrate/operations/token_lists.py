"""Operations on a list of tokens, which stands in the migration or in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

from pydantic import TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tokmigrate.errors import FileProblems, Problem
from tokmigrate.formatting import format_list
from tokmigrate.operations.operation import Operation
from tokmigrate.strict_yaml.validation import describe_fault

T = TypeVar("T")

_SPELLING = "a line is a token as tokenizer.json spells it; a `.json` file with a list of texts can hold any token"
_JSON = 'write a list such as ["<a>", "<b>"], or an object such as {"<a>": "<b>"}'
FILE_DESCRIPTION = "A file with one token a line, or a `.json` file with a list of texts, relative to the migration."
MAP_DESCRIPTION = "A `.json` file with such an object, relative to the migration."

LONG = 50
"""A list with more items belongs into a file beside the migration."""


class TokenListOperation(Operation):
    """An operation on tokens that are listed in the migration (`tokens`) or in a file (`tokens_file`).

    A subclass may have more than one kind of list; exactly one list is given.
    """

    lists: ClassVar[Mapping[str, str]] = {"tokens": "tokens_file"}
    """The field with a list of tokens, and the one that names a file with it."""

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        names = [name for pair in self.lists.items() for name in pair]
        if sum(bool(getattr(self, name)) for name in names) != 1:
            raise ValueError(f"give one of {format_list([f'`{name}`' for name in names], 4, ' or ')}")
        return self

    def references(self) -> tuple[str, ...]:
        files = (getattr(self, name) for name in self.lists.values())
        return (*super().references(), *(file for file in files if file is not None))

    def with_listed(self, attachments: Mapping[str, bytes]) -> Self:
        listed = {
            tokens: self.read_items(file, attachments[file])
            for tokens, name in self.lists.items()
            if (file := getattr(self, name)) is not None
        }
        # What a file lists is not written again into the migration: the set of written fields stays.
        return cast(Self, self.model_construct(_fields_set=self.model_fields_set, **{**dict(self), **listed}))

    def with_files(self, stem: str) -> tuple[Self, Mapping[str, str]]:
        for tokens, name in self.lists.items():
            items = self.format_items(getattr(self, tokens)) if getattr(self, name) is None else ()
            if items is not None and len(items) > LONG:
                is_plain = not isinstance(items, Mapping) and all(map(_is_line, items))
                file = f"{stem}.{name.removesuffix('_file')}.{'txt' if is_plain else 'json'}"
                text = "\n".join(items) if is_plain else json.dumps(items, indent=0, ensure_ascii=False)
                fields = self.model_dump(by_alias=True, exclude_unset=True, exclude={tokens})
                named = type(self).model_validate({**fields, name: file})
                return named.with_listed({file: text.encode("utf-8")}), {file: f"{text}\n"}
        return self, {}

    @classmethod
    def read_items(cls, file: str, data: bytes) -> tuple[Any, ...] | dict[str, Any]:
        """Return the items of a list in a file; raises FileProblems."""
        return read_tokens(file, data)

    @classmethod
    def format_items(cls, items: Any) -> Sequence[Any] | Mapping[str, Any] | None:
        """Return the items of a list as `read_items` reads them of a JSON file; None where no file can hold them."""
        found: Sequence[Any] | Mapping[str, Any] = items
        return found


class TokenMapOperation(TokenListOperation):
    """An operation on tokens that gives each something: `tokens` maps them to it, and so does the object of a file."""

    @classmethod
    def read_items(cls, file: str, data: bytes) -> dict[str, Any]:
        kind: Any = cls.model_fields["tokens"].annotation
        found: dict[str, Any] = read_list(file, data, TypeAdapter(kind))
        return found


def read_tokens(file: str, data: bytes) -> tuple[str, ...]:
    """Return the tokens that a file lists; arguments and errors are those of `read_list`."""
    return tuple(read_list(file, data, TypeAdapter(list[str])))


def read_list(file: str, data: bytes, kind: TypeAdapter[T]) -> T:
    """Return the list or object of a `.json` file, or the lines of another one, validated as `kind`.

    Raises:
        FileProblems: It is not UTF-8, lists nothing, an empty item, one twice, or one that is not of that kind.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileProblems([Problem(file, line, 1, "this is not UTF-8", _SPELLING)]) from error
    try:
        held = json.loads(text, object_pairs_hook=_Pairs) if file.endswith(".json") else _read_lines(text)
        items = [key for key, _ in held] if isinstance(held, _Pairs) else held
        problems = list(_find_faults(file, items)) if isinstance(items, list) else []
        if problems:
            raise FileProblems(problems)
        return kind.validate_python(dict(held) if isinstance(held, _Pairs) else held)
    except json.JSONDecodeError as error:
        raise FileProblems([Problem(file, error.lineno, error.colno, f"no JSON: {error.msg}", _JSON)]) from error
    except ValidationError as error:
        faults = [_fault_of_item(file, detail, items) for detail in error.errors(include_url=False)]
        raise FileProblems(faults) from error


class _Pairs(list[tuple[str, Any]]):
    """The keys of a JSON object with their values: a key may be there twice."""


def _fault_of_item(file: str, detail: ErrorDetails, items: Sequence[Any]) -> Problem:
    first = next(iter(detail["loc"]), 0)
    place = first if isinstance(first, int) else items.index(first)
    message, hint = describe_fault(detail)
    return Problem(file, place + 1, 1, message, hint)


def _is_line(item: Any) -> bool:
    return isinstance(item, str) and item not in ("", "\ufeff") and "\n" not in item and item.strip("\ufeff\r") == item


def _read_lines(text: str) -> list[str]:
    # Other line ends are letters of tokens.
    lines = text.removeprefix("\ufeff").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _find_faults(file: str, items: Sequence[Any]) -> Iterator[Problem]:
    """Yield what is wrong in a list, by line; in a JSON file the line is the place in the list."""
    if not items:
        yield Problem(file, 1, 1, "it lists nothing", "name a token, or leave out the field")
    seen: dict[str, int] = {}
    for number, item in enumerate(items, 1):
        token = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        if (token if file.endswith(".json") else token.strip("\r")) == "":
            yield Problem(file, number, 1, "the line is empty", _SPELLING)
        elif token.endswith("\r") and not file.endswith(".json"):
            yield Problem(file, number, len(token), "the line ends in a carriage return", "write the file with LF")
        elif token in seen:
            yield Problem(file, number, 1, f"'{token}' is in line {seen[token]} already", "leave one of them out")
        seen.setdefault(token, number)
