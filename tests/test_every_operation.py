"""Every operation on five real tokenizers: up, what transformers makes of it, and every byte back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from making import workspace, write_json
from real_tokenizers import real
from test_real_tokenizers import CASES, Case, Ids, auto_cut, auto_tokenizer, document, library, make_model
from workspaces import contents

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError
from tokmigrate.operations.registry import operation_types


@dataclass(frozen=True)
class Tokens:
    """Tokens of one tokenizer that the operations are tried with.

    Args:
        slot: One that is reserved for a use to come.
        end: One that can end a text.
        start: A special token to put before a text.
    """

    slot: str
    end: str
    start: str


TOKENS = {
    "mistral-chat": Tokens("<|placeholder3|>", "<|end|>", "<s>"),
    "gpt2-roberta": Tokens("madeupword0001", "</s>", "<s>"),
    "oromo-t5": Tokens("<extra_id_7>", "</s>", "<pad>"),
    "gpt2-chatml": Tokens("<|box_start|>", "<|im_end|>", "<|im_start|>"),
    "bert-base-uncased": Tokens("[unused7]", "[SEP]", "[CLS]"),
}


@dataclass(frozen=True)
class Loaded:
    """A model as transformers loads it."""

    directory: Path
    case: Case

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return auto_tokenizer(self.directory)

    @cached_property
    def model(self) -> Any:
        """The model; nothing may be missing, left over or of another size."""
        found, told = getattr(transformers, self.case.auto).from_pretrained(
            self.directory, local_files_only=True, output_loading_info=True
        )
        assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
        return found.eval()

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every token."""
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def rows(self) -> torch.Tensor:
        """The input embeddings, `(vocab, hidden)`."""
        return self.model.get_input_embeddings().weight.detach()

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        return document(self.directory, "config.json")

    def cut(self, text: str) -> Ids:
        """Return a text's ids without special tokens around it."""
        return auto_cut(self.tokenizer, text)

    def row(self, token: str) -> torch.Tensor:
        """Return a token's row."""
        return self.rows[self.ids[token]]


@dataclass(frozen=True)
class Trial:
    """One tokenizer, before an operation and after it."""

    name: str
    before: Loaded
    after: Loaded

    @property
    def tokens(self) -> Tokens:
        """The tokens to try it with."""
        return TOKENS[self.name]

    @cached_property
    def words(self) -> tuple[str, str]:
        """Two words of the vocabulary that no other token is made of."""
        return words_of(self.before.directory)

    def same_rows(self, *others: str) -> None:
        """Every token that is there before and after has its row, but for the others."""
        kept = [token for token in self.before.ids if token in self.after.ids and token not in others]
        assert len(kept) > len(self.before.ids) - 4
        was, now = ([loaded.ids[token] for token in kept] for loaded in (self.before, self.after))
        assert torch.equal(self.before.rows[was], self.after.rows[now])

    def same_ids(self, *others: str) -> None:
        """Every token that is there before has its id, but for the others."""
        was, now = ({k: v for k, v in held.ids.items() if k not in others} for held in (self.before, self.after))
        assert was.items() <= now.items()


def words_of(directory: Path) -> tuple[str, str]:
    """Return the last two words of the vocabulary that no merge goes on from."""
    merges = document(directory, "tokenizer.json")["model"].get("merges", [])
    parts = {part for merge in merges for part in (merge.split(" ") if isinstance(merge, str) else merge)}
    ids = library(directory).get_vocab(with_added_tokens=False)
    last = sorted(ids, key=lambda token: -ids[token])
    found = [token for token in last if (word := token.lstrip("Ġ▁")).isascii() and word.isalpha() and len(word) > 4]
    free = [token for token in found if token not in parts]
    return free[0], free[1]


def is_the_mean(trial: Trial, token: str, row: torch.Tensor) -> None:
    """A row is the mean of the rows of the tokens that were there, up to the rounding of its dtype."""
    wanted = trial.before.rows[sorted(trial.before.ids.values())].double().mean(0)
    assert torch.allclose(row.double(), wanted, rtol=2**-7, atol=2**-8), token


