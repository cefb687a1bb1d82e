"""What of a chat template minijinja does not take or renders otherwise, found in its syntax tree; nothing is rendered.

text-generation-inference 3.3.7 renders with minijinja 2.8.0 (router/Cargo.toml, Cargo.lock), with the `json` and
`loop_controls` features and Python methods of minijinja-contrib. Names are those of minijinja/src/defaults.rs and
minijinja-contrib/src/pycompat.rs; COMPATIBILITY.md says that it has no `%` for text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokmigrate.model.documents.chat_template import parse_template


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILTERS = _names(
    "safe escape e lower upper title capitalize replace length count dictsort items reverse trim join split "
    "lines default round abs int float attr first last min max sort d list string bool batch slice indent "
    "select reject selectattr rejectattr map groupby unique pprint sum tojson"
)
TESTS = _names(
    "undefined defined none safe escaped boolean odd even divisibleby number integer int float string "
    "sequence iterable mapping startingwith endingwith lower upper sameas eq equalto == ne != lt lessthan < "
    "le <= gt greaterthan > ge >= in true false filter test"
)
METHODS = _names(
    "get items keys values count capitalize endswith find isalnum isalpha isascii isdigit islower isnumeric "
    "isspace isupper join lower lstrip replace rfind rstrip split splitlines startswith strip title upper "
    "cycle changed"
)
VARIABLES = frozenset({"messages", "bos_token", "eos_token", "add_generation_prompt", "tools"})
"""What text-generation-inference gives to a template: `ChatTemplateInputs` in router/src/lib.rs."""

_FUNCTIONS = frozenset({"cycler", "joiner", "lipsum"})
_TOKENS = re.compile(r"(pad|unk|sep|cls|mask|image|audio|video)_token")
_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_REMOVED = ("{% generation %}", "{% endgeneration %}")


def find_unsupported(template: str) -> Iterator[str]:
    """Yield what minijinja stops at, each with its line; raises OperationError where a template cannot be parsed."""
    from jinja2 import nodes  # noqa: PLC0415

    for match in _GENERATION.finditer(template):
        if match[0] not in _REMOVED:
            yield f"line {template.count(chr(10), 0, match.start()) + 1}: the tag `{match[0]}`"
    for node in parse_template(template).find_all(nodes.Node):
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            yield f"line {node.lineno}: the filter `{node.name}`"
        elif isinstance(node, nodes.Test) and node.name not in TESTS:
            yield f"line {node.lineno}: the test `{node.name}`"
        elif isinstance(node, nodes.Mod) and isinstance(node.left, nodes.Const) and isinstance(node.left.value, str):
            yield f"line {node.lineno}: `%` with a text"
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr not in METHODS:
            yield f"line {node.lineno}: the method `{node.node.attr}`"
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _FUNCTIONS:
            yield f"line {node.lineno}: the function `{node.node.name}`"


def list_missing_tokens(template: str) -> list[str]:
    """Return the special tokens that a template names by variables which text-generation-inference does not give it."""
    from jinja2 import meta  # noqa: PLC0415

    named = meta.find_undeclared_variables(parse_template(template))
    return sorted(name for name in named - VARIABLES if _TOKENS.fullmatch(name))


def keeps_block_lines(template: str) -> bool:
    """Return whether line breaks and indentation of tags come out where a program does not trim blocks."""
    from jinja2 import nodes  # noqa: PLC0415

    def texts(*, trim: bool) -> str:
        return "\0".join(node.data for node in parse_template(template, trim=trim).find_all(nodes.TemplateData))

    return texts(trim=True) != texts(trim=False)
