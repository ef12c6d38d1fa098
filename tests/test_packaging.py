"""What is listed is what is used, in every list alike; and what is installed finds its files."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

from hieramp import checkpoints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Packages that no line imports, and where they are used.
UNIMPORTED = {
    "tensorboard": ("hieramp/training/loop.py", 'log_with="tensorboard"'),
    "torch-fidelity": ("hieramp/analysis/inception.py", "torch-fidelity"),  # which torchmetrics' FID imports
    "pytest-xdist": ("pyproject.toml", "-n 2 --dist loadfile"),
    "ruff": (".ci/run", "ruff check"),
    "mypy": (".ci/run", "mypy"),
}
NAMES = {"PIL": "pillow"}  # of a package whose module is called otherwise


def named(requirement: str) -> str:
    """The package of a requirement like "gradio[mcp]>=6.31"."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def listed(name: str) -> list[str]:
    """The lines of a requirements file, and of those that it includes."""
    lines: list[str] = []
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            lines += listed(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            lines.append(line)
    return lines


def imported(*places: str) -> set[str]:
    """Packages that Python files import from elsewhere."""
    found = set()
    for place in places:
        for path in [ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                found |= {name.split(".")[0] for name in names}
    ours = {path.stem for folder in (ROOT, ROOT / "tests") for path in folder.iterdir()}
    others = found - set(sys.stdlib_module_names) - ours - {"tomli", "tomllib"}  # Python 3.10 has no tomllib
    return {NAMES.get(name, name).lower().replace("_", "-") for name in others}


def extra(name: str) -> list[str]:
    """The requirements of an extra, and of those that it includes."""
    lines: list[str] = []
    for line in EXTRAS[name]:
        inner = re.fullmatch(r"hieramp\[(.*)\]", line)
        lines += [one for other in inner[1].split(",") for one in extra(other)] if inner else [line]
    return lines


@pytest.mark.parametrize("name", ["ray", "tune", "dev"])
def test_the_files_say_what_the_project_says(name: str) -> None:
    assert listed("requirements.txt") == PROJECT["dependencies"]
    assert set(listed(f"requirements-{name}.txt")) == {*PROJECT["dependencies"], *extra(name)}


def test_what_is_imported_is_listed() -> None:
    optional = {named(line) for name in EXTRAS for line in extra(name)}
    core = {named(line) for line in PROJECT["dependencies"]}
    assert imported("hieramp", "app", "app.py") <= core | optional
    assert imported("benchmarks", "tests", "setup.py") <= core | optional | {"setuptools"}


def test_what_is_listed_is_used() -> None:
    used = imported("hieramp", "app", "app.py", "benchmarks", "tests")
    for name in {named(line) for line in [*PROJECT["dependencies"], *(one for e in EXTRAS for one in extra(e))]}:
        if name in UNIMPORTED:
            file, words = UNIMPORTED[name]
            assert words in (ROOT / file).read_text(), name
        else:
            assert name in used, name


def test_what_is_needed_at_once_is_no_extra() -> None:
    """Whatever `import hieramp` and every command import at their top is among the dependencies."""
    tops = set()
    for path in [*(ROOT / "hieramp").rglob("*.py"), *(ROOT / "app").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops |= {(name.split(".")[0], path.name) for name in names}
    known = {named(line) for line in PROJECT["dependencies"]}
    packages = {(NAMES.get(name, name).lower().replace("_", "-"), file) for name, file in tops}
    foreign = {(n, f) for n, f in packages if n not in {*sys.stdlib_module_names, "hieramp", "app", "--future--"}}
    assert {(name, file) for name, file in foreign if name not in known} <= {("playwright", "screenshots.py")}


def test_an_installed_copy_draws_from_any_folder(tmp_path: Path) -> None:
    """The wheel, unpacked as pip would, with no checkout near: its model, its page and its command are found."""
    wheels, source = tmp_path / "wheels", tmp_path / "source"
    for name in ("hieramp", "app", "assets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ours = [path for name in ("hieramp", "app") for path in (source / name).rglob("*.*")]
    files = {path.relative_to(source).as_posix() for path in ours}
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(wheels)]
    subprocess.run([*build, str(source)], check=True)
    (wheel,) = wheels.glob("hieramp-*.whl")
    with zipfile.ZipFile(wheel) as unpacked:
        unpacked.extractall(tmp_path / "site")
        scripts = unpacked.read(next(n for n in unpacked.namelist() if n.endswith("entry_points.txt"))).decode()
    assert "hieramp = hieramp.__main__:main" in scripts and "hieramp-page = app.serve:main" in scripts
    assert files <= {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.*")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = (
        "import sys; from hieramp.__main__ import main; from app import theme; assert theme.read('page.js');"
        "sys.argv = ['hieramp', 'generate', '--class', 'cat', '--out', 'cat.png', '--device', 'cpu']; main();"
        "import hieramp; print(hieramp.__file__)"
    )
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout and (elsewhere / "cat.png").is_file()


def test_every_package_has_its_modules() -> None:
    """A folder of Python files that is no package would be left out of the wheel."""
    folders = {p.parent.relative_to(ROOT).as_posix() for top in ("hieramp", "app") for p in (ROOT / top).rglob("*.py")}
    assert {folder.replace("/", ".") for folder in folders} == set(
        find_packages(str(ROOT), include=["hieramp*", "app*"])
    )


def test_a_checkout_finds_its_models() -> None:
    assert checkpoints.ASSETS == ROOT / "assets" and checkpoints.shipped()


def test_importing_the_page_writes_nothing_beside_it() -> None:
    """Gradio writes a .pyi file beside each module that derives a component by a class statement."""
    subprocess.run([sys.executable, "-c", "import app.page"], cwd=ROOT, check=True, timeout=300)
    assert not [path for top in ("hieramp", "app") for path in (ROOT / top).rglob("*.pyi")]
