"""Whether transformers renders a chat template, in its sandbox.

Request: `template`, the text; `tokens`, the special tokens that it may name, `{bos_token: text, …}`.

Answer: `error`, what went wrong, or null; `cpu_seconds`, how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tokmigrate.model.worker.worker_main import run_worker

MESSAGES = ({"role": "user", "content": "Hello"},)
"""The chat that a template is tried on."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415

    error, started = None, time.process_time()
    try:
        render_jinja_template(
            [list(MESSAGES)], chat_template=request["template"], add_generation_prompt=True, **request["tokens"]
        )
    except MemoryError:
        raise
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return {"error": error, "cpu_seconds": time.process_time() - started}


if __name__ == "__main__":
    run_worker(answer)
