"""Who may import whom (shared rules of the house), read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hieramp"
# room: rooms it may use, next to the plain ones (PLAIN)
ALLOWED = {
    "vqvae": set(),
    "var": set(),
    "amplification": set(),
    "generation": {"vqvae", "var", "amplification", "settings", "class_conditional"},
    "diffusion": {
        "vqvae",
        "amplification",
        "settings",
        "class_conditional",
    },  # shares the latents, settings and maths, not the VAR
    "analysis": {"vqvae", "var", "amplification", "generation", "diffusion", "settings", "captions"},
    "training": {"vqvae", "var", "amplification", "generation", "diffusion"},
    "imageset": set(),
    "distillation": {"vqvae", "amplification", "generation", "diffusion", "imageset", "settings"},
    "evaluation": {"imageset"},  # sets from disk: it never meets the generator
    "tuning": {"amplification", "generation", "analysis", "evaluation"},
}
PLAIN = {
    "class_names",
    "pickles",
    "published",
    "scales",
    "config",
    "checkpoints",
    "data",
    "classifier",
    "figures",
    "imagenet",
    "version",
    "devices",
    "fields",
    "files",
    "state_file",
    "errors",
    "seeds",
    "perceptual",
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_hieramp_knows_nothing_of_the_page(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in ("app", "gradio", "tests", "benchmarks")}


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_one_way(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        used = {name.split(".")[1] for name in imported(path) if name.startswith("hieramp.")}
        assert used <= ALLOWED[room] | PLAIN | {room}, f"{path.relative_to(ROOT)} imports {used}"


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_rooms_use_no_others(name: str) -> None:
    files = sorted((PACKAGE / name).glob("*.py")) or [PACKAGE / f"{name}.py"]
    used = {n.split(".")[1] for path in files for n in imported(path) if n.startswith("hieramp.")}
    assert used <= PLAIN | ({"imageset"} if name == "data" else set())  # data reads our own sets too


def test_only_the_tabs_import_gradio() -> None:
    """What the page does can be run and tested without it."""
    plain = {path.name for path in ROOT.glob("app/*.py") if "gradio" not in {n.split(".")[0] for n in imported(path)}}
    assert {
        "view_requests.py",
        "view_models.py",
        "handlers.py",
        "sheets.py",
        "plots.py",
        "jobs.py",
        "scheduling.py",
    } <= plain


def test_public_names() -> None:
    import hieramp

    assert {"load", "from_official", "Amplification", "SCHEDULES"} <= set(hieramp.__all__)
