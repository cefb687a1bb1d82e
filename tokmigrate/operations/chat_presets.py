"""Forms of chat that models are trained on: the tokens, the end of a turn, the template.

The forms are those that the makers of the models publish: ChatML (OpenAI), Llama 3 (Meta), Gemma (Google),
Phi-3 (Microsoft), Mistral (Mistral AI).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatForm:
    """A form of chat.

    Args:
        tokens: The special tokens that it needs.
        end: The token that ends a turn; None keeps the model's own end token.
        template: The Jinja template.
    """

    tokens: tuple[str, ...]
    end: str | None
    template: str


_PROMPT = "{%- if add_generation_prompt -%}"

PRESETS: Mapping[str, ChatForm] = {
    "chatml": ChatForm(
        ("<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "{%- for message in messages -%}\n"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
        "{%- endfor -%}\n"
        f"{_PROMPT}{{{{- '<|im_start|>assistant\\n' -}}}}{{%- endif -%}}\n",
    ),
    "llama3": ChatForm(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "{{- bos_token -}}\n"
        "{%- for message in messages -%}\n"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
        "+ (message['content'] | trim) + '<|eot_id|>' -}}\n"
        "{%- endfor -%}\n"
        f"{_PROMPT}{{{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}}}{{%- endif -%}}\n",
    ),
    "gemma": ChatForm(
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        "{{- bos_token -}}\n"
        "{%- for message in messages -%}\n"
        "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
        "{{- '<start_of_turn>' + role + '\\n' + (message['content'] | trim) + '<end_of_turn>\\n' -}}\n"
        "{%- endfor -%}\n"
        f"{_PROMPT}{{{{- '<start_of_turn>model\\n' -}}}}{{%- endif -%}}\n",
    ),
    "phi": ChatForm(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        "{%- for message in messages -%}\n"
        "{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}\n"
        "{%- endfor -%}\n"
        f"{_PROMPT}{{{{- '<|assistant|>\\n' -}}}}{{%- endif -%}}\n",
    ),
    "mistral": ChatForm(
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        None,
        "{{- bos_token -}}\n"
        "{%- for message in messages -%}\n"
        "{%- if message['role'] == 'system' -%}\n"
        "{{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' -}}\n"
        "{%- elif message['role'] == 'user' -%}\n"
        "{{- '[INST]' + message['content'] + '[/INST]' -}}\n"
        "{%- else -%}\n"
        "{{- message['content'] + eos_token -}}\n"
        "{%- endif -%}\n"
        "{%- endfor -%}\n",
    ),
}


def role_form(roles: Mapping[str, str], end: str) -> ChatForm:
    """Return the form in which each role has a token of its own, and every turn ends with `end`."""
    starts = json.dumps(dict(roles), ensure_ascii=False)
    last = json.dumps(end, ensure_ascii=False)
    template = (
        f"{{%- set starts = {starts} -%}}\n"
        "{%- for message in messages -%}\n"
        "{%- if message['role'] not in starts -%}"
        "{{- raise_exception('unknown role: ' + message['role']) -}}{%- endif -%}\n"
        f"{{{{- starts[message['role']] + '\\n' + message['content'] + {last} + '\\n' -}}}}\n"
        "{%- endfor -%}\n"
    )
    if "assistant" in roles:
        template += f"{_PROMPT}{{{{- starts['assistant'] + '\\n' -}}}}{{%- endif -%}}\n"
    return ChatForm((*dict.fromkeys(roles.values()), end), end, template)
