"""What the hint of a refused operation says is written into the migration, and then it can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import Workspace, make_workspace

PROCESSOR = """set_post_processor:
      type: TemplateProcessing
      single: [{SpecialToken: {id: "<|endoftext|>", type_id: 0}}, {Sequence: {id: A, type_id: 0}}]
      pair: [{Sequence: {id: A, type_id: 0}}, {Sequence: {id: B, type_id: 0}}]
      special_tokens: {SPECIAL}"""


def processor(ids: str = "") -> str:
    """Return a post-processor that gives its special token these ids, or does not define it."""
    defined = f'"<|endoftext|>": {{id: "<|endoftext|>", ids: [{ids}], tokens: ["<|endoftext|>"]}}' if ids else ""
    return PROCESSOR.replace("SPECIAL", defined)


def remove(token: str, how: str) -> str:
    return f'remove_tokens: {{tokens: ["{token}"], {how}, acknowledge: breaking}}'


def move(pairs: str) -> str:
    return f"move_tokens: {{tokens: {{{pairs}}}, acknowledge: breaking}}"


def start(init: str) -> str:
    return f'add_tokens: {{tokens: [{{content: "<a>", init: {{{init}}}}}]}}'


def then(*operations: str) -> str:
    return "\n  - ".join(operations)


VALLEY = '"Ġvalley": '
NEW_END = 'add_tokens: {tokens: [{content: "<|end|>", special: true}]}'
END_AND_BEGIN = 'set_special_tokens: {bos: "<|end|>", eos: "<|end|>"}'
LSTRIP = 'add_tokens: {tokens: [{content: "<|endoftext|>", special: true, lstrip: true}], existing: reuse}'
CHATML = "add_role_tokens: {preset: chatml}"

# What is refused, what the hint says, and each way to follow it.
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ('add_tokens: ["<a>", "<a>"]', "leave one of them out", ('add_tokens: ["<a>"]',)),
    (
        LSTRIP,
        "leave `lstrip` out, or set it: set_token_flags: {tokens: …, lstrip: true}",
        (LSTRIP.replace(", lstrip: true", ""), 'set_token_flags: {tokens: ["<|endoftext|>"], lstrip: true}'),
    ),
    (
        'add_tokens: ["<|endoftext|>"]',
        "add `existing: reuse` to the operation",
        ('add_tokens: {tokens: ["<|endoftext|>"], existing: reuse}',),
    ),
    (
        then(CHATML, CHATML),
        "aaaa0001 adds it: leave it out here",
        (CHATML,),
    ),
    ('add_words: ["Ġvalleys"]', "append merges with extend_vocab", ('extend_vocab: {merges: [["Ġvalley", "s"]]}',)),
    (
        'extend_vocab: {merges: [["Ġvalley", "s"], ["Ġval", "ley"]]}',
        "leave the merge out",
        ('extend_vocab: {merges: [["Ġvalley", "s"]]}',),
    ),
    (
        'rename_tokens: {tokens: {"<|endoftext|>": "a"}}',
        "choose a text that is not a token yet",
        ('rename_tokens: {tokens: {"<|endoftext|>": "<|end|>"}}',),
    ),
    (
        then('add_tokens: ["<a>", "<b>"]', 'rename_tokens: {tokens: {"<a>": "<c>", "<b>": "<c>"}}'),
        "give one another text",
        (then('add_tokens: ["<a>", "<b>"]', 'rename_tokens: {tokens: {"<a>": "<c>", "<b>": "<d>"}}'),),
    ),
    (
        'rename_tokens: {tokens: {"Ġvalley": "Ġdale"}}',
        "rename only tokens that no merge takes or makes, such as added ones",
        ('rename_tokens: {tokens: {"<|endoftext|>": "<|end|>"}}',),
    ),
    (
        move(f"{VALLEY}2000"),
        "add rows first: resize_vocab: {rows: 2001}",
        (then("resize_vocab: {rows: 2001}", move(f"{VALLEY}2000")),),
    ),
    (
        move(f"{VALLEY}1020"),
        "move that token as well, or choose a row without token",
        (move(f'{VALLEY}1020, "Ġapples": 1023'), then("resize_vocab: {rows: 1088}", move(f"{VALLEY}1030"))),
    ),
    (move(f'{VALLEY}1020, "Ġapples": 1020'), "give one another id", (move(f'{VALLEY}1020, "Ġapples": 1023'),)),
    (
        "resize_vocab: {}",
        "give `rows:` or `multiple_of:`",
        ("resize_vocab: {rows: 1088}", "resize_vocab: {multiple_of: 64}"),
    ),
    ("resize_vocab: {rows: 1000}", "rows: 1024", ("resize_vocab: {rows: 1024}",)),
    (
        "resize_vocab: {rows: 1088, init: {strategy: subtokens}}",
        "use mean",
        ("resize_vocab: {rows: 1088, init: {strategy: mean}}",),
    ),
    (
        remove("Ġvalley", "ids: tombstone, shrink: true"),
        "use `ids: compact`, or leave out `shrink`",
        (remove("Ġvalley", "ids: compact, shrink: true"), remove("Ġvalley", "ids: tombstone")),
    ),
    (
        remove("Ġt", "ids: tombstone"),
        "add `with: unreachable` to remove them as well, or keep what they are made of",
        (remove("Ġt", "ids: tombstone, with: unreachable"), remove("Ġvalley", "ids: tombstone")),
    ),
    (
        then('add_tokens: ["<|removed_1023|>"]', remove("Ġvalley", "ids: tombstone")),
        "else rename it first",
        (
            then(
                'add_tokens: ["<|removed_1023|>"]',
                'rename_tokens: {tokens: {"<|removed_1023|>": "<a>"}}',
                remove("Ġvalley", "ids: tombstone"),
            ),
        ),
    ),
    (
        remove("<|endoftext|>", "ids: tombstone"),
        "let another token do that first, or keep it",
        (then(NEW_END, END_AND_BEGIN, remove("<|endoftext|>", "ids: tombstone")),),
    ),
    (remove("a", "ids: tombstone"), "keep all letters and bytes", (remove("Ġvalley", "ids: tombstone"),)),
    ("set_special_tokens: {}", "give one of bos, eos, unk", ('set_special_tokens: {eos: "Ġvalley"}',)),
    (
        'set_special_tokens: {eos: "<|endoftxt|>"}',
        "did you mean '<|endoftext|>'? If not, add it first with add_tokens",
        (
            'set_special_tokens: {eos: "<|endoftext|>"}',
            then('add_tokens: ["<|endoftxt|>"]', 'set_special_tokens: {eos: "<|endoftxt|>"}'),
        ),
    ),
    (
        'set_token_flags: {tokens: ["<|endoftext|>"]}',
        "give one of single_word, lstrip, rstrip, normalized, special",
        ('set_token_flags: {tokens: ["<|endoftext|>"], rstrip: true}',),
    ),
    (
        'set_token_flags: {tokens: ["<|endoftext|>"], special: false}',
        "give the role to another token first, with set_special_tokens",
        (then(NEW_END, END_AND_BEGIN, 'set_token_flags: {tokens: ["<|endoftext|>"], special: false}'),),
    ),
    (
        'set_token_flags: {tokens: ["Ġvalley"], lstrip: true}',
        "give `special: true` or `special: false` to make it an added token",
        (
            'set_token_flags: {tokens: ["Ġvalley"], lstrip: true, special: true}',
            'set_token_flags: {tokens: ["Ġvalley"], lstrip: true, special: false}',
        ),
    ),
    (start('strategy: copy, token: "Ġvaley"'), "did you mean 'Ġvalley'?", (start('strategy: copy, token: "Ġvalley"'),)),
    (
        start('strategy: copy, token: "of a tool"'),
        "name a token as the vocabulary writes it, or use `description` for a text",
        (start('strategy: copy, token: "Ġvalley"'), start('strategy: description, text: "of a tool"')),
    ),
    ("set_padding: {side: left}", "give `token:`", ('set_padding: {side: left, token: "<|endoftext|>"}',)),
    ("set_truncation: {}", "give `max_length:`, or `off`", ("set_truncation: {max_length: 64}", "set_truncation: off")),
    (
        "set_truncation: {max_length: off, stride: 3}",
        "give `max_length: off` alone",
        ("set_truncation: {max_length: off}",),
    ),
    (
        "set_truncation: {max_length: 3, stride: 5}",
        "give at least 6, or a smaller stride",
        ("set_truncation: {max_length: 6, stride: 5}", "set_truncation: {max_length: 3, stride: 2}"),
    ),
    (
        "set_normalizer: {type: Nope}",
        "known types are BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, "
        "Replace, Sequence, Strip, StripAccents\n",
        ("set_normalizer: {type: Lowercase}", "set_normalizer: {type: Strip, strip_left: true, strip_right: true}"),
    ),
    (
        "set_normalizer: {type: LowerCase}",
        "did you mean 'Lowercase'?",
        ("set_normalizer: {type: Lowercase}",),
    ),
    (
        "set_normalizer: {type: Strip}",
        "give the fields that Strip has in a tokenizer.json",
        ("set_normalizer: {type: Strip, strip_left: true, strip_right: true}",),
    ),
    (processor(), 'add "NAME": {"id": "NAME", "ids": [id], "tokens": ["NAME"]} there', (processor("0"),)),
    (processor("5"), "write 0", (processor("0"),)),
    (processor("0, 0"), "give `ids` and `tokens` of it the same length", (processor("0"),)),
    ("set_chat_template: {}", "`template:` is the text itself", ('set_chat_template: {template: "{{ messages }}"}',)),
    ('set_chat_template: "{% if %}"', "correct that line", ('set_chat_template: "{% if messages %}{% endif %}"',)),
    (
        'reinit_tokens: {tokens: ["Ġvalley"], init: {strategy: mean}}',
        "add `acknowledge: breaking`, as in `reinit_tokens: {tokens: …, init: …, acknowledge: breaking}`",
        ('reinit_tokens: {tokens: ["Ġvalley"], init: {strategy: mean}, acknowledge: breaking}',),
    ),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace without migrations; plans change nothing in it."""
    made = make_workspace(tmp_path_factory.mktemp("hints") / "w")
    for path in (made.root / "migrations").iterdir():
        path.unlink()
    return made


@pytest.mark.parametrize(("wrong", "hint", "right"), CASES, ids=[wrong for wrong, _, _ in CASES])
def test_a_hint_that_is_followed_makes_the_operation_work(
    place: Workspace, wrong: str, hint: str, right: tuple[str, ...]
) -> None:
    assert hint in plan(place, wrong, 1)
    for operations in right:
        plan(place, operations, 0)


def plan(place: Workspace, operations: str, code: int) -> str:
    """Plan a migration with these operations, and return what is printed as an error."""
    path: Path = place.root / "migrations" / "0001_m.yaml"
    head = "format: 1\nrevision: aaaa0001\ndown_revision: null\nmessage: m\noperations:\n"
    path.write_text(f"{head}  - {operations}\n", "utf-8")
    done = place.run("plan")
    assert done.returncode == code, (operations, done.stderr)
    return done.stderr
