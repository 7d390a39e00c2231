"""Claims about the project itself: the door, the repository's text, the commands a stranger types."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

import millstream

SUBMODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(millstream.__path__, "millstream.")
    if not module.name.rpartition(".")[2].startswith("_")
)

# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry." + "npmjs",
    "deb." + "debian.org",
    "extra-" + "index-url",
    "find-links" + " =",
    "file" + ":///",
    "/" + "work/",
    "/" + "root/",
]
SECRET = re.compile(r"\b(sk-(proj-)?[A-Za-z0-9]{20,}|ghp_\w{30,}|AKIA[A-Z0-9]{16})|BEGIN [A-Z ]*PRIVATE KEY")


def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# --- the door ---------------------------------------------------------------------------


def test_the_door_lists_what_it_opens_sorted_and_once() -> None:
    assert list(millstream.__all__) == sorted(set(millstream.__all__))


def test_the_door_opens_what_it_lists_and_nothing_else() -> None:
    listed = {name: getattr(millstream, name) for name in millstream.__all__}

    reachable = {
        name
        for name, value in vars(millstream).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert reachable - {"TYPE_CHECKING"} == {name for name in listed if not name.startswith("_")}


def test_the_door_opens_what_needs_an_extra_to_those_who_ask_for_it() -> None:
    script = """
