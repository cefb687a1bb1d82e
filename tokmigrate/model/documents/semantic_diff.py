"""In what two tokenizers differ, however their files are written: each part of both is put into one spelling first.

The spellings that mean the same were read off what tokenizers 0.23 writes for what it read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Literal

from tokmigrate.errors import DriftError
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.config_fields import read_declared_sizes
from tokmigrate.model.documents.declared import (
    ID_FILES,
    Documents,
    read_declared_ids,
    read_declared_roles,
    read_declared_settings,
)
from tokmigrate.model.documents.roles import list_specials
from tokmigrate.model.documents.state import CONFIG
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS, SECTIONS, Tokenizer, merges_of, model_kind
from tokmigrate.vocabulary.ids import token_delta

PARTS = (*SECTIONS, "truncation", "padding")
"""The parts of tokenizer.json beside its model and its added tokens."""

_INSIDE = ("normalizers", "pretokenizers", "processors", "decoders")

_DEFAULTS: Mapping[str, Mapping[str, Json]] = MappingProxyType(
    {
        "BertNormalizer": {"strip_accents": None},
        "ByteLevel": {"use_regex": True},
        "Digits": {"individual_digits": False},
        "FixedLength": {"length": 5},
        "Metaspace": {"prepend_scheme": "always", "split": True},
        "Punctuation": {"behavior": "Isolated"},
        "Split": {"invert": False},
        "BPE": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
        "Unigram": {"unk_id": None, "byte_fallback": False},
    }
)
"""What the library takes for a field that is not written."""

_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]
_BOTH = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]


def canonical_part(part: Json) -> Json:
    """Return a part of tokenizer.json with its defaults written, its old spellings replaced and no needless nesting.

    None is returned for a part that does nothing.
    """
    if not isinstance(part, dict):
        return part
    held = next((name for name in _INSIDE if isinstance(part.get(name), list)), None)
    if held is not None:
        inner = [each for each in map(canonical_part, part[held]) if each is not None]
        flat = [each for one in inner for each in one.get(held, [one])]
        return {**part, held: flat} if len(flat) > 1 else (flat[0] if flat else None)
    part = {**_DEFAULTS.get(str(part.get("type")), {}), **part}
    if part.get("type") == "Metaspace":
        part.pop("str_rep", None)
        # Only a scheme that says the same may stand beside it.
        part.pop("add_prefix_space", None)
    if part.get("type") == "TemplateProcessing":
        pieces = [piece for side in ("single", "pair") for piece in part.get(side) or []]
        used = {piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece}
        if not used and part.get("single") == _ALONE and part.get("pair") == _BOTH:
            # What the library does without a post-processor.
            return None
        specials = part.get("special_tokens") or {}
        part["special_tokens"] = {name: held for name, held in specials.items() if name in used}
    return {"direction": "Right", **part} if "strategy" in part else part


def canonical_model(document: Json) -> dict[str, Json]:
    """Return the settings of a tokenizer's model, without its vocabulary and merges."""
    model = document["model"]
    kind = model_kind(document)
    settings = {name: held for name, held in model.items() if name not in ("type", "vocab", "merges")}
    settings = {"type": kind, **_DEFAULTS.get(kind, {}), **settings}
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        # An empty one changes nothing; WordPiece has one always.
        if kind == "BPE" and not settings[name]:
            settings[name] = None
    return settings


_Token = Literal["added", "removed", "renamed", "moved", "flags", "scores", "rounding", "merges"]
_Setting = Literal["model", "part", "role", "specials", "template", "setting", "id field", "rows"]
Aspect = _Token | _Setting
"""What a difference is about.

`added`, `removed`: a token, with its id. `renamed`: an id, with its texts. `moved`: a token, with its ids. `flags`: a
flag of an added token; `added` among them says whether it is one. `scores`: how many pieces of a Unigram model weigh
otherwise; `rounding`: how many do in the last digits of the score alone, which decide between equal sums. `merges`:
how many only one side has, or the place of the first that stands elsewhere. `model`, `part`: a setting of the
tokenizer's model, or a part of tokenizer.json. `role`: a special token. `specials`: those that are listed.
`template`: a chat template by its name. `setting`: of tokenizer_config.json. `id field`: of config.json or
generation_config.json. `rows`: a size that config.json gives.
"""