def new_tokens(trial: Trial) -> None:
    ids = trial.after.ids
    assert trial.after.cut("<ent>") == [ids["<ent>"]]
    assert trial.after.cut("x<ent>y").count(ids["<ent>"]) == 1
    assert ids["<ent>"] not in trial.before.ids.values()
    is_the_mean(trial, "<ent>", trial.after.row("<ent>"))
    trial.same_ids()
    trial.same_rows()


def joined(trial: Trial) -> None:
    left, right = _merge(trial)
    text = trial.before.tokenizer.decode([trial.before.ids[left], trial.before.ids[right]])
    number = trial.after.ids[left + right]
    assert number not in trial.before.ids.values()
    assert number in trial.after.cut(text)
    is_the_mean(trial, left + right, trial.after.row(left + right))
    trial.same_ids()
    trial.same_rows()


def whole(trial: Trial) -> None:
    word = _word(trial)
    assert len(trial.before.cut("xylophone")) > 1
    assert trial.after.cut("xylophone") == [trial.after.ids[word]] == [max(trial.after.ids.values())]
    is_the_mean(trial, word, trial.after.row(word))
    trial.same_ids()
    trial.same_rows()


def role_tokens(trial: Trial) -> None:
    judge = trial.after.ids["<|judge|>"]
    assert trial.after.cut("<|judge|>") == [judge]
    assert trial.after.tokenizer.eos_token == trial.tokens.end
    chat = [{"role": "judge", "content": "fair"}]
    written = trial.after.tokenizer.apply_chat_template(chat, tokenize=False)
    assert written.startswith("<|judge|>")
    assert trial.after.cut(written)[0] == judge
    trial.same_ids()
    trial.same_rows()


def rows_initialised_as_stated(trial: Trial) -> None:
    assert torch.equal(trial.after.row("<ent>"), trial.before.row(trial.tokens.end))


def padding(trial: Trial) -> None:
    tokenizer = trial.after.tokenizer
    assert tokenizer.padding_side == "left"
    filled = tokenizer(["a", "a b c d e f g"], padding=True)["input_ids"]
    pad = tokenizer.pad_token_id
    assert filled[0][0] == pad == trial.before.ids[tokenizer.pad_token]
    assert trial.after.config.get("pad_token_id", pad) == pad
    assert tokenizer.backend_tokenizer.padding is None or tokenizer.backend_tokenizer.padding["pad_id"] == pad
    section = document(trial.after.directory, "tokenizer.json")["padding"]
    assert (section["direction"], section["pad_to_multiple_of"], section["pad_id"]) == ("Left", 8, pad)


def special_tokens(trial: Trial) -> None:
    assert trial.after.tokenizer.mask_token == trial.tokens.slot
    assert trial.after.tokenizer.mask_token_id == trial.before.ids[trial.tokens.slot]
    assert trial.after.cut(f"{trial.tokens.slot}") == [trial.before.ids[trial.tokens.slot]]
    trial.same_ids()


def rounded_rows(trial: Trial) -> None:
    old, new = len(trial.before.rows), len(trial.after.rows)
    assert new % 192 == 0 <= new - old < 192
    assert trial.after.config["vocab_size"] == new
    trial.same_rows()


def another_text(trial: Trial) -> None:
    number = trial.before.ids[trial.tokens.slot]
    # A slot that is no added token waits in the vocabulary, where no text becomes it.
    if trial.before.cut(trial.tokens.slot) == [number]:
        assert trial.after.cut("<|tool_call|>") == [number]
    assert trial.after.tokenizer.convert_ids_to_tokens(number) == "<|tool_call|>"
    assert trial.tokens.slot not in trial.after.ids
    trial.same_ids(trial.tokens.slot)
    assert torch.equal(trial.before.rows, trial.after.rows)


def a_placeholder(trial: Trial) -> None:
    word = trial.words[0]
    assert word not in trial.after.ids
    number = trial.before.ids[word]
    assert trial.after.tokenizer.convert_ids_to_tokens(number).startswith("<|removed_")
    text = trial.before.tokenizer.convert_tokens_to_string([word])
    assert number in trial.before.cut(text)
    assert number not in trial.after.cut(text)
    trial.same_ids(word)
    assert torch.equal(trial.before.rows, trial.after.rows)


