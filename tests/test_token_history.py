"""Token histories: whatever happens in whatever order, each event goes to the token that it changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from tokmigrate.audit.token_history import read_token_histories
from tokmigrate.state.rows import TokenEvent, TokenEventType, TokenRow

NAMES = list("abcdefgh")


@dataclass
class World:
    """Tokens that know who they are, and the events that a ledger would get of them.

    Args:
        named: Who bears a name.
        ids: The id of each who is there.
        rows: The events.
        changed: For each event, which token it changed.
    """

    named: dict[str, int]
    ids: dict[int, int]
    rows: list[TokenRow] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    born: int = 100

    def tell(self, who: int, event: TokenEvent) -> None:
        number = len(self.rows) + 1
        self.rows.append(TokenRow(number, "o", event, datetime.now(UTC)))
        self.changed.append(who)


def migrate(world: World, revision: str, draw: st.DrawFn) -> None:
    """Do to each token at most one thing, as one migration, which gives no name that one has before it."""
    before = set(world.named)
    for name, who in sorted(world.named.items()):
        here = world.ids[who]
        match draw(st.sampled_from(["stay", "stay", "move", "rename", "remove", "reinit", "trained"])):
            case "move":
                world.ids[who] = here + 1
                world.tell(who, TokenEvent(revision, TokenEventType.MOVED, name, here + 1, here))
            case "rename":
                free = [each for each in NAMES if each not in before | set(world.named)]
                if free:
                    new = draw(st.sampled_from(free))
                    del world.named[name]
                    world.named[new] = who
                    world.tell(who, TokenEvent(revision, TokenEventType.RENAMED, new, here, here, name))
            case "remove":
                del world.named[name], world.ids[who]
                world.tell(who, TokenEvent(revision, TokenEventType.REMOVED, name, None, here))
            case "reinit":
                world.tell(who, TokenEvent(revision, TokenEventType.REINITIALISED, name, here, here))
            case "trained":
                world.tell(who, TokenEvent("earlier", TokenEventType.TRAINED, name, here, here))
    free = [each for each in NAMES if each not in before | set(world.named)]
    if free and draw(st.booleans()):
        world.born += 1
        world.named[free[0]], world.ids[world.born] = world.born, world.born
        world.tell(world.born, TokenEvent(revision, TokenEventType.ADDED, free[0], world.born))


def take_back(world: World, revision: str, before: tuple[dict[str, int], dict[int, int]], told: range) -> None:
    """Record the downgrade as the runner does: each event the other way round."""
    for place in told:
        event, who = world.rows[place].event, world.changed[place]
        if event.event is not TokenEventType.TRAINED:
            old = event.old_token or event.token
            back = event.token if event.old_token else None
            world.tell(who, TokenEvent(revision, TokenEventType.REVERTED, old, event.old_id, event.token_id, back))
    world.named, world.ids = dict(before[0]), dict(before[1])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World({name: place for place, name in enumerate(NAMES[:5])}, {place: 10 * place for place in range(5)})
    applied: list[tuple[str, tuple[dict[str, int], dict[int, int]], range]] = []
    for number in range(draw(st.integers(1, 5))):
        if applied and draw(st.booleans()):
            take_back(world, *applied.pop())
        before, start = (dict(world.named), dict(world.ids)), len(world.rows)
        migrate(world, f"r{number}", draw)
        applied.append((f"r{number}", before, range(start, len(world.rows))))
    return world


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_every_event_goes_to_the_token_that_it_changed(world: World) -> None:
    found = read_token_histories(world.rows)
    who_by_number = dict(zip((row.number for row in world.rows), world.changed, strict=True))
    told = [{who_by_number[row.number] for row in history.events} for history in found]
    assert all(len(each) == 1 for each in told)
    assert sorted(next(iter(each)) for each in told) == sorted(set(world.changed))
    for history in found:
        who = who_by_number[history.events[0].number]
        assert history.token == next((name for name, bearer in world.named.items() if bearer == who), None)
        assert history.added == (who > 100)
