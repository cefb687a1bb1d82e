"""Short texts with new tokens in them: chosen from a corpus, or written by the model itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from blake3 import blake3

from tokmigrate.model.tokenizer.library import text_alone

LENGTH, BEFORE = 50, 16
"""How many tokens a snippet has, and how many of them at most before the new one: what follows it is what learns."""

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
        self.occurrences = dict.fromkeys(ids, 0)

    def add(self, texts: Sequence[str]) -> None:
        """Draw from further texts."""
        with text_alone(self._tokenizer):
            encodings = self._tokenizer.encode_batch(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            for place, number in enumerate(encoding.ids):
                if number in self._found:
                    self.occurrences[number] += 1
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
    model: Any, tokenizer: Any, rows: Mapping[int, int], texts: Iterable[str], each: int, seed: int
) -> list[str]:
    """Return texts that a decoder goes on to write behind others, with the tokens of an earlier tokenizer.

    Args:
        tokenizer: The earlier tokenizer, of the tokenizers library.
        rows: The row of the model of each of its ids.
        each: How many texts are written behind each.
    """
    import torch  # noqa: PLC0415 - seconds
    from transformers import GenerationConfig  # noqa: PLC0415

    torch.manual_seed(seed)
    ids = {row: number for number, row in rows.items()}
    others = [row for row in range(model.get_input_embeddings().weight.shape[0]) if row not in ids]
    stop = model.generation_config.eos_token_id
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=LENGTH,
        num_return_sequences=each,
        suppress_tokens=others or None,
        eos_token_id=stop,
        pad_token_id=stop[0] if isinstance(stop, list) else stop or 0,
    )
    found: list[str] = []
    for text in texts:
        start = [rows.get(number) for number in _without_end(tokenizer.encode(text))]
        if start and None not in start:
            with torch.inference_mode():
                written = model.generate(torch.tensor([start], device=model.device), generation_config=config)
            found += [tokenizer.decode([ids[row] for row in line]) for line in written.tolist()]
    return found


def _without_end(encoding: Any) -> list[int]:
    """Return the ids of a text without the special tokens behind it."""
    last = max((place for place, special in enumerate(encoding.special_tokens_mask) if not special), default=-1)
    ids: list[int] = encoding.ids[: last + 1]
    return ids
