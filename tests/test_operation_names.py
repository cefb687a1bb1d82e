"""An operation is complete in its own file: nothing outside `operations` and autogenerate names a type of operation."""

from __future__ import annotations

from pathlib import Path

from measure_structure import HERE, operations_named_outside


def test_no_other_package_names_an_operation_type() -> None:
    assert operations_named_outside(HERE) == []


def test_every_way_to_name_one_is_found(tmp_path: Path) -> None:
    package = tmp_path / "tokmigrate"
    (package / "operations").mkdir(parents=True)
    (package / "operations" / "all.py").write_text(
        "class SetPart(Operation): pass\n"
        "class AddTokens(Operation): name: ClassVar[str] = 'add_tokens'\n"
        "class SetInit(SetPart): name: ClassVar[str] = 'set_init'\n"
    )
    (package / "lint.py").write_text(
        '''"""add_tokens: only a whole text counts."""
from tokmigrate.operations.add_tokens import AddTokens
isinstance(x, AddTokens | operations.SetPart)
x.name == "add_tokens" or x.name in ("set_init",)
'''
    )
    names = [place.partition(" ")[2] for place in operations_named_outside(tmp_path)]
    assert sorted(names) == ["AddTokens", "AddTokens", "SetPart", "add_tokens", "set_init"]