def ids_that_close_up(trial: Trial) -> None:
    word = trial.words[0]
    number = trial.before.ids[word]
    wanted = {token: at - (at > number) for token, at in trial.before.ids.items() if token != word}
    assert trial.after.ids == wanted
    trial.same_rows(word)


def other_ids(trial: Trial) -> None:
    first, second = trial.words
    assert (trial.after.ids[first], trial.after.ids[second]) == (trial.before.ids[second], trial.before.ids[first])
    trial.same_ids(first, second)
    trial.same_rows()
    text = trial.before.tokenizer.convert_tokens_to_string([first])
    assert trial.after.ids[first] in trial.after.cut(text)


def rows_initialised_again(trial: Trial) -> None:
    word = trial.words[0]
    assert not torch.equal(trial.before.row(word), trial.after.row(word))
    is_the_mean(trial, word, trial.after.row(word))
    trial.same_ids()
    trial.same_rows(word)


def flags(trial: Trial) -> None:
    end = trial.after.ids[trial.tokens.end]
    assert trial.after.tokenizer.added_tokens_decoder[end].lstrip
    assert not trial.before.tokenizer.added_tokens_decoder[end].lstrip
    spaced, close = (f"{trial.tokens.start}{space}{trial.tokens.end}" for space in ("   ", ""))
    assert trial.after.cut(spaced) == trial.after.cut(close) == trial.before.cut(close)
    assert torch.equal(trial.before.rows, trial.after.rows)


def chats(trial: Trial) -> None:
    chat = [{"role": "user", "content": "hi"}]
    assert trial.after.tokenizer.apply_chat_template(chat, tokenize=False) == "user says hi."


def folded(trial: Trial) -> None:
    assert trial.after.tokenizer.backend_tokenizer.normalizer.normalize_str("ﬁ①") == "fi1"
    assert trial.after.cut("ﬁne①") == trial.after.cut("fine1")


def single_digits(trial: Trial) -> None:
    pieces = trial.after.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("123")
    assert [piece.strip("Ġ▁") for piece, _ in pieces if piece.strip("Ġ▁")] == ["1", "2", "3"]
    shown = [text.strip("Ġ▁ #") for text in trial.after.tokenizer.convert_ids_to_tokens(trial.after.cut("123"))]
    assert [text for text in shown if text] == ["1", "2", "3"]


def around_a_text(trial: Trial) -> None:
    start, end = trial.after.ids[trial.tokens.start], trial.after.ids[trial.tokens.end]
    found = trial.after.tokenizer("word")["input_ids"]
    assert found == [start, start, *trial.after.cut("word"), end]


def decoded(trial: Trial) -> None:
    word = trial.words[0]
    pieces = trial.before.cut(trial.before.tokenizer.convert_tokens_to_string([word]))
    wanted = "".join(trial.after.tokenizer.convert_ids_to_tokens(pieces))
    assert trial.after.tokenizer.backend_tokenizer.decode(pieces) == wanted


def cut_off(trial: Trial) -> None:
    tokenizer = trial.after.tokenizer
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (6, "left")
    assert len(tokenizer("one two three four five six seven", truncation=True)["input_ids"]) == 6


def another_vocabulary(trial: Trial) -> None:
    library = Loaded(real(_donor(trial)), trial.before.case).tokenizer.backend_tokenizer
    text = "The model reads Wörter again, 12 times.\n"
    assert trial.after.cut(text) == library.encode(text, add_special_tokens=False).ids
    assert len(trial.after.rows) == max(trial.after.ids.values()) + 1 == trial.after.config["vocab_size"]
    pairs = [(_spell(trial.before, word), _spell(trial.after, word)) for word in ("in", "an", "that", "have")]
    # Without a mark they go on a word, but in WordPiece.
    parts = [] if "##s" in trial.before.ids else ["in", "an", "er", "on"]
    pairs += [(part, part) for part in parts if part in trial.before.ids and part in trial.after.ids]
    rows = [torch.equal(trial.before.row(old), trial.after.row(new)) for old, new in pairs if old and new]
    assert rows
    assert all(rows)


