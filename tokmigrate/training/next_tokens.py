"""How well a decoder predicts text before and after a migration, and how far its predictions are from each other.

Text without new tokens is the same sequence on both sides. Where the models have the same body, so is each hidden state
then, and with it each logit of a row that both have: one pass of one model gives the predictions of both. With S the
shared rows, R the removed and N the added ones, and Z the sum of exp(logit) over some of them:

    nats that are lost to added rows     log(Z_S + Z_N) - log Z_S = KL(p_old without R || p_new), as logits of S agree
    nats that renormalisation gives      log(Z_S + Z_R) - log Z_S = -log(1 - q), with q the probability of R before
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokmigrate.commands.resources import free_memory
from tokmigrate.training.aligned_windows import Window
from tokmigrate.training.embeddings import stack_ids
from tokmigrate.training.loaded_model import LoadedModel
from tokmigrate.training.token_match import TokenMatch

BEFORE, AFTER = 0, 1
_COPIES = 6 * 4
"""The bytes that are held of each logit while a batch is measured: copies of four bytes."""
_MOST_MEMORY = 2 << 30
_MOST_TOKENS = 8192


@dataclass
class Losses:
    """The loss on text, in nats, before and after, over the bytes that count on both sides."""

    text_bytes: int = 0
    before: float = 0.0
    after: float = 0.0

    def per_byte(self, nats: float) -> float | None:
        """Return nats per byte, None without text."""
        return nats / self.text_bytes if self.text_bytes else None


@dataclass
class TokenLoss:
    """The loss on some tokens, in nats."""

    tokens: int = 0
    nats: float = 0.0

    @property
    def mean(self) -> float | None:
        """The loss per token, None where there is none."""
        return self.nats / self.tokens if self.tokens else None


@dataclass
class Divergence:
    """How far the predictions of two models are from each other on text without new tokens.

    Args:
        positions: How many predictions were compared.
        added: The sum of KL(p before, of shared rows alone || p after); `worst_added` its largest term.
        removed: The sum of -log(1 - q), where q is the probability of removed rows before.
        mass: The sum of q; `worst_mass` its largest term.
    """

    positions: int = 0
    added: float = 0.0
    worst_added: float = 0.0
    removed: float = 0.0
    mass: float = 0.0
    worst_mass: float = 0.0

    @property
    def nats(self) -> float | None:
        """The mean of both divergences together, None without a position."""
        return self.mean(self.added + self.removed)

    def mean(self, total: float) -> float | None:
        """Return a sum per position, None where there is none."""
        return total / self.positions if self.positions else None


@dataclass
class NextTokens:
    """What was measured of a decoder."""

    same: Losses = field(default_factory=Losses)
    other: Losses = field(default_factory=Losses)
    divergence: Divergence = field(default_factory=Divergence)
    on_new: TokenLoss = field(default_factory=TokenLoss)
    after_new: TokenLoss = field(default_factory=TokenLoss)

    @property
    def whole(self) -> Losses:
        """The loss on all text."""
        same, other = self.same, self.other
        return Losses(same.text_bytes + other.text_bytes, same.before + other.before, same.after + other.after)


class DecoderMeasure:
    """Measures two decoders on windows of text, in batches."""

    def __init__(self, before: LoadedModel, after: LoadedModel, match: TokenMatch) -> None:
        import torch  # noqa: PLC0415

        self.found = NextTokens()
        self._torch, self._sides, self._match = torch, (before, after), match
        device = after.device
        numbers = [list(part) for part in zip(*match.outputs, strict=True)] or [[], []]
        self._shared = [torch.tensor(part, device=device) for part in numbers]
        self._others = [torch.tensor(part, device=device, dtype=torch.long) for part in (match.removed, match.added)]
        self._is_new = torch.zeros(len(after.input_rows), dtype=torch.bool, device=device)
        self._is_new[sorted(match.new)] = True
        # A model that has rows for all that both predict shows both.
        equal_rows = match.same_body and match.new.isdisjoint(match.shared.values())
        self._single = None if not equal_rows else AFTER if not match.removed else None if match.added else BEFORE
        widest = max(len(side.output_rows) for side in self._sides)
        free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else free_memory() or _MOST_MEMORY
        self._most = max(1, min(_MOST_TOKENS, min(free // 4, _MOST_MEMORY) // (widest * _COPIES)))
        self._waiting: dict[bool, list[Window]] = {True: [], False: []}

    def add(self, window: Window) -> None:
        """Measure a window, together with others of its kind."""
        if window.text_bytes:
            waiting = self._waiting[self._match.is_same(*window.ids)]
            longest = max(len(ids) for each in (*waiting, window) for ids in each.ids)
            if waiting and longest * (len(waiting) + 1) > self._most:
                self.finish()
            waiting.append(window)

    def finish(self) -> None:
        """Measure all windows that were added."""
        with self._torch.inference_mode():
            for is_same, waiting in self._waiting.items():
                if waiting:
                    (self._measure_same if is_same else self._measure_other)(waiting)
                    waiting.clear()

    def _predict(self, windows: Sequence[Window], side: int) -> tuple[Any, Any, Any]:
        """Return the logits of a side where its next token counts, `(positions, rows)`, that token and the last one."""
        torch, loaded = self._torch, self._sides[side]
        ids, mask = stack_ids([window.ids[side] for window in windows], loaded.device)
        counts = torch.zeros_like(mask, dtype=torch.bool)
        for line, window in enumerate(windows):
            counts[line, window.first[side] : window.stop[side]] = True
        counts = counts[:, 1:]
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[:, :-1][counts].float(), ids[:, 1:][counts], ids[:, :-1][counts]

    def _measure_other(self, windows: Sequence[Window]) -> None:
        found = self.found
        sums = []
        for side in (BEFORE, AFTER):
            logits, tokens, last = self._predict(windows, side)
            nats = self._torch.nn.functional.cross_entropy(logits, tokens, reduction="none").double()
            sums.append(float(nats.sum()))
        found.other.text_bytes += sum(window.text_bytes for window in windows)
        found.other.before += sums[BEFORE]
        found.other.after += sums[AFTER]
        is_new, follows = self._is_new[tokens], self._is_new[last] & ~self._is_new[tokens]
        for kind, chosen in ((found.on_new, is_new), (found.after_new, follows)):
            kind.tokens += int(chosen.sum())
            kind.nats += float(nats[chosen].sum())

    def _measure_same(self, windows: Sequence[Window]) -> None:
        torch, same, far = self._torch, self.found.same, self.found.divergence
        predicted = {side: self._predict(windows, side) for side in (BEFORE, AFTER) if self._single in (None, side)}
        if not next(iter(predicted.values()))[1].numel():
            return
        shared = {side: logits[:, self._shared[side]] for side, (logits, *_) in predicted.items()}
        whole = {side: logits.logsumexp(1) for side, logits in shared.items()}
        losses, rest = {}, {}
        for side in (BEFORE, AFTER):
            known = side if side in predicted else 1 - side
            logits, tokens, _ = predicted[known]
            if side == known and len(self._others[side]):
                rest[side] = logits[:, self._others[side]].logsumexp(1) - whole[side]
            else:
                rest[side] = torch.full_like(whole[known], -torch.inf)
            own = whole[known] - logits.gather(1, tokens[:, None])[:, 0]
            losses[side] = own + torch.nn.functional.softplus(rest[side])
        added, removed = (torch.nn.functional.softplus(rest[side]) for side in (AFTER, BEFORE))
        if len(shared) > 1:
            logs = [shared[side] - whole[side][:, None] for side in (BEFORE, AFTER)]
            added = added + (logs[BEFORE].exp() * (logs[BEFORE] - logs[AFTER])).sum(1)
        mass = rest[BEFORE].sigmoid()
        same.text_bytes += sum(window.text_bytes for window in windows)
        same.before += float(losses[BEFORE].double().sum())
        same.after += float(losses[AFTER].double().sum())
        far.positions += len(mass)
        far.added += float(added.double().sum())
        far.removed += float(removed.double().sum())
        far.mass += float(mass.double().sum())
        far.worst_added = max(far.worst_added, float(added.max()))
        far.worst_mass = max(far.worst_mass, float(mass.max()))
