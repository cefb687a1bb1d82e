"""Short texts with new tokens in them: chosen from a corpus, or written by the model itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from blake3 import blake3

from tokmigrate.commands.earlier_tokenizer import EarlierTokenizer
from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.training.loaded_model import LoadedModel, silence_libraries

LENGTH, BEFORE = 50, 16
"""How many tokens a snippet has, and how many of them at most before the new one: what follows it is what learns."""

_BATCH = 64
"""How many texts are written at a time."""

_SPARE = 4
"""How many times as many snippets of a token are held as are wanted, before the surplus is dropped."""


class SnippetSample:
    """The snippets of each token that are drawn from texts, whatever the order of the texts.

    Those with the smallest digests are a random sample, and the same on every machine.

    Args:
        tokenizer: That of the tokenizers library.
        ids: The tokens to find.
        each: How many snippets a token gets.
    """

    def __init__(self, tokenizer: Any, ids: Collection[int], each: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._each = each
        self._seed = seed
        self._found: dict[int, dict[bytes, str]] = {number: {} for number in ids}

    def add(self, texts: Sequence[str]) -> None:
        """Draw from further texts."""
        with text_alone(self._tokenizer):
            encodings = self._tokenizer.encode_batch(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            for place, number in enumerate(encoding.ids):
                if number in self._found:
                    self._draw(number, _cut(text, encoding.offsets, place))

    def _draw(self, number: int, snippet: str) -> None:
        held = self._found[number]
        held[blake3(f"{self._seed} {snippet}".encode()).digest()] = snippet
        if len(held) > self._each * _SPARE:
            self._found[number] = self._smallest(held)

    def _smallest(self, held: Mapping[bytes, str]) -> dict[bytes, str]:
        return {digest: held[digest] for digest in sorted(held)[: self._each]}

    def snippets(self) -> list[str]:
        """Return the snippets of all tokens, each once, in the order of their digests."""
        chosen: dict[bytes, str] = {}
        for held in self._found.values():
            chosen |= self._smallest(held)
        return [chosen[digest] for digest in sorted(chosen)]


def _cut(text: str, offsets: Sequence[tuple[int, int]], place: int) -> str:
    first = max(0, place - BEFORE)
    within = offsets[first : first + LENGTH]
    return text[within[0][0] : max(stop for _, stop in within)]


def write_snippets(
    loaded: LoadedModel, earlier: EarlierTokenizer, ids: Iterable[int], each: int, seed: int
) -> Iterator[str]:
    """Yield texts that a decoder goes on to write behind new tokens, with the tokens of its earlier tokenizer.

    Args:
        ids: The new tokens; there is nothing of one whose text alone the tokenizer does not make that token of.
        each: How many texts are written behind each.
    """
    import torch  # noqa: PLC0415 - seconds
    from transformers import GenerationConfig  # noqa: PLC0415

    tokenizer = open_tokenizer(earlier.tokenizer.document)
    numbers = {row: number for number, row in earlier.rows.items()}
    stop = loaded.model.generation_config.eos_token_id
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=LENGTH,
        suppress_tokens=[row for row in range(len(loaded.input_rows)) if row not in numbers] or None,
        eos_token_id=stop,
        pad_token_id=stop[0] if isinstance(stop, list) else stop or 0,
    )
    torch.manual_seed(seed)
    # Starts of one length need no padding.
    by_length: dict[int, list[list[int]]] = {}
    for number in ids:
        text = _find_text(loaded, number)
        start = [earlier.rows.get(piece, -1) for piece in _without_end(tokenizer.encode(text))] if text else []
        if start and -1 not in start:
            by_length.setdefault(len(start), []).extend([start] * each)
    for starts in by_length.values():
        for first in range(0, len(starts), _BATCH):
            given = torch.tensor(starts[first : first + _BATCH], device=loaded.device)
            with torch.inference_mode(), silence_libraries():
                written = loaded.model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
            for line in written.tolist():
                yield tokenizer.decode([numbers[row] for row in line if row in numbers])


def _find_text(loaded: LoadedModel, number: int) -> str | None:
    """Return the text that the tokenizer makes a token of, where it is alone."""
    text = loaded.tokenizer.decode([number], skip_special_tokens=False)
    # Some decoders drop the space before the first word.
    return next((each for each in (text, f" {text}") if number in loaded.tokenizer.encode(each).ids), None)


def _without_end(encoding: Any) -> list[int]:
    """Return the ids of a text without the special tokens behind it."""
    last = max((place for place, special in enumerate(encoding.special_tokens_mask) if not special), default=-1)
    ids: list[int] = encoding.ids[: last + 1]
    return ids