Effect = Callable[[Trial], None]
Written = Callable[[Trial], list[dict[str, Any]]]


def _around(trial: Trial) -> dict[str, Any]:
    start, end, ids = trial.tokens.start, trial.tokens.end, trial.before.ids
    special = [{"SpecialToken": {"id": token, "type_id": 0}} for token in (start, start)]
    last = {"SpecialToken": {"id": end, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*special, {"Sequence": {"id": "A", "type_id": 0}}, last],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (start, end)},
    }


def _digits(trial: Trial) -> dict[str, Any]:
    held = document(trial.before.directory, "tokenizer.json")["pre_tokenizer"]
    digits = {"type": "Digits", "individual_digits": True}
    return {"type": "Sequence", "pretokenizers": [digits, *([held] if held else [])]}


def _padding(trial: Trial) -> dict[str, Any]:
    return {"side": "left", "pad_to_multiple_of": 8, "token": trial.before.tokenizer.pad_token}


def _removed(trial: Trial, ids: str) -> dict[str, Any]:
    return {"remove_tokens": {"tokens": [trial.words[0]], "ids": ids, "acknowledge": "breaking"}}


def _merge(trial: Trial) -> list[str]:
    """Return two tokens that follow each other in a text, and are no token together."""
    numbers = trial.before.cut("xylophone quartz")
    found = ([trial.before.tokenizer.convert_ids_to_tokens(number) for number in pair] for pair in pairwise(numbers))
    return next(pair for pair in found if "".join(pair) not in trial.before.ids and pair[1][0] not in "\u0120\u2581")


def _word(trial: Trial) -> str:
    """Return a word that is several tokens, as the vocabulary spells it."""
    return "".join(trial.before.tokenizer.convert_ids_to_tokens(trial.before.cut("xylophone"))).replace("##", "")


def _spell(loaded: Loaded, word: str) -> str | None:
    """Return how a vocabulary spells a word behind a space, None where it is no token."""
    marks = ("",) if "##s" in loaded.ids else ("\u2581", "\u0120")
    return next((mark + word for mark in marks if mark + word in loaded.ids), None)


def _donor(trial: Trial) -> str:
    return "mistral-chat-small" if trial.name == "gpt2-chatml" else "gpt2-chatml"


def _transplanted(_: Trial) -> dict[str, Any]:
    init = {"strategy": "subtokens"}
    return {"transplant": {"tokenizer": "donor", "init": init, "template": "donor", "acknowledge": "breaking"}}


def _roles(trial: Trial) -> dict[str, Any]:
    return {"add_role_tokens": {"roles": {"judge": "<|judge|>"}, "end": trial.tokens.end, "existing": "reuse"}}


ENTITY = {"add_tokens": {"tokens": [{"content": "<ent>", "special": True}]}}

