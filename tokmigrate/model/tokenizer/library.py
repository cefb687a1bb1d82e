"""The tokenizers library: the one place that opens a tokenizer with it.

A file keeps how its tokenizer was last used, and the library goes on like that: it fills texts up (padding), shortens
them (truncation), or leaves out merges at random (BPE dropout). What is computed from text must depend on none of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokmigrate.errors import TokmigrateError


def load_tokenizer(source: Path | str | Mapping[str, Any]) -> Any:
    """Return the library's tokenizer of a file, its text or its document, with all that it says.

    Raises:
        BaseException: Whatever the library raises; its panics are no Exception.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only who computes from text pays for it

    if isinstance(source, Path):
        return Tokenizer.from_file(str(source))
    return Tokenizer.from_str(source if isinstance(source, str) else json.dumps(source))


def open_tokenizer(source: Path | str | Mapping[str, Any]) -> Any:
    """Return the same for computing: without the padding, truncation and dropout of its file."""
    tokenizer = load_tokenizer(source)
    drop_saved_state(tokenizer)
    return tokenizer


def drop_saved_state(tokenizer: Any) -> None:
    """Turn off the padding, truncation and BPE dropout of a tokenizer of the library."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None


@contextmanager
def text_alone(tokenizer: Any) -> Iterator[None]:
    """Set the post-processor aside: a template can repeat or drop a text even where no special token is asked for."""
    post_processor = tokenizer.post_processor
    tokenizer.post_processor = None
    try:
        yield
    finally:
        tokenizer.post_processor = post_processor


@contextmanager
def library_errors(raised: Callable[[str], TokmigrateError]) -> Iterator[None]:
    """Raise what `raised` makes of the cause where the library fails or panics inside."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # its panics are no Exception
        raise raised(re.sub(r" at line \d+ column \d+$", "", str(error))) from error
