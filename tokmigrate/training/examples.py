"""What is trained on: texts, and chats as the model's template writes them, as token ids with the places to learn."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tokmigrate.errors import FileProblems, ModelError, Problem, UsageError, in_one_line
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.corpus_files import read_examples
from tokmigrate.training.loaded_model import LoadedModel, silence_libraries
from tokmigrate.training.trainer import choose_examples

LONGEST = 512
"""The tokens of a text that is trained on where the model takes more; longer texts are divided."""

IGNORED = -100
"""The label of a token that nothing is to be learned from being predicted, as torch's cross-entropy has it."""

_MOST_OTHERS = 2000
"""How many texts without a token to train are used at most."""


@dataclass(frozen=True)
class Example:
    """A text, or a part of a long one.

    Args:
        ids: Its token ids.
        labels: The same ids, those left out of the loss replaced.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """The texts to train on.

    Args:
        items: Those that have a token to train, and at most as many others.
        used: How many have one.
        found: The ids of the tokens to train that they have.
        texts: How many texts and chats the data has.
    """

    items: tuple[Example, ...]
    used: int
    found: frozenset[int]
    texts: int


def collect_examples(
    loaded: LoadedModel, data: Corpus, ids: Collection[int], max_length: int | None, most: int
) -> Examples:
    """Return texts of the data in which one of `ids` occurs, and as many others, each at most so many tokens long.

    They are at most `most`, so that a run that reads so many leaves out none.

    In texts without these tokens their output rows learn to stay silent, so that the model keeps what it does there.
    The loss of a text is over all its tokens; that of a chat leaves out what others than the assistant say, since the
    model is not to write that. What the template writes around it counts.

    Raises:
        UsageError: The data holds chats, and the model has no template for them.
        FileProblems: A record is neither a text nor a chat, or the template refuses it.
        ModelError: transformers cannot load the template.
    """
    longest = min(loaded.longest or LONGEST, max_length or LONGEST)
    wanted = frozenset(ids)
    items: list[Example] = []
    others: list[Example] = []
    texts = passed = 0
    choice = random.Random(0)  # noqa: S311 - a sample
    for whole in _read(loaded, data):
        texts += 1
        for start in range(0, len(whole.ids), longest):
            part = Example(whole.ids[start : start + longest], whole.labels[start : start + longest])
            if all(label == IGNORED for label in part.labels[1:]):
                # Nothing is predicted in it.
                continue
            if not wanted.isdisjoint(part.ids):
                items.append(part)
                continue
            # A sample of all, in which each is as likely as any other.
            passed += 1
            if len(others) < _MOST_OTHERS:
                others.append(part)
            elif (place := choice.randrange(passed)) < _MOST_OTHERS:
                others[place] = part
    others = choice.sample(others, min(len(others), len(items), most // 2))
    items = choose_examples(items, lambda item: wanted.intersection(item.ids), most - len(others))
    return Examples(
        (*items, *others), len(items), wanted.intersection(chain.from_iterable(item.ids for item in items)), texts
    )


def _read(loaded: LoadedModel, data: Corpus) -> Iterator[Example]:
    template = _Template(loaded)
    for file in data.files:
        for number, value in read_examples(file):
            if isinstance(value, str):
                ids = tuple(loaded.tokenizer.encode(value).ids)
                yield Example(ids, ids)
            else:
                yield template.tokenize(value, file.name, number)


class _Template:
    """The chat template of a model, loaded when the first chat comes."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._tokenizer: Any = None

    def tokenize(self, messages: Sequence[Any], file: str, number: int) -> Example:
        """Return a chat; `file` and `number` say where it stands."""
        for message in messages:
            if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in _KEYS):
                hint = 'as in {"role": "user", "content": "Hello"}'
                raise FileProblems([Problem(file, number, 1, "a message has the texts `role` and `content`", hint)])
        self._tokenizer = self._tokenizer or self._load(file)
        marks = [{**message, "content": _MARK.format(place)} for place, message in enumerate(messages)]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
            marked = self._tokenizer.apply_chat_template(marks, tokenize=False)
        # A template is a program of its author, and may fail in any way.
        except Exception as error:
            what = f"the chat template refuses the messages: {in_one_line(str(error))}"
            raise FileProblems([Problem(file, number, 1, what, "correct the messages, or the template")]) from error
        encoding = self._loaded.tokenizer.encode(text, add_special_tokens=False)
        others = list(_find_others(messages, text, marked))
        labels = [
            # A token may begin with the space before a word.
            IGNORED if any(first < stop and start < last for start, stop in others) else token
            for token, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        return Example(tuple(encoding.ids), tuple(labels))

    def _load(self, file: str) -> Any:
        import transformers  # noqa: PLC0415 - seconds

        directory = self._loaded.directory
        try:
            with silence_libraries():
                found = transformers.AutoTokenizer.from_pretrained(
                    directory, local_files_only=True, trust_remote_code=False
                )
        except (ValueError, KeyError, OSError, ImportError) as error:
            hint = "restore its files from where it was published, or give texts and no chats"
            raise ModelError(
                f"transformers cannot load the tokenizer: {error}", where=str(directory), hint=hint
            ) from error
        if not found.chat_template:
            hint = "add one with the operation `set_chat_template`, or give texts"
            raise UsageError("these are chats, and the model has no chat template", where=file, hint=hint)
        return found


_KEYS = ("role", "content")
_MARK = "\ufdd0{}\ufdd0"
"""Stands for what a message says, with its number, between characters that no text has."""


def _find_others(messages: Sequence[dict[str, str]], text: str, marked: str) -> Iterator[tuple[int, int]]:
    """Yield where in a chat the words of those stand that are not the assistant, as far as the template keeps them.

    Args:
        marked: The same chat with marks in place of the words.
    """
    parts = re.split(_MARK.format(r"(\d+)"), marked)
    at = 0
    for lead, number in zip(parts[::2], parts[1::2], strict=False):
        # What the template writes may have the same words.
        if (begin := text.find(lead, at)) >= 0:
            at = begin + len(lead)
        message = messages[int(number)]
        said = message["content"].strip()
        start = text.find(said, at)
        if start >= 0:
            at = start + len(said)
            if said and message["role"] != "assistant":
                yield start, at
