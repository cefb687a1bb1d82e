"""How well a decoder predicts text before and after a migration, and how far its predictions are from each other.

Text without new tokens is the same sequence on both sides. Where the models have the same body, so is each hidden state
then, and with it each logit of a row that both have: one pass of the model after, with the rows that it lost put behind
its own, gives the predictions of both. With S the shared rows, R the removed and N the added ones, and Z the sum of
exp(logit) over some of them:

    nats that are lost to added rows     log(Z_S + Z_N) - log Z_S = KL(p_old without R || p_new), as logits of S agree
    nats that renormalisation gives      log(Z_S + Z_R) - log Z_S = -log(1 - q), with q the probability of R before
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokmigrate.errors import ModelError
from tokmigrate.training.aligned_windows import Window
from tokmigrate.training.loaded_model import LoadedModel, find_free_memory
from tokmigrate.training.token_match import TokenMatch
from tokmigrate.training.trainer import pad_ids

BEFORE, AFTER = 0, 1
_COPIES = 3 * 4
"""The bytes that are held of each logit while a batch is measured: those of both sides, and one more."""
_MOST_MEMORY, _MOST_TOKENS, _POOL, _CHUNK_BYTES = 1 << 29, 8192, 32768, 256 << 20
"""The bytes and tokens of a batch at most, the tokens that wait for one, and the bytes of logits that are compared."""


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
class Mean:
    """The mean of numbers: how many there are, their sum, and the largest, of negative ones 0."""

    count: int = 0
    total: float = 0.0
    most: float | None = None

    def add(self, numbers: Any) -> None:
        """Add the numbers of a tensor."""
        self.count += len(numbers)
        self.total += float(numbers.double().sum())
        self.most = max([self.most or 0.0, *numbers.tolist()])

    @property
    def mean(self) -> float | None:
        """The mean, None where there is none."""
        return self.total / self.count if self.count else None


@dataclass
class Divergence:
    """How far the predictions of two models are from each other on text without new tokens.

    Args:
        added: KL(p before, of shared rows alone || p after).
        removed: -log(1 - q), where q is the probability of removed rows before; `mass` is q.
    """

    added: Mean = field(default_factory=Mean)
    removed: Mean = field(default_factory=Mean)
    mass: Mean = field(default_factory=Mean)

    @property
    def nats(self) -> float | None:
        """The mean of both divergences together, None without a prediction."""
        return (self.added.total + self.removed.total) / self.added.count if self.added.count else None


def _both_sides() -> tuple[Mean, Mean]:
    return Mean(), Mean()


@dataclass
class NextTokens:
    """What was measured of a decoder.

    Args:
        same: The loss on text without new tokens, `other` on all other text.
        on_new: The loss on new tokens, before and after; there are some before where only their rows are other ones.
        after_new: The loss on the token after a new one, likewise.
    """

    same: Losses = field(default_factory=Losses)
    other: Losses = field(default_factory=Losses)
    divergence: Divergence = field(default_factory=Divergence)
    on_new: tuple[Mean, Mean] = field(default_factory=_both_sides)
    after_new: tuple[Mean, Mean] = field(default_factory=_both_sides)

    @property
    def sums(self) -> tuple[float, ...]:
        """All that was added up, in which a NaN stays."""
        return self.whole.before, self.whole.after, self.divergence.added.total, self.divergence.removed.total

    @property
    def whole(self) -> Losses:
        """The loss on all text."""
        same, other = self.same, self.other
        return Losses(same.text_bytes + other.text_bytes, same.before + other.before, same.after + other.after)


class DecoderMeasure:
    """Measures two decoders on windows of text, in batches of windows that are about as long."""

    def __init__(
        self, before: LoadedModel, after: LoadedModel, match: TokenMatch, count_bytes: Callable[[int], None]
    ) -> None:
        """Prepare to measure; `count_bytes` is called with how much of the corpus was measured."""
        import torch  # noqa: PLC0415

        for side in (before, after):
            _check_predicts(torch, side)
        self.found = NextTokens()
        self._torch, self._sides, self._match, self._count_bytes = torch, (before, after), match, count_bytes
        device = after.device
        numbers = [list(part) for part in zip(*match.outputs, strict=True)] or [[], []]
        self._shared = [_select(torch, part, device) for part in numbers]
        self._others = [_select(torch, part, device) for part in (match.removed, match.added)]
        self._widths = [len(side.output_rows) for side in self._sides]
        known = [old for old, new in match.shared.items() if new in match.new]
        self._is_new = [torch.zeros(len(side.input_rows), dtype=torch.bool, device=device) for side in self._sides]
        for is_new, ids in zip(self._is_new, (known, sorted(match.new)), strict=True):
            is_new[ids] = True
        is_alike = match.same_body and match.is_migrated
        self._runs_once = is_alike and match.new.isdisjoint(match.shared.values())
        if self._runs_once and match.removed:
            self._runs_once = _append_rows(torch, before, after, match.removed)
            if self._runs_once:
                self._others[BEFORE] = slice(self._widths[AFTER], None)
        row_bytes = _COPIES * max(self._widths)
        self._most = max(1, min(_MOST_TOKENS, _find_batch_bytes(device) // row_bytes))
        self._chunk = max(1, _CHUNK_BYTES // row_bytes)
        self._waiting: dict[bool, list[tuple[Window, int]]] = {True: [], False: []}
        self._tokens = 0

    def add(self, window: Window, read: int) -> None:
        """Measure a window together with others of its kind; `read` bytes of the corpus were read for it."""
        is_same = window.first[BEFORE] == window.first[AFTER] and self._match.is_same(*window.ids)
        self._waiting[is_same].append((window, read))
        self._tokens += _measure_length(window)
        if self._tokens >= _POOL:
            self.finish()

    def finish(self) -> None:
        """Measure all windows that were added."""
        with self._torch.inference_mode():
            for is_same, waiting in self._waiting.items():
                for batch in self._batches(waiting):
                    windows = [window for window, _ in batch if window.text_bytes and window.first != window.stop]
                    if windows:
                        (self._measure_same if is_same else self._measure_other)(windows)
                    self._count_bytes(sum(read for _, read in batch))
                waiting.clear()
        self._tokens = 0

    def _batches(self, waiting: Sequence[tuple[Window, int]]) -> Iterator[list[tuple[Window, int]]]:
        batch: list[tuple[Window, int]] = []
        for window, read in sorted(waiting, key=lambda pair: _measure_length(pair[0])):
            if batch and _measure_length(window) * (len(batch) + 1) > self._most:
                yield batch
                batch = []
            batch.append((window, read))
        if batch:
            yield batch

    def _predict(self, windows: Sequence[Window], side: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the logits of a side where its next token counts, `(positions, rows)`, that token and the last one."""
        torch, loaded = self._torch, self._sides[side]
        ids, mask = (tensor.to(loaded.device) for tensor in pad_ids([window.ids[side] for window in windows]))
        counts = torch.zeros_like(mask, dtype=torch.bool)
        for line, window in enumerate(windows):
            counts[line, window.first[side] : window.stop[side]] = True
        logits = loaded.run(ids, mask, use_cache=False).logits
        # Not all at once: what is computed from them takes as much memory again.
        for lines, places in (part.unbind(1) for part in counts.nonzero().split(self._chunk)):
            yield logits[lines, places - 1].float(), ids[lines, places], ids[lines, places - 1]

    def _measure_other(self, windows: Sequence[Window]) -> None:
        found, sums = self.found, [0.0, 0.0]
        for side in (BEFORE, AFTER):
            for logits, tokens, last in self._predict(windows, side):
                own = logits[:, : self._widths[side]]
                nats = self._torch.nn.functional.cross_entropy(own, tokens, reduction="none").double()
                sums[side] += float(nats.sum())
                is_new = self._is_new[side][tokens]
                follows = self._is_new[side][last] & ~is_new
                for kind, chosen in ((found.on_new, is_new), (found.after_new, follows)):
                    kind[side].add(nats[chosen])
        found.other.text_bytes += sum(window.text_bytes for window in windows)
        found.other.before += sums[BEFORE]
        found.other.after += sums[AFTER]

    def _measure_same(self, windows: Sequence[Window]) -> None:
        sides = [AFTER] if self._runs_once else [BEFORE, AFTER]
        self.found.same.text_bytes += sum(window.text_bytes for window in windows)
        for parts in zip(*(self._predict(windows, side) for side in sides), strict=True):
            self._compare({side: (logits, tokens) for side, (logits, tokens, _) in zip(sides, parts, strict=True)})

    def _compare(self, predicted: Mapping[int, tuple[Any, Any]]) -> None:
        """Add what the predictions of both models at the same positions show, or those of one that shows both."""
        torch, same, far = self._torch, self.found.same, self.found.divergence
        shared = {side: logits[:, self._shared[side]] for side, (logits, _) in predicted.items()}
        whole = {side: logits.logsumexp(1) for side, logits in shared.items()}
        costs, losses = {}, {}
        for side in (BEFORE, AFTER):
            known = side if side in predicted else AFTER
            logits, tokens = predicted[known]
            costs[side] = torch.full_like(whole[known], -torch.inf)
            if (self._match.removed, self._match.added)[side]:
                costs[side] = logits[:, self._others[side]].logsumexp(1) - whole[known]
            own = whole[known] - logits.gather(1, tokens[:, None])[:, 0]
            losses[side] = own + torch.nn.functional.softplus(costs[side])
        added, removed = (torch.nn.functional.softplus(costs[side]) for side in (AFTER, BEFORE))
        if len(shared) > 1:
            logs = [shared[side] - whole[side][:, None] for side in (BEFORE, AFTER)]
            added = added + (logs[BEFORE].exp() * (logs[BEFORE] - logs[AFTER])).sum(1)
        same.before += float(losses[BEFORE].double().sum())
        same.after += float(losses[AFTER].double().sum())
        far.added.add(added)
        far.removed.add(removed)
        far.mass.add(costs[BEFORE].sigmoid())


