"""All rules, and which of them are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tokmigrate.errors import UsageError, suggest
from tokmigrate.lint.rule import REGISTERED, Rule
from tokmigrate.lint.rules import tm0_tm2_ids, tm1_matching, tm1_texts, tm3_roles, tm4_reproducibility  # noqa: F401 - a rule is registered by the import of its module

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "TM0": "Whether it can be applied",
        "TM1": "Tokens",
        "TM2": "Ids and rows",
        "TM3": "Templates and special tokens",
        "TM4": "Reproducibility",
    }
)
"""What the first digit of a code means."""

RULES: Mapping[str, Rule] = MappingProxyType(dict(sorted(REGISTERED.items())))
"""Every rule by its code, in the order of the codes."""


@dataclass(frozen=True)
class Selection:
    """The rules that are wanted.

    Args:
        select: Codes or beginnings of codes; none for all rules.
        ignore: Codes or beginnings of codes that are left out; the longer beginning counts, as in `TM3` and `TM301`.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @staticmethod
    def of(select: Iterable[str], ignore: Iterable[str], where: str) -> Selection:
        """Return the selection that words make, each one code or several with commas between.

        Args:
            select: From `--select` or the settings.
            ignore: From `--ignore` and the settings.
            where: Who says so, for errors.

        Raises:
            UsageError: A word is the beginning of no code.
        """
        return Selection(_codes(select, where), _codes(ignore, where))

    def __contains__(self, code: str) -> bool:
        wanted = _longest(code, self.select) if self.select else 0
        return wanted >= 0 and _longest(code, self.ignore) < max(wanted, 1)


def _longest(code: str, beginnings: Sequence[str]) -> int:
    return max((len(each) for each in beginnings if code.startswith(each)), default=-1)


def _codes(words: Iterable[str], where: str) -> tuple[str, ...]:
    codes = tuple(code.strip().upper() for word in words for code in word.split(",") if code.strip())
    for code in codes:
        if not any(known.startswith(code) for known in RULES):
            hint = suggest(code, RULES) or f"codes are {', '.join(RULES)}, or a beginning such as TM3"
            raise UsageError(f"no rule has a code like '{code}'", where=where, hint=hint)
    return codes
