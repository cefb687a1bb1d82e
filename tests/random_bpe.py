"""Random BPE tokenizers, for properties."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def random_bpes(draw: st.DrawFn) -> dict[str, Any]:
    """Return the document of a BPE on the letters a, b and c with random merges, several for one token among them."""
    vocabulary = {letter: number for number, letter in enumerate("abc")}
    merges: list[list[str]] = []
    for _ in range(draw(st.integers(0, 30))):
        pair = [draw(st.sampled_from(sorted(vocabulary))) for _ in range(2)]
        if pair not in merges:
            merges.append(pair)
            vocabulary.setdefault("".join(pair), len(vocabulary))
    return {"model": {"type": "BPE", "vocab": vocabulary, "merges": merges}, "added_tokens": []}