@dataclass(frozen=True)
class Difference:
    """One difference between two tokenizers: what it is about, which token, id or field, and what each has or None."""

    aspect: Aspect
    subject: str
    before: Json
    after: Json

    def __str__(self) -> str:
        match self.aspect:
            case "added":
                return f"the token '{self.subject}' is added, with id {self.after}"
            case "removed":
                return f"the token '{self.subject}' is removed, which had id {self.before}"
            case "renamed":
                return f"the token '{self.before}' with id {self.subject} is '{self.after}'"
            case "moved":
                return f"the token '{self.subject}' has id {self.after} instead of {self.before}"
        return f"{self.aspect} {self.subject}: {' → '.join(_shorten(self.before, self.after))}"


def _shorten(*values: Json) -> Iterator[str]:
    """Yield each value as text; long ones from shortly before the place where they differ."""
    most = 80
    texts = ["none" if held is None else json.dumps(held, ensure_ascii=False) for held in values]
    same = next((place for place, letters in enumerate(zip(*texts, strict=False)) if len({*letters}) > 1), most)
    start = same - most // 4 if same >= most - 1 else 0
    for text in texts:
        part = text[start:]
        yield f"{'…' if start else ''}{part if len(part) <= most else f'{part[: most - 1]}…'}"


def differences(before: Documents, after: Documents) -> tuple[Difference, ...]:
    """Return in what two tokenizers differ semantically; nothing where a text and a model get the same from both.

    Both have a tokenizer.json; sizes and ids in other files are compared where both have the file.
    """
    return tuple(_all(before, after))


def _all(before: Documents, after: Documents) -> Iterator[Difference]:
    old, new = before[FILE], after[FILE]
    yield from _tokens(Tokenizer(old), Tokenizer(new))
    yield from _scores(old["model"]["vocab"], new["model"]["vocab"])
    yield from _merges(merges_of(old["model"]), merges_of(new["model"]))
    yield from _fields("model", canonical_model(old), canonical_model(new))
    parts = [{name: canonical_part(document.get(name)) for name in PARTS} for document in (old, new)]
    yield from _fields("part", *parts)
    yield from _fields("role", read_declared_roles(before), read_declared_roles(after))
    listed = [sorted(list_specials(documents)) for documents in (before, after)]
    yield from _fields("specials", {"listed": listed[0]}, {"listed": listed[1]})
    yield from _fields("template", read_chat_templates(before), read_chat_templates(after))
    yield from _fields("setting", read_declared_settings(before), read_declared_settings(after))
    for name in ID_FILES:
        if name in before and name in after:
            ids = [
                {f"{name}: {place}": held for place, held in read_declared_ids(each, name).items()}
                for each in (before, after)
            ]
            yield from _fields("id field", *ids)
    if CONFIG in before and CONFIG in after:
        sizes = [dict(read_declared_sizes(documents[CONFIG])) for documents in (before, after)]
        yield from _fields("rows", *sizes)


def _fields(aspect: Aspect, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Difference]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Difference(aspect, name, before.get(name), after.get(name))


def _tokens(before: Tokenizer, after: Tokenizer) -> Iterator[Difference]:
    old, new = before.ids, after.ids
    delta = token_delta(old, new)
    names = {**delta.renamed, **delta.placeholders}
    for content in sorted(names, key=old.__getitem__):
        yield Difference("renamed", str(old[content]), content, names[content])
    for content, number in sorted(delta.removed.items(), key=itemgetter(1)):
        if content not in names:
            yield Difference("removed", content, number, None)
    for content, number in sorted(delta.added.items(), key=itemgetter(1)):
        yield Difference("added", content, None, number)
    for content, (number, place) in sorted(delta.moved.items(), key=itemgetter(1)):
        yield Difference("moved", content, number, place)
    for content in old:
        renamed = content if content in new else names.get(content, "")
        if renamed:
            sides = (before.token(content), after.token(renamed))
            if None in sides:
                flags = [{f"{renamed}: added": token is not None} for token in sides]
            else:
                flags = [{f"{renamed}: {name}": getattr(token, name) for name in FLAGS} for token in sides]
            yield from _fields("flags", *flags)


def _scores(before: Json, after: Json) -> Iterator[Difference]:
    if isinstance(before, list) and isinstance(after, list):
        old, new = dict(before), dict(after)
        found: dict[Aspect, list[str]] = {"scores": [], "rounding": []}
        for content, score in old.items():
            if new.get(content, score) != score:
                # The tokenizers library reads a score not quite as it is written, and writes what it read.
                is_rounded = isclose(new[content], score, rel_tol=1e-12)
                found["rounding" if is_rounded else "scores"].append(content)
        for aspect, contents in found.items():
            if contents:
                first = contents[0]
                yield Difference(aspect, f"{len(contents)} pieces, such as '{first}'", old[first], new[first])


