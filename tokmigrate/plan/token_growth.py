"""How many tokens the texts of a corpus have before and after a change, by file and by script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.worker.corpora import Corpus, stream_shares


@dataclass(frozen=True)
class Growth:
    """What some texts are before and after.

    Args:
        tokenized_differently: How many texts become other tokens.
        with_removed_tokens: How many of them have a token before that there is not afterwards.
    """

    texts: int = 0
    bytes: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    tokenized_differently: int = 0
    with_removed_tokens: int = 0

    @property
    def ratio(self) -> float:
        """The tokens after to those before; 1 without a token."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0


@dataclass(frozen=True)
class CorpusGrowth:
    """What the texts of a corpus are before and after, by their file and their main script.

    Args:
        unexpected: The file and the number of the first text without a removed token that becomes more tokens, or as
            many others; None without one.
    """

    groups: Mapping[tuple[str, str], Growth]
    unexpected: tuple[str, int] | None

    @cached_property
    def whole(self) -> Growth:
        """All texts together."""
        return _sum(self.groups.values())

    @cached_property
    def files(self) -> dict[str, Growth]:
        """The texts of each file."""
        return self._sum_by(0)

    @cached_property
    def scripts(self) -> dict[str, Growth]:
        """The texts of each script, which is that of most of their characters; those with the most bytes come first."""
        return dict(sorted(self._sum_by(1).items(), key=lambda item: -item[1].bytes))

    def describe(self) -> str:
        """Return a sentence on what was held out of a corpus."""
        whole = self.whole
        return f"What was held out of it has {whole.tokens_before:,} tokens, and {whole.tokens_after:,} afterwards."

    def _sum_by(self, place: int) -> dict[str, Growth]:
        found: defaultdict[str, list[Growth]] = defaultdict(list)
        for key, each in self.groups.items():
            found[key[place]].append(each)
        return {name: _sum(growths) for name, growths in found.items()}


def measure_growth(
    before: ModelState,
    after: ModelState,
    corpus: Corpus,
    count_bytes: Callable[[int], None],
    *,
    held_out_alone: bool = False,
) -> CorpusGrowth:
    """Return what two tokenizers make of a corpus, or of its texts that are held out; raises as `stream_worker`."""
    documents = {"before": before.documents[FILE], "after": after.documents[FILE]}
    request = {**documents, "held_out_alone": held_out_alone}
    answers = stream_shares("compare_tokens", corpus, request, count_bytes, before.traits.worker)
    found: defaultdict[tuple[str, str], list[Growth]] = defaultdict(list)
    for file, script, counts in chain.from_iterable(answer["groups"] for answer in answers):
        found[file, script].append(Growth(**counts))
    places = {file.name: place for place, file in enumerate(corpus.files)}
    # Workers share files, and the first text that they find comes in any order.
    groups = {key: _sum(found[key]) for key in sorted(found, key=lambda key: (places[key[0]], key[1]))}
    unexpected = [
        (file, number) for file, number in (answer["unexpected"] for answer in answers if answer["unexpected"])
    ]
    return CorpusGrowth(groups, min(unexpected, key=lambda found: (places[found[0]], found[1]), default=None))


def _sum(growths: Iterable[Growth]) -> Growth:
    columns = zip(*(vars(each).values() for each in growths), strict=True)
    return Growth(*map(sum, columns))
