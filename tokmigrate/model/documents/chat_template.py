"""Where a model keeps its chat template, and whether a text is one."""

from __future__ import annotations

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import LEGACY_TEMPLATE, TEMPLATE, TOKENIZER_CONFIG, ModelState


def chat_template(state: ModelState) -> str | None:
    """Return the default chat template as transformers finds it: the file before tokenizer_config.json."""
    if TEMPLATE in state.documents:
        return str(state.documents[TEMPLATE])
    held = (state.documents.get(TOKENIZER_CONFIG) or {}).get("chat_template")
    if isinstance(held, list):
        held = next((named["template"] for named in held if named.get("name") == "default"), None)
    return held


def with_chat_template(state: ModelState, template: str) -> ModelState:
    """Return the state with `template` wherever the model keeps one; a new one goes into chat_template.jinja."""
    check_template(template)
    held = (state.documents.get(TOKENIZER_CONFIG) or {}).get("chat_template")
    if isinstance(held, list):
        others = [named for named in held if named.get("name") != "default"]
        named = [{"name": "default", "template": template}, *others]
        state = state.with_value(TOKENIZER_CONFIG, ("chat_template",), named)
    elif held is not None:
        state = state.with_value(TOKENIZER_CONFIG, ("chat_template",), template)
    if LEGACY_TEMPLATE in state.documents:
        state = state.with_value(LEGACY_TEMPLATE, ("chat_template",), template)
    if TEMPLATE in state.documents or held is None:
        state = state.with_document(TEMPLATE, template)
    return state


def without_chat_template(state: ModelState) -> ModelState:
    """Return the state without a default chat template."""
    config = state.documents.get(TOKENIZER_CONFIG) or {}
    held = config.get("chat_template")
    if isinstance(held, list):
        others = [named for named in held if named.get("name") != "default"]
        state = state.with_value(TOKENIZER_CONFIG, ("chat_template",), others)
    elif held is not None:
        state = state.with_document(TOKENIZER_CONFIG, {k: v for k, v in config.items() if k != "chat_template"})
    for name in (LEGACY_TEMPLATE, TEMPLATE):
        state = state.with_document(name, None)
    return state


def check_template(template: str) -> None:
    """Raise OperationError where `template` is not Jinja as transformers compiles it."""
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
        Environment(extensions=[Generation, "jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701
    except TemplateSyntaxError as error:
        raise OperationError(
            f"not a Jinja template: {error.message}", where=f"chat template, line {error.lineno}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise OperationError(
            f"not a Jinja template that can be compiled: {error}",
            where="chat template",
            hint="it is nested too deeply, or has a number with too many digits; make it simpler",
        ) from error
