"""JSON text: what is written is what the json module would write, in each layout."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tokmigrate.model.formats.json_text import Layout, Parts

TEXTS = st.text(st.sampled_from('a]}[{,:"\\\0\1\2\n é \U0001f642'), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)
FLAT = st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=2)
# As `added_tokens` and `added_tokens_decoder`: members that hold no containers.
LISTED = st.lists(FLAT, max_size=4) | st.dictionaries(TEXTS, FLAT, max_size=4)
# The members of `vocab` and `merges`, over the bounds of a block.
LARGE = st.builds(
    lambda count, pair: {"vocab": {str(n): n for n in range(count)}, "merges": [pair] * count},
    st.sampled_from((4095, 4096, 4097)),
    st.lists(SCALARS, max_size=3),
)
LAYOUTS = st.builds(Layout, indent=st.sampled_from((None, 0, 1, 2, "\t")), ascii=st.booleans()) | st.builds(
    Layout, indent=st.none(), compact=st.just(value=True)
)


@given(VALUES | LISTED | LARGE, LAYOUTS)
def test_text_is_what_the_json_module_writes(value: object, layout: Layout) -> None:
    """The faster way changes no byte, whatever brackets and control characters the strings hold."""
    separators = (",", ":") if layout.compact else None
    expected = json.dumps(value, indent=layout.indent, ensure_ascii=layout.ascii, separators=separators) + "\n"
    assert layout.encode(value) == expected.encode()


@given(st.lists(LARGE, min_size=1, max_size=2), st.lists(st.tuples(st.integers(0, 1), SCALARS), max_size=6), LAYOUTS)
def test_what_states_share_is_written_once(large: list[dict], states: list[tuple[int, object]], layout: Layout) -> None:
    """The text is the same whichever states were written before."""
    parts: Parts = {}
    for which, other in states:
        value = {"added_tokens": [other], "model": large[which % len(large)]}
        assert layout.encode(value, parts) == layout.encode(value)
    assert len(parts) <= 4