def _check_predicts(torch: Any, side: LoadedModel) -> None:
    """Refuse a model that sees the tokens which it is to predict, as BERT does under the name of a decoder."""
    ids = torch.tensor([[0, 0], [0, 1]], device=side.device)
    with torch.inference_mode():
        one, other = side.run(ids, torch.ones_like(ids), use_cache=False).logits[:, 0].float()
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True):
        message = "it sees the tokens that follow, so it does not predict the next one"
        raise ModelError(message, where=str(side.directory), hint="measure a model that is trained to do so")


def _append_rows(torch: Any, before: LoadedModel, after: LoadedModel, rows: Sequence[int]) -> bool:
    """Put rows of the output side before behind those after; return whether the models have a layer that can do it."""
    old, new = (side.model.get_output_embeddings() for side in (before, after))
    if type(new) is not torch.nn.Linear or type(old) is not torch.nn.Linear:
        return False
    wide = torch.nn.Linear(1, 1, bias=new.bias is not None)
    wide.weight = torch.nn.Parameter(torch.cat([new.weight, old.weight[list(rows)]]), requires_grad=False)
    if new.bias is not None:
        wide.bias = torch.nn.Parameter(torch.cat([new.bias, old.bias[list(rows)]]), requires_grad=False)
    after.model.set_output_embeddings(wide)
    return True


def _measure_length(window: Window) -> int:
    return max(map(len, window.ids))


def _select(torch: Any, rows: Sequence[int], device: Any) -> Any:
    """Return an index of columns: a slice, which copies nothing, where they follow each other."""
    if rows and len(rows) == rows[-1] + 1 - rows[0]:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, dtype=torch.long, device=device)


def _find_batch_bytes(device: Any) -> int:
    """Return the bytes that a batch may take."""
    free = find_free_memory(device)
    part = _MOST_MEMORY if free is None else free // 4
    return part if device.type == "cuda" else min(part, _MOST_MEMORY)
