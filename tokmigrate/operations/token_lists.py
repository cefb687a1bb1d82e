"""Operations on a list of tokens, which stands in the migration or in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tokmigrate.errors import FileProblems, Problem
from tokmigrate.formatting import format_list
from tokmigrate.operations.operation import Operation
from tokmigrate.strict_yaml.validation import messages

_SPELLING = "a line is a token as tokenizer.json spells it; a `.json` file with a list of texts can hold any token"
FILE_DESCRIPTION = "A file with one token a line, or a `.json` file with a list of texts, relative to the migration."


class TokenListOperation(Operation):
    """An operation on tokens that are listed in the migration (`tokens`) or in a file (`tokens_file`).

    A subclass may have more than one kind of list; exactly one list is given.
    """

    lists: ClassVar[Mapping[str, str]] = {"tokens": "tokens_file"}
    """The field with a list of tokens, and the one that names a file with it."""

    tokens_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)

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
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return cast(Self, self.model_construct(_fields_set=self.model_fields_set, **{**values, **listed}))

    @classmethod
    def read_items(cls, file: str, data: bytes) -> tuple[Any, ...]:
        """Return the items of a list in a file; raises FileProblems."""
        return read_tokens(file, data)


def read_tokens(file: str, data: bytes) -> tuple[str, ...]:
    """Return the tokens that a file lists, in its order.

    Raises:
        FileProblems: It is not UTF-8, lists no token, an empty one, or one twice.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileProblems([Problem(file, line, 1, "this is not UTF-8", _SPELLING)]) from error
    tokens = read_json_list(file, text, TypeAdapter(list[str])) if file.endswith(".json") else _read_lines(text)
    problems = list(_find_faults(file, tokens))
    if problems:
        raise FileProblems(problems)
    return tuple(tokens)


def read_json_list(file: str, text: str, kind: TypeAdapter[list[Any]]) -> list[Any]:
    """Return the list of a JSON file; raises FileProblems where it is another thing."""
    try:
        return kind.validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        raise FileProblems([Problem(file, error.lineno, error.colno, f"no JSON: {error.msg}")]) from error
    except ValidationError as error:
        raise FileProblems([Problem(file, 1, 1, message) for message in messages(error)]) from error


def _read_lines(text: str) -> list[str]:
    # Other line ends are letters of tokens.
    lines = text.removeprefix("\ufeff").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _find_faults(file: str, tokens: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong in a list, by line; in a JSON file the line is the place in the list."""
    if not tokens:
        yield Problem(file, 1, 1, "it lists no token")
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if token.strip("\r") == "":
            yield Problem(file, number, 1, "the line is empty", _SPELLING)
        elif token.endswith("\r") and not file.endswith(".json"):
            yield Problem(file, number, len(token), "the line ends in a carriage return", "write the file with LF")
        elif token in seen:
            yield Problem(file, number, 1, f"'{token}' is in line {seen[token]} already", "leave one of them out")
        seen.setdefault(token, number)
