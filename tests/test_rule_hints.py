"""Each hint of `tokmigrate lint`, followed: what it was about is gone, nothing new is found, and text survives."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lint_projects import Project
from rule_examples import example_workspace
from tokenizers import Tokenizer

from tokmigrate.commands.plan import plan
from tokmigrate.lint.linter import RULES


@dataclass(frozen=True)
class Case:
    """A finding, and the migration after its hint is followed.

    Args:
        code: The rule.
        hint: What the hint says, whole; "" where that is not what the case is about.
        follow: Gives the migration afterwards: a text, or a function of the one before.
        wrong: The migration, where it is not the rule's example.
        given: The migration before it, where it is not the rule's.
    """

    code: str
    hint: str
    follow: str | Callable[[str], str]
    wrong: str | None = None
    given: str | None = None

    @property
    def example(self) -> str:
        """The migration before."""
        return RULES[self.code].wrong if self.wrong is None else self.wrong

    @property
    def body(self) -> str:
        """The migration afterwards."""
        return self.follow if isinstance(self.follow, str) else self.follow(self.example)


def operations(*lines: str) -> str:
    """Return a migration with these operations."""
    return "operations:\n" + "".join(f"  - {line}\n" for line in lines)


def put(old: str, new: str) -> Callable[[str], str]:
    """Return what writes one text in the place of another."""

    def follow(body: str) -> str:
        assert old in body
        return body.replace(old, new)

    return follow


def add(*lines: str) -> Callable[[str], str]:
    """Return what adds operations."""
    return lambda body: body + "".join(f"  - {line}\n" for line in lines)


def meant(code: str) -> Callable[[str], str]:
    """Return what says of the last line that it is meant."""
    return lambda body: f"{body.rstrip()}  # noqa: {code}\n"


PAD = 'add_tokens: {tokens: [{content: "<|pad|>", special: true}]}'
RESERVED = operations('add_tokens: {tokens: [{content: "<|reserved_0|>", special: true}, "<|reserved_1|>"]}')

_AROUND = RULES["TM306"].given.split("operations:\n")[1]

CASES = (
    Case("TM001", "did you mean '<|endoftext|>'? If not, add it first with add_tokens", RULES["TM001"].right),
    Case("TM101", "give it `normalized: false`, or `special: true`", RULES["TM101"].right),
    Case(
        "TM101",
        "give it `normalized: false`, or `special: true`",
        put('["<tool>"]', '{tokens: [{content: "<tool>", special: true}]}'),
    ),
    Case(
        "TM101",
        "choose a text in which no other token is found first",
        put('"tool>x"', '"<result>"'),
        operations('add_tokens: {tokens: ["tool>x"]}', 'add_tokens: {tokens: [{content: "xtool", special: true}]}'),
    ),
    Case("TM102", "let no token be a prefix, a suffix or a part of another one", RULES["TM102"].right),
    Case(
        "TM103",
        'write "<tool>"; the text keeps its white space. If the token needs it, write `# noqa: TM103` and why',
        put('"<tool> "', '"<tool>"'),
    ),
    Case(
        "TM103",
        'write "<tool>"; the text keeps its white space. If the token needs it, write `# noqa: TM103` and why',
        meant("TM103"),
    ),
    Case(
        "TM103",
        'write "kubernetes"; the text keeps its white space. If the token needs it, write `# noqa: TM103` and why',
        put('" kubernetes"', '{content: "kubernetes", single_word: true}'),
        operations('add_tokens: {tokens: [" kubernetes"]}'),
    ),
    Case("TM104", 'write "<caf\\xe9>", or a text of ASCII letters', put("<cafe\\u0301>", "<cafe>")),
    Case(
        "TM104",
        'write "<\\u4e00\\xe9>", or a text of ASCII letters',
        put("<\\u4e00e\\u0301>", "<\\u4e00\\u00e9>"),
        operations('add_tokens: ["<\\u4e00e\\u0301>"]'),
    ),
    # The composed letter may stand in the text already.
    Case(
        "TM104",
        'write "<\\u4e00\\xe9\\xe9>", or a text of ASCII letters',
        put("<\\u4e00\\u00e9e\\u0301>", "<\\u4e00\\u00e9\\u00e9>"),
        operations('add_tokens: ["<\\u4e00\\u00e9e\\u0301>"]'),
    ),
    Case("TM105", 'write "<tool>"', put("<tool\\u200b>", "<tool>")),
    Case(
        "TM105",
        "choose a text that can be seen",
        put('"\\u200b"', '"<gap>"'),
        operations('add_tokens: ["\\u200b"]'),
    ),
    Case("TM106", "use the token that is there, or choose another text", RULES["TM106"].right),
    Case("TM106", "use the token that is there, or choose another text", put(', "<|Tool|>"', "")),
    Case("TM107", "write it in one script", RULES["TM107"].right),
    Case(
        "TM108",
        'rename_tokens: {tokens: {"<|reserved_0|>": "<tool>"}, init: {strategy: mean}}',
        operations('rename_tokens: {tokens: {"<|reserved_0|>": "<tool>"}, init: {strategy: mean}}'),
    ),
    Case(
        "TM108",
        'rename_tokens: {tokens: {"<|reserved_0|>": "<tool>", "<|reserved_1|>": "<result>"}, init: {strategy: mean}}; '
        'then set_token_flags: {tokens: ["<result>"], special: true}; '
        'then set_token_flags: {tokens: ["<tool>"], special: false}',
        operations(
            'rename_tokens: {tokens: {"<|reserved_0|>": "<tool>", "<|reserved_1|>": "<result>"},'
            " init: {strategy: mean}}",
            'set_token_flags: {tokens: ["<result>"], special: true}',
            'set_token_flags: {tokens: ["<tool>"], special: false}',
        ),
        operations('add_tokens: {tokens: ["<tool>", {content: "<result>", special: true}]}'),
        RESERVED,
    ),
    Case(
        "TM108",
        'rename_tokens: {tokens: {"<|reserved_0|>": "<|im_start|>", "<|reserved_1|>": "<|im_end|>"},'
        ' init: {strategy: mean}}; then set_token_flags: {tokens: ["<|im_end|>"], special: true};'
        " then add_role_tokens with `existing: reuse`",
        operations(
            'rename_tokens: {tokens: {"<|reserved_0|>": "<|im_start|>", "<|reserved_1|>": "<|im_end|>"},'
            " init: {strategy: mean}}",
            'set_token_flags: {tokens: ["<|im_end|>"], special: true}',
            "add_role_tokens: {preset: chatml, existing: reuse, init: {strategy: mean}}",
        ),
        operations("add_role_tokens: {preset: chatml, init: {strategy: mean}}"),
        RESERVED,
    ),
    Case("TM109", "give it `single_word: true`", RULES["TM109"].right),
    Case("TM110", "add a token of its own for that", RULES["TM110"].right),
    Case(
        "TM111",
        "add a token of its own; if it is intended, write `# noqa: TM111` and tell everybody who decodes",
        operations('add_tokens: {tokens: [{content: "<own>", special: true}]}'),
    ),
    Case(
        "TM111",
        "add a token of its own; if it is intended, write `# noqa: TM111` and tell everybody who decodes",
        meant("TM111"),
    ),
    Case("TM112", "give it `normalized: false`", RULES["TM112"].right),
    Case("TM113", "give it the flags where it is added", RULES["TM113"].right),
    Case("TM114", "give it `special: true`, or `special: false` if it is intended", RULES["TM114"].right),
    Case(
        "TM114",
        "give it `special: true`, or `special: false` if it is intended",
        put('["<|tool|>"]', '{tokens: [{content: "<|tool|>", special: false}]}'),
    ),
    Case("TM116", "choose a text of ASCII letters", RULES["TM116"].right),
    Case("TM115", 'write "kubernetes"', put("Ġkubernetes", "kubernetes")),
    Case("TM201", "keep the ids; if it is intended, add `acknowledge: breaking` to move_tokens", RULES["TM201"].right),
    Case(
        "TM202",
        "leave it out; if it is intended, add `acknowledge: breaking` to reinit_tokens",
        put("mean}}", "mean}, acknowledge: breaking}"),
    ),
    Case("TM203", "", operations('add_tokens: {tokens: [{content: "<tool>", init: {strategy: mean}}]}')),
    Case("TM203", "", RULES["TM203"].right),
    Case("TM204", "end with resize_vocab: {multiple_of: 64}", add("resize_vocab: {multiple_of: 64}")),
    Case(
        "TM205",
        "keep the spare rows, later tokens use them first: end with resize_vocab: {rows: 1088}",
        add("resize_vocab: {rows: 1088}"),
    ),
    Case("TM206", "initialise one of them with `description` or `average`", RULES["TM206"].right),
    Case(
        "TM206",
        "initialise one of them with `description` or `average`",
        put(
            '"<tool>", init: {strategy: copy, token: "<|endoftext|>"}',
            '"<tool>", init: {strategy: average, tokens: ["<|endoftext|>", "!"]}',
        ),
    ),
    Case("TM207", "leave it out; if it is intended, write `# noqa: TM207` and why", meant("TM207")),
    Case("TM301", "add it with add_tokens, or correct the template", RULES["TM301"].right),
    Case("TM301", "add it with add_tokens, or correct the template", put("<|turn|>", "")),
    Case("TM302", "give `init:`, such as {strategy: mean} if it is intended", RULES["TM302"].right),
    Case(
        "TM302",
        "give `init:`, such as {strategy: mean} if it is intended",
        put("special: true}", "special: true, init: {strategy: mean}}"),
        operations(
            'add_tokens: {tokens: [{content: "<|begin|>", special: true}]}', 'set_special_tokens: {bos: "<|begin|>"}'
        ),
    ),
    Case(
        "TM303",
        "add a token for padding alone, and pad with it: set_padding: {token: …}",
        operations(PAD, 'set_padding: {token: "<|pad|>", side: left}'),
    ),
    Case(
        "TM304",
        'name it in the template, or set_special_tokens: {additional: {add: ["<|tool|>"]}}',
        add('set_special_tokens: {additional: {add: ["<|tool|>"]}}'),
    ),
    Case(
        "TM304",
        'name it in the template, or set_special_tokens: {additional: {add: ["<|tool|>"]}}',
        lambda body: add(
            'set_chat_template: "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>'
            '{% endfor %}<|tool|>"'
        )(body.replace("preset: chatml,", "preset: chatml, template: keep,")),
    ),
    Case("TM305", 'set_special_tokens: {eos: "<|end|>"}', add('set_special_tokens: {eos: "<|end|>"}')),
    Case(
        "TM306",
        "set_post_processor with '<|begin|>' (id 1024) in the place of '<|endoftext|>', or null",
        add("set_post_processor: null"),
    ),
    Case(
        "TM306",
        "set_post_processor with '<|begin|>' (id 1024) in the place of '<|endoftext|>', or null",
        lambda body: body + _AROUND.replace("<|endoftext|>", "<|begin|>").replace("[0]", "[1024]"),
    ),
    Case("TM307", "leave one of the two out", RULES["TM307"].right),
    Case("TM401", "", RULES["TM401"].right),
    Case("TM402", 'name the file at the top: files = ["…"]', RULES["TM402"].right),
    Case("TM403", "write down what it gave", RULES["TM403"].right),
    Case("TM404", "sort it, or use a list", RULES["TM404"].right),
    Case("TM405", "write what it needs into the file", RULES["TM405"].right),
    Case("TM407", "name the tokens and their purpose", RULES["TM407"].right),
    Case(
        "TM408",
        "fill it in; or delete the file, if it was not applied and no migration follows it",
        RULES["TM408"].right,
    ),
    Case("TM409", "known are demo", RULES["TM409"].right),
    Case("TM410", "verify: [{encodes: {text: …, tokens: […]}}]", RULES["TM410"].right),
    Case("TM411", "restore it, and write a new migration", RULES["TM411"].right),
)
# What a rule shows as right is its hint, followed, too.
ALL = CASES + tuple(
    Case(code, "", rule.right)
    for code, rule in RULES.items()
    if not any(case.code == code and case.wrong is None and case.body == rule.right for case in CASES)
)


@pytest.mark.parametrize("case", ALL, ids=[f"{case.code}-{number}" for number, case in enumerate(ALL)])
def test_a_hint_that_is_followed_solves_it(tmp_path: Path, case: Case) -> None:
    rule = RULES[case.code]
    if case.given is not None:
        rule = replace(rule, given=case.given)
    project = Project(example_workspace(tmp_path / "w", rule, case.example).root)
    found = project.lint(git_base=rule.branch).findings
    said = [each.help for each in found if each.rule.code == case.code]
    assert said
    assert not case.hint or case.hint in said
    # What a token that the hint adds needs in its turn has a case of its own.
    codes = {each.rule.code for each in found} | {"TM204", "TM302"}
    last = sorted((project.root / "migrations").glob("000*"))[-1]
    last.write_text(last.read_text("utf-8").replace(case.example, case.body), "utf-8")
    after = project.lint(git_base=rule.branch).findings
    assert case.code not in {each.rule.code for each in after}
    assert {each.rule.code for each in after} <= codes, [str(each) for each in after]
    # What is shown as right gives no error of any other rule either.
    assert case.body != rule.right or [each.message for each in after if each.is_error] == []
    if case.code not in ("TM401", "TM411"):
        text_survives(project)


def text_survives(project: Project) -> None:
    """Encode and decode texts with each token that the pending migrations bring: it and what is around it come back."""
    workspace = project.workspace
    planned = plan(workspace, workspace.models["demo"])
    after = Tokenizer.from_str(json.dumps(planned.final.documents["tokenizer.json"]))
    new = planned.final.tokenizer.ids.keys() - planned.snapshot.state.tokenizer.ids.keys()
    for token in sorted(new):
        for text in (token, f"x {token} x", f"x {token}, x", f"{token} {token}"):
            ids = after.encode(text, add_special_tokens=False).ids
            if read_back(after, text.replace(token, "x")) == text.replace(token, "x"):
                assert after.decode(ids, skip_special_tokens=False) == text
        assert planned.final.tokenizer.ids[token] in after.encode(f"x {token.strip()} x {token} x").ids


def read_back(tokenizer: Tokenizer, text: str) -> str:
    """Return what encoding and decoding makes of a text."""
    decoded: str = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
    return decoded


def test_lstrip_is_no_way_to_write_a_word_with_its_space(tmp_path: Path) -> None:
    """What TM103 said before: the control that must fail."""
    project = Project(example_workspace(tmp_path / "w", RULES["TM103"], operations('add_tokens: [" kubernetes"]')).root)
    text_survives(project)
    (path,) = (project.root / "migrations").glob("000*")
    followed = '{tokens: [{content: "kubernetes", lstrip: true}]}'
    path.write_text(path.read_text("utf-8").replace('[" kubernetes"]', followed), "utf-8")
    with pytest.raises(AssertionError):
        text_survives(project)


def test_a_file_that_git_ignores_is_added_as_the_hint_says(tmp_path: Path) -> None:
    rule = RULES["TM406"]
    project = Project(example_workspace(tmp_path / "w", rule, rule.wrong).root)
    (found,) = [each for each in project.lint().findings if each.rule is rule]
    command = re.match(r"(git add -f \S+), in the folder of the migrations", found.help or "")
    assert command
    subprocess.run(command[1].split(), cwd=project.root / "migrations", check=True)
    assert "TM406" not in project.codes()


def test_a_migration_without_operations_is_deleted_as_the_hint_says(tmp_path: Path) -> None:
    rule = RULES["TM408"]
    project = Project(example_workspace(tmp_path / "w", rule, rule.wrong).root)
    assert "TM408" in project.codes()
    (path,) = (project.root / "migrations").glob("000*")
    path.unlink()
    assert project.lint().findings == ()


def test_the_remedy_for_zeros_holds_where_the_embeddings_are_tied(tmp_path: Path) -> None:
    """There the output starts as the input does, so only the first way goes."""
    rule = RULES["TM203"]
    project = Project(example_workspace(tmp_path / "w", rule, rule.wrong).root)
    (found,) = [each for each in project.lint().findings if each.rule is rule]
    assert found.help == (
        "use {strategy: mean}; where input and output are not tied,"
        " {input: {strategy: zeros}, output: {strategy: mean}} does it too"
    )