def _merges(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> Iterator[Difference]:
    if before == after:
        return
    old, new = set(before), set(after)
    for subject, held, other in (("only in the first", before, new), ("only in the second", after, old)):
        alone = [merge for merge in held if merge not in other]
        if alone:
            count = [len(alone), None] if held is before else [None, len(alone)]
            yield Difference("merges", f"{subject}, such as {' + '.join(alone[0])}", *count)
    shared = [[merge for merge in held if merge in other] for held, other in ((before, new), (after, old))]
    if shared[0] != shared[1]:
        place = next(place for place, pair in enumerate(zip(*shared, strict=False)) if pair[0] != pair[1])
        yield Difference("merges", "order", " + ".join(shared[0][place]), " + ".join(shared[1][place]))


def without_ignorable(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the differences that are more than traces of use: transformers saves the padding of its last call.

    Scores that it saves are rounded otherwise.
    """
    return tuple(each for each in found if not _is_ignorable(each))


def _is_ignorable(found: Difference) -> bool:
    if found.aspect == "rounding":
        return True
    if found.aspect != "part" or found.subject not in ("padding", "truncation"):
        return False
    if found.after is None:
        return True
    if found.subject == "truncation" or found.before is None:
        return False
    return all(found.before.get(key) == found.after.get(key) for key in ("pad_id", "pad_token", "direction"))


_MISSING: Any = object()


def revert_document(name: str, now: Json, before: Json, after: Json) -> Json:
    """Return a JSON file with what a migration changed as it was before; the rest is that of `revert_keys`.

    In tokenizer.json added tokens are compared by their texts, and merges as pairs.
    """
    if name != FILE:
        return revert_keys(now, before, after, name)
    keyed = revert_keys(_by_key(now), _by_key(before), _by_key(after), name)
    return {**keyed, "added_tokens": sorted(keyed["added_tokens"].values(), key=lambda entry: int(entry["id"]))}


def _by_key(document: Mapping[str, Json]) -> dict[str, Json]:
    model = dict(document["model"])
    if model.get("merges"):
        model["merges"] = [list(merge) for merge in merges_of(model)]
    added = {entry["content"]: entry for entry in document.get("added_tokens") or []}
    return {**document, "model": model, "added_tokens": added}


def revert_keys(now: Json, before: Json, after: Json, place: str) -> Json:
    """Return `now` with each key that a migration changed as it was before; all else stays as it is now.

    A key that was left out when the file was rewritten comes back only where it holds a single value: parts that are
    kept elsewhere since must not stand in two places.

    Raises:
        DriftError: What the migration changed was changed again.
    """
    if now == after:
        return before
    if before in (after, now):
        return now
    if isinstance(now, dict) and isinstance(after, dict):
        return _object(now, before if isinstance(before, dict) else {}, after, place)
    if isinstance(now, list) and isinstance(before, list) and isinstance(after, list):
        return _list(now, before, after, place)
    raise DriftError(
        f"it was changed since it was migrated, from {_repr(after)} to {_repr(now)}, and a downgrade would lose that",
        where=place,
        hint="set it back, or make the change a migration of its own on the state before",
    )


def _object(now: Mapping[str, Json], before: Mapping[str, Json], after: Mapping[str, Json], place: str) -> Json:
    found: dict[str, Json] = {}
    for key, value in now.items():
        was, became = before.get(key, _MISSING), after.get(key, _MISSING)
        if became is _MISSING:
            found[key] = value
        elif was is not _MISSING:
            found[key] = revert_keys(value, was, became, f"{place}: {key}")
        elif value is not None and value != became and not isinstance(value, dict | list):
            # The migration brought the key, and another program its value.
            revert_keys(value, None, became, f"{place}: {key}")
    for key, was in before.items():
        if key not in now and (key not in after or (was != after[key] and not isinstance(was, dict | list))):
            found[key] = was
    return found


def _list(now: list[Json], before: list[Json], after: list[Json], place: str) -> Json:
    if not all(isinstance(item, str | int) for item in (*now, *before, *after)):
        raise DriftError(
            "the list was changed since it was migrated, and a downgrade would lose that",
            where=place,
            hint="set it back, or make the change a migration of its own on the state before",
        )
    kept = [item for item in now if item in before or item not in after]
    return kept + [item for item in before if item not in after and item not in kept]


def _repr(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