EFFECTS: dict[str, tuple[Written, Effect]] = {
    "add_tokens": (lambda _: [ENTITY], new_tokens),
    "add_role_tokens": (lambda trial: [_roles(trial)], role_tokens),
    "set_init": (
        lambda trial: [{"set_init": {"init": {"strategy": "copy", "token": trial.tokens.end}}}, ENTITY],
        rows_initialised_as_stated,
    ),
    "set_padding": (lambda trial: [{"set_padding": _padding(trial)}], padding),
    "set_special_tokens": (lambda trial: [{"set_special_tokens": {"mask": trial.tokens.slot}}], special_tokens),
    "resize_vocab": (lambda _: [{"resize_vocab": {"multiple_of": 192}}], rounded_rows),
    "rename_tokens": (
        lambda trial: [{"rename_tokens": {"tokens": {trial.tokens.slot: "<|tool_call|>"}}}],
        another_text,
    ),
    "remove_tokens": (lambda trial: [_removed(trial, "compact")], ids_that_close_up),
    "remove_tokens tombstone": (lambda trial: [_removed(trial, "tombstone")], a_placeholder),
    "move_tokens": (
        lambda trial: [
            {
                "move_tokens": {
                    "acknowledge": "breaking",
                    "tokens": dict(zip(trial.words, (trial.before.ids[w] for w in trial.words[::-1]), strict=True)),
                }
            }
        ],
        other_ids,
    ),
    "reinit_tokens": (
        lambda trial: [{"reinit_tokens": {"acknowledge": "breaking", "tokens": [trial.words[0]]}}],
        rows_initialised_again,
    ),
    "set_token_flags": (
        lambda trial: [{"set_token_flags": {"tokens": [trial.tokens.end], "lstrip": "true"}}],
        flags,
    ),
    "set_chat_template": (
        lambda _: [{"set_chat_template": {"template": "{{ messages[0].role }} says {{ messages[0].content }}."}}],
        chats,
    ),
    "set_normalizer": (lambda _: [{"set_normalizer": {"normalizer": {"type": "NFKC"}}}], folded),
    "set_pre_tokenizer": (
        lambda trial: [{"set_pre_tokenizer": {"acknowledge": "breaking", "pre_tokenizer": _digits(trial)}}],
        single_digits,
    ),
    "set_post_processor": (lambda trial: [{"set_post_processor": {"post_processor": _around(trial)}}], around_a_text),
    "set_decoder": (lambda _: [{"set_decoder": {"decoder": {"type": "Fuse"}}}], decoded),
    "extend_vocab": (lambda trial: [{"extend_vocab": {"merges": [_merge(trial)]}}], joined),
    "add_words": (lambda trial: [{"add_words": {"words": [_word(trial)]}}], whole),
    "transplant": (lambda trial: [_transplanted(trial)], another_vocabulary),
    "set_truncation": (lambda _: [{"set_truncation": {"max_length": 6, "direction": "left"}}], cut_off),
}


@pytest.fixture(scope="module", params=[case for case in CASES if case.tokenizer in TOKENS], ids=lambda c: c.tokenizer)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model as it is before."""
    case: Case = request.param
    return Loaded(make_model(tmp_path_factory.mktemp(case.tokenizer) / "base", case), case)


def test_every_operation_has_its_effect() -> None:
    assert {name.split(" ")[0] for name in EFFECTS} == set(operation_types())


@pytest.mark.parametrize(
    ("operation", "refused"),
    [({"set_normalizer": {"normalizer": "NFKC"}}, True), ({"set_post_processor": {"post_processor": None}}, False)],
    ids=["built", "read"],
)
def test_a_part_that_transformers_would_never_read_is_refused(
    operation: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.tokenizer == "gpt2-chatml")
    model = make_model(tmp_path / "m", case)
    write_json(model / "config.json", document(model, "config.json") | {"model_type": "qwen2"})
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [operation]}])
    if not refused:
        assert plan(made.workspace, made.entry("m")).steps
        return
    with pytest.raises(OperationError, match="Qwen2Tokenizer, which builds the normalizer itself"):
        plan(made.workspace, made.entry("m"))


@pytest.mark.parametrize("name", EFFECTS)
def test_up_the_effect_and_down(name: str, base: Loaded, tmp_path: Path) -> None:
    written, effect = EFFECTS[name]
    model = shutil.copytree(base.directory, tmp_path / "m")
    before = contents(model)
    trial = Trial(base.case.tokenizer, base, Loaded(model, base.case))
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": written(trial)}])
    is_bpe = "merges" in document(model, "tokenizer.json")["model"]
    if name == ("add_words" if is_bpe else "extend_vocab"):
        with pytest.raises(OperationError, match="by a BPE tokenizer" if is_bpe else "has no merges"):
            plan(made.workspace, made.entry("m"))
        return
    if name == "transplant":
        shutil.copytree(real(_donor(trial)), made.workspace.migrations / "donor")
    if name == "transplant" and "roberta" in trial.name:
        with pytest.raises(OperationError, match="counts its positions from pad_token_id"):
            plan(made.workspace, made.entry("m"))
        return
    upgrade(replace(made.workspace, verify="fast"), made.entry("m"))
    effect(trial)
    ids = trial.after.cut("A model reads the word again.")
    with torch.no_grad():
        given = {"input_ids": torch.tensor([ids])}
        more = {"decoder_input_ids": torch.tensor([ids[:3]])} if "t5" in trial.name else {}
        assert torch.isfinite(trial.after.model(**given, **more)[0]).all()
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before
