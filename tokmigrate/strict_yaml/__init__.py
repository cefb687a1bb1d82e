"""YAML in which every scalar stays the text that it looks like, and every fault has its place.

`tree` is what a file holds, `reading` makes a tree from text, `validation` makes typed values from a tree,
and `wording` says in plain English what pydantic found.
"""

from tokmigrate.strict_yaml.reading import decode, parse, read
from tokmigrate.strict_yaml.tree import Entry, Location, Node, Plain, Tree, Value, is_null
from tokmigrate.strict_yaml.validation import FieldError, OptionalText, check, messages, validate_as, with_format_hint

__all__ = [
    "Entry",
    "FieldError",
    "Location",
    "Node",
    "OptionalText",
    "Plain",
    "Tree",
    "Value",
    "check",
    "decode",
    "is_null",
    "messages",
    "parse",
    "read",
    "validate_as",
    "with_format_hint",
]
