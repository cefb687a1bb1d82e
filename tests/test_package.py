"""What is uploaded: the two distributions, their metadata, and the extras."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from workspaces import REPOSITORY

import tokmigrate
from tokmigrate.commands.doctor import GIVES

ABOUT = f"tokmigrate-{tokmigrate.__version__}.dist-info"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_CONTRIBUTORS = {"dev", "docs"}


@dataclass(frozen=True)
class Distributions:
    """Both, with what the wheel holds and the names in the sdist; `rebuilt` is the wheel made of the sdist."""

    wheel: Path
    sdist: Path
    files: dict[str, bytes]
    names: set[str]
    rebuilt: dict[str, bytes]

    @property
    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.files[f"{ABOUT}/METADATA"])


def build(source: Path, target: Path, *kinds: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *kinds]
    subprocess.run(command, cwd=source, capture_output=True, timeout=120, check=True)


def read_wheel(folder: Path) -> dict[str, bytes]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("built")
    build(REPOSITORY, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        top = f"tokmigrate-{tokmigrate.__version__}"
        names = {each.name.removeprefix(f"{top}/") for each in archive.getmembers() if each.isfile()}
    build(folder / top, folder / "rebuilt", "-t", "wheel")
    (wheel,) = folder.glob("*.whl")
    return Distributions(wheel, sdist, read_wheel(folder), names, read_wheel(folder / "rebuilt"))


def test_the_wheel_holds_the_package_and_nothing_else(built: Distributions) -> None:
    names = set(built.files)
    assert {name.split("/")[0] for name in names} == {"tokmigrate", ABOUT}
    assert {f"{ABOUT}/licenses/LICENSE", f"{ABOUT}/entry_points.txt"} <= names
    package = {path for path in (REPOSITORY / "tokmigrate").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {name for name in names if not name.startswith((ABOUT, "tokmigrate/pages/"))} == {
        str(path.relative_to(REPOSITORY)) for path in package
    }


def test_the_sdist_holds_what_git_tracks(built: Distributions) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the tree is no clone")
    tracked = {name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()}
    assert tracked <= built.names
    assert not {name for name in built.names if "__pycache__" in name or name.startswith((".tokmigrate", ".venv"))}


def test_the_wheel_is_the_same_from_the_sdist(built: Distributions) -> None:
    assert built.rebuilt == built.files


def test_the_wheel_explains_by_itself(built: Distributions, tmp_path: Path) -> None:
    shutil.unpack_archive(built.wheel, tmp_path / "wheel", "zip")
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "wheel")}
    titles = {
        "TM103": "TM103: ",
        "missing-model": "missing-model: ",
        "3": "Exit code 3: ",
        "add_tokens": "`add_tokens`\n",
    }
    for topic, title in titles.items():
        command = [sys.executable, "-m", "tokmigrate", "explain", topic]
        done = subprocess.run(
            command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith(f"# {title}")


def test_twine_accepts_both(built: Distributions) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_long_description_has_no_relative_link(built: Distributions) -> None:
    text = str(built.metadata.get_payload())
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []
    tag = f"v{tokmigrate.__version__}"
    own = [target for target in targets if target.startswith(("https://github.com/tokmigrate/", "https://raw."))]
    for target in own:
        ref, _, path = target.split("/tokmigrate/tokmigrate/")[1].removeprefix("blob/").partition("/")
        assert ref == tag
        assert (REPOSITORY / path.partition("#")[0]).exists(), target
        assert target.startswith("https://raw.") == (Path(path).suffix in {".svg", ".png"})


def test_the_metadata_name_the_project_and_each_python(built: Distributions) -> None:
    urls = dict(each.split(", ", 1) for each in built.metadata.get_all("Project-URL", []))
    assert set(urls) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith("https://") for url in urls.values())
    named = set(re.findall(r"Python :: (3\.\d+)", "\n".join(built.metadata.get_all("Classifier", []))))
    assert named == {"3.11", "3.12", "3.13"}
    assert built.metadata["Requires-Python"] == f">={min(named)}"
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert named <= set(re.findall(r'"(3\.\d+)"', workflow))


def test_all_names_each_extra_of_a_user() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == "tokmigrate"
    assert everything.extras == set(EXTRAS) - FOR_CONTRIBUTORS - {"all"}


def test_a_requirement_is_listed_once() -> None:
    listed = [Requirement(text).name for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]
    assert sorted({name for name in listed if listed.count(name) > 1 and name != "tokmigrate"}) == []


def test_extras_that_texts_name_exist() -> None:
    texts = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "tokmigrate").rglob("*.py")]
    named = {
        extra
        for path in texts
        for extras in re.findall(r"(?:tokmigrate|install .*\.)\[([a-z,]+)\]", path.read_text("utf-8"))
        for extra in extras.split(",")
    }
    assert {"train", "corpus"} <= named <= set(EXTRAS)


def test_python_m_tokmigrate() -> None:
    said = subprocess.run([sys.executable, "-m", "tokmigrate", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"tokmigrate {tokmigrate.__version__}\n"


def test_the_container_builds_the_wheel_of_what_it_copies(built: Distributions, tmp_path: Path) -> None:
    lines = (REPOSITORY / "Containerfile").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    for name in (name for names in copied for name in names):
        source = REPOSITORY / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, tmp_path / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tmp_path)
    build(tmp_path, tmp_path / "dist", "-t", "wheel")
    assert read_wheel(tmp_path / "dist") == built.files
    named = re.findall(r"python:(3\.\d+)", "\n".join(lines))
    assert named
    assert {f"Programming Language :: Python :: {each}" for each in named} <= set(PROJECT["classifiers"])
    extras = next(line for line in lines if line.startswith("ARG EXTRAS=")).removeprefix("ARG EXTRAS=").split(",")
    assert set(extras) <= set(EXTRAS) - FOR_CONTRIBUTORS
    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    assert f"useradd --uid 1000 --create-home {users[-1]}" in "\n".join(lines)
    (command,) = PROJECT["scripts"]
    assert lines[-1] == f'ENTRYPOINT ["{command}"]'


def test_the_page_on_installing_has_what_each_extra_gives() -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text("utf-8")
    for name, gives in GIVES.items():
        assert f'| `{name}` | {gives} | `pip install "tokmigrate[{name}]"` |' in page