import sys
from millstream import *
import millstream
assert "redis" not in sys.modules
from millstream import RedisLog
assert "redis" in sys.modules and RedisLog is millstream.log.RedisLog
"""

    done = run(sys.executable, "-W", "error", "-c", script, cwd=Path())

    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="module 'millstream' has no attribute 'RedLog'"):
        _ = getattr(millstream, "RedLog")  # noqa: B009  # a type checker knows that it is not there


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_module_has_every_name_it_lists(name: str) -> None:
    module = importlib.import_module(name)

    listed = getattr(module, "__all__", [])

    assert [each for each in listed if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_module_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_the_version_is_said_once() -> None:
    from importlib.metadata import version

    assert millstream.__version__ == version("millstream")


def test_importing_the_package_brings_no_terminal_no_server_and_no_log_handler(root: Path) -> None:
    unwanted = {"rich", "starlette", "uvicorn", "redis", "pytest"}
    script = "import sys, logging, millstream; print(*sys.modules); assert not logging.getLogger().handlers"

    done = run(sys.executable, "-W", "error", "-c", script, cwd=root)

    assert done.returncode == 0, done.stderr
    assert unwanted & set(done.stdout.split()) == set()


# --- the repository's text --------------------------------------------------------------


@pytest.mark.requires_program("git")
def test_no_file_names_a_registry_a_place_of_one_machine_or_a_secret(
    root: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    listed = run("git", "ls-files", "-z", cwd=root)
    if listed.returncode != 0:
        leave_out("needs a git checkout")

    found: list[str] = []
    for name in filter(None, listed.stdout.split("\0")):
        file = root / name
        if not file.is_file():
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if any(each in line for each in FORBIDDEN) or SECRET.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")

    assert found == []


def test_every_pin_is_a_name_and_a_version_and_nothing_else(root: Path) -> None:
    pin = re.compile(r"[a-z0-9._-]+==[\w.]+( ; [^#@/]+)?")

    lines = (root / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_everything_we_ask_for_is_pinned(root: Path) -> None:
    project = pyproject(root)
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for group in project["dependency-groups"].values():
        asked += [each for each in group if isinstance(each, str)]

    pinned = {line.partition("==")[0] for line in (root / "constraints.txt").read_text().splitlines()}

    names = {re.split(r"[\[<>=!~;\s]", each, maxsplit=1)[0].lower() for each in asked}
    assert names - pinned == set(), "run `make lock`"


def test_every_rule_we_leave_out_says_why(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()

    listed = re.search(r"^ignore = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)

    assert listed is not None
    assert [line for line in listed[1].splitlines() if "#" not in line] == []


def test_the_package_carries_the_readme(root: Path) -> None:
    assert pyproject(root)["project"].get("readme") == "README.md"


def test_the_changelog_tells_what_this_version_brings(root: Path) -> None:
    version = millstream.__version__

    headings = re.findall(r"^## \[?([^\]\n]+)\]?", (root / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert version in headings or headings == ["Unreleased"]


# --- the commands a stranger types ------------------------------------------------------


def test_a_python_that_is_too_old_is_one_line_with_a_remedy(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.6" && exit 0\nexit 1\n')
    old.chmod(0o755)

    done = run("sh", "scripts/venv", tmp_path / "venv", "1", cwd=root, PYTHON=str(old))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "found Python 3.9.6" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_system_packages_are_not_forced_on_who_may_not_install_them(root: Path, tmp_path: Path) -> None:
    # A folder of programs in which there is no apt-get.
    for name in ("sh", "uname", "id"):
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    shell = tmp_path / "sh"

    asked = run(shell, "scripts/deps", cwd=root, PATH=str(tmp_path))
    allowed = run(shell, "scripts/deps", "--if-allowed", cwd=root, PATH=str(tmp_path))

    assert (asked.returncode, allowed.returncode) == (1, 0)
    assert "there is no apt-get here" in allowed.stderr
    assert re.search(r"By hand: sudo apt-get install [a-z -]*\bgit\b", allowed.stderr)


def test_a_system_package_that_cannot_be_had_keeps_no_other_away(root: Path, tmp_path: Path) -> None:
    # A folder of programs, in which apt-get knows everything but chromium.
    for name in ("sh", "uname", "mktemp", "cat", "rm", "env"):
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    for name, script in {
        "id": "echo 0",
        "apt-get": f'for last; do :; done; echo "$last" >>{tmp_path}/asked; [ "$last" != chromium ]',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shell = tmp_path / "sh"

    asked = run(shell, "scripts/deps", cwd=root, PATH=str(tmp_path))
    allowed = run(shell, "scripts/deps", "--if-allowed", cwd=root, PATH=str(tmp_path))

    assert (asked.returncode, allowed.returncode) == (1, 0)
    assert allowed.stderr.endswith("deps: could not be installed: chromium\n")
    assert {"curl", "git"} <= set((tmp_path / "asked").read_text().split())


def test_a_machine_without_npm_leaves_out_what_comes_from_there_and_says_so(
    root: Path, tmp_path: Path
) -> None:
    shell = shutil.which("sh")
    assert shell is not None

    done = run(shell, "scripts/npm", tmp_path / "node_modules", cwd=root, PATH=str(tmp_path))

    assert done.returncode == 0
    assert "npm: not found, so the tests of JavaScript clients are left out" in done.stderr
    assert not (tmp_path / "node_modules").exists()


def test_packages_of_npm_that_cannot_be_had_are_left_out_and_asked_for_again(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)

    done = run(
        "sh", "scripts/npm", tmp_path / "node_modules", cwd=root, PATH=f"{tmp_path}:{os.environ['PATH']}"
    )

    assert done.returncode == 0
    assert "no network\nnpm: the packages could not be installed" in done.stderr
    assert not (tmp_path / "node_modules").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has network namespaces")
@pytest.mark.requires_program("make")
@pytest.mark.requires_program("unshare", "-rn", "true")
def test_the_demo_needs_no_network_once_it_is_set_up(
    root: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    if not (root / ".venv" / ".core").exists():
        leave_out("needs the environment that `make demo` and `make test` set up")

    done = run("unshare", "-rn", "make", "demo", cwd=root)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Installing" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_alone_runs_the_demo_and_a_prompt(
    root: Path, tmp_path: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=root)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    python = tmp_path / "venv" / "bin" / "python"
    assert run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path).returncode == 0

    installed = run(python, "-m", "pip", "install", "-q", "-c", root / "constraints.txt", wheel, cwd=tmp_path)
    if "No matching distribution" in installed.stderr and "NewConnectionError" in installed.stderr:
        leave_out("needs the package index")
    assert installed.returncode == 0, installed.stderr
    demo = run(python.with_name("millstream"), "demo", cwd=tmp_path)
    hello = run(python.with_name("millstream"), "run", "hello", cwd=tmp_path)
    files = run(python, "-c", "import millstream as m; print(m.__path__[0])", cwd=tmp_path).stdout.strip()

    assert demo.returncode == 0, demo.stderr
    assert demo.stdout.strip()
    assert hello.returncode == 0, hello.stderr
    assert hello.stdout.strip()
    assert (Path(files) / "py.typed").exists()
    assert (Path(files) / "log" / "redis" / "lua" / "append.lua").exists()
    assert str(root) not in files


def test_the_tests_that_the_architecture_names_exist(root: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", (root / "ARCHITECTURE.md").read_text()))

    defined = {
        name
        for file in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }

    assert named, "ARCHITECTURE.md names no test"
    assert named <= defined


def test_the_files_that_the_architecture_shows_exist(root: Path) -> None:
    page = (root / "ARCHITECTURE.md").read_text()

    files = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page))

    assert files
    places = (root, root / "src/millstream")
    assert [file for file in sorted(files) if not any((place / file).exists() for place in places)] == []
