"""Chat templates: where a model keeps them, whether a text is one, and which tokens they write out or look for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import LEGACY_TEMPLATE, MORE_TEMPLATES, TEMPLATE, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json, walk

CHAT, RESPONSE = "the chat template", "the response template"


@dataclass(frozen=True)
class Template:
    """A text that may name tokens.

    Args:
        name: What a chat template is called; the one that is used unasked is `default`.
        path: Its place there, empty where it is the whole file.
        is_pattern: Whether it is a regular expression, in which the characters of a token are escaped.
    """

    kind: str
    name: str
    file: str
    path: tuple[str | int, ...]
    text: str
    is_pattern: bool = False


def read_chat_templates(documents: Mapping[str, Json]) -> dict[str, str]:
    """Return the chat templates of a model by name, as transformers finds them."""
    found: dict[str, str] = {}
    for template in _find_chat_templates(documents):
        found.setdefault(template.name, template.text)
    return found


def chat_template(state: ModelState) -> str | None:
    return read_chat_templates(state.documents).get("default")


def templates(state: ModelState) -> Iterator[Template]:
    """Yield each chat template, and each text by which transformers finds the parts of a response."""
    yield from _find_chat_templates(state.documents)
    response = (state.documents.get(TOKENIZER_CONFIG) or {}).get("response_template")
    for path, text in texts_in(response):
        is_pattern = any(str(step).endswith("_pattern") for step in path)
        yield Template(RESPONSE, "", TOKENIZER_CONFIG, ("response_template", *path), text, is_pattern)


def _find_chat_templates(documents: Mapping[str, Json]) -> Iterator[Template]:
    """Yield the chat templates; of several with one name the first counts."""
    for file, text in documents.items():
        if file == TEMPLATE:
            yield Template(CHAT, "default", file, (), text)
        elif file.startswith(f"{MORE_TEMPLATES}/"):
            name = file.removeprefix(f"{MORE_TEMPLATES}/").removesuffix(".jinja")
            yield Template(CHAT, name, file, (), text)
    for file in (LEGACY_TEMPLATE, TOKENIZER_CONFIG):
        held = (documents.get(file) or {}).get("chat_template")
        if isinstance(held, str):
            yield Template(CHAT, "default", file, ("chat_template",), held)
        elif isinstance(held, list):
            for position, named in enumerate(held):
                yield Template(CHAT, named["name"], file, ("chat_template", position, "template"), named["template"])


def with_chat_template(state: ModelState, template: str | None) -> ModelState:
    """Return the state with `template` wherever the model keeps one, or with none.

    A new one goes into chat_template.jinja.
    """
    if template is not None:
        parse_template(template)
    config = state.documents.get(TOKENIZER_CONFIG) or {}
    held = config.get("chat_template")
    if isinstance(held, list):
        named = [] if template is None else [{"name": "default", "template": template}]
        others = [each for each in held if each["name"] != "default"]
        state = state.with_value(TOKENIZER_CONFIG, ("chat_template",), [*named, *others])
    elif held is not None and template is not None:
        state = state.with_value(TOKENIZER_CONFIG, ("chat_template",), template)
    elif held is not None:
        state = state.with_document(TOKENIZER_CONFIG, {k: v for k, v in config.items() if k != "chat_template"})
    if LEGACY_TEMPLATE in state.documents:
        legacy = None if template is None else {**state.documents[LEGACY_TEMPLATE], "chat_template": template}
        state = state.with_document(LEGACY_TEMPLATE, legacy)
    if TEMPLATE in state.documents or held is None:
        state = state.with_document(TEMPLATE, template)
    return state


def find_literals(template: str) -> Iterator[str]:
    """Yield each text that stands in a template, to be written or compared, no names of fields.

    Raises:
        OperationError: The template cannot be parsed.
    """
    from jinja2 import nodes  # noqa: PLC0415

    parsed = parse_template(template)
    fields = {id(node.arg) for node in parsed.find_all(nodes.Getitem)}
    for node in parsed.find_all((nodes.TemplateData, nodes.Const)):
        text = node.data if isinstance(node, nodes.TemplateData) else node.value
        if isinstance(text, str) and id(node) not in fields:
            yield text


def parse_template(template: str, *, trim: bool = False) -> Any:
    """Return the syntax tree of a template; raises OperationError where it is not Jinja as transformers compiles it.

    `trim` leaves out the line breaks and the indentation of tags, as transformers does.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes  # noqa: PLC0415
    from jinja2.ext import Extension  # noqa: PLC0415
    from jinja2.parser import Parser  # noqa: PLC0415

    class Generation(Extension):
        """transformers' `{% generation %}` block, which marks what the assistant says."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        # Nothing is rendered here, so there is nothing to escape.
        return Environment(  # noqa: S701
            extensions=[Generation, "jinja2.ext.loopcontrols"], trim_blocks=trim, lstrip_blocks=trim
        ).parse(template)
    except TemplateSyntaxError as error:
        raise OperationError(
            f"not a Jinja template: {error.message}",
            where=f"chat template, line {error.lineno}",
            hint="correct that line; transformers compiles the template with Jinja",
        ) from error
    except (RecursionError, ValueError) as error:
        raise OperationError(
            f"not a Jinja template that can be compiled: {error}",
            where="chat template",
            hint="it is nested too deeply, or has a number with too many digits; make it simpler",
        ) from error


def find_in_templates(state: ModelState, tokens: Iterable[str]) -> dict[str, Template]:
    """Return those of `tokens` that a template of the model names, each with the first one that does."""
    wanted = tuple(tokens)
    if not wanted:
        return {}
    found: dict[str, Template] = {}
    for template in templates(state):
        pattern = _pattern(state, wanted, template)
        for token in dict.fromkeys(_plain(match, template) for match in pattern.findall(template.text)):
            if token in wanted:
                found.setdefault(token, template)
    return {token: found[token] for token in wanted if token in found}


def with_tokens_in_templates(state: ModelState, names: Mapping[str, str]) -> ModelState:
    """Return the state whose templates name tokens by their new texts, which `names` gives by the old ones."""
    for template in list(templates(state)):

        def rename(match: re.Match[str], template: Template = template) -> str:
            token = _plain(match[0], template)
            return _spell(names[token], template) if token in names else match[0]

        renamed = _pattern(state, names, template).sub(rename, template.text)
        if renamed == template.text:
            continue
        if template.kind == CHAT:
            parse_template(renamed)
        state = state.with_value(template.file, template.path, renamed)
    return state


def _pattern(state: ModelState, tokens: Iterable[str], template: Template) -> re.Pattern[str]:
    """Return what finds `tokens`, and the added tokens that hold one, so that a part of those is not taken for it."""
    wanted = set(tokens)
    longer = {other for other in state.tokenizer.added if any(token in other for token in wanted)}
    ordered = sorted(wanted | longer, key=lambda token: (-len(token), token))
    return re.compile("|".join(re.escape(_spell(token, template)) for token in ordered))


def _spell(token: str, template: Template) -> str:
    return re.escape(token) if template.is_pattern else token


def _plain(written: str, template: Template) -> str:
    return re.sub(r"\\(.)", r"\1", written, flags=re.DOTALL) if template.is_pattern else written


def texts_in(held: Json) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each text in a JSON value with its place."""
    return ((path, text) for path, text in walk(held) if isinstance(text, str))
