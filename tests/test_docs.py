"""README and docs/: links and citations lead somewhere, commands can be typed, figures are those measured."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import app as page_package
import hieramp
from hieramp.commands import data_arguments
from hieramp.commands.main import build_parser
from hieramp.evaluation.results import read_result, scores
from hieramp.evaluation.studies import Results, read_study
from hieramp.evaluation.tables import FEW, summary

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "table.md")]  # not in git
CURRENT = [page for page in PAGES if "notebook" not in page.parts]  # the notebook keeps commands of its day
STUDIES = sorted((ROOT / "studies").glob("*.json"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(text: str) -> str:
    """A page's code lines, those that go on in the next one joined."""
    blocks = [block for _, block in FENCE.findall(text)]
    indented = re.findall(r"^    (.*)$", FENCE.sub("", text), re.MULTILINE)
    return "\n".join([*blocks, *indented]).replace("\\\n", " ")


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """What a page says to type after `program`, up to a comment or the next command; names alone are prose."""
    text = page.read_text(encoding="utf-8")
    named = rf"{re.escape(program)} +\w+"
    inline = [code for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if not re.fullmatch(named, code)]
    for line in [*code_of(text).splitlines(), *inline]:
        for typed in re.findall(rf"{re.escape(program)} +([^#|;&]*)", line):
            if "…" not in typed:
                yield shlex.split(typed.split(" > ")[0])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", link)]
    missing = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set(), [README]
    while todo:
        page = todo.pop()
        if page not in seen and page.exists():
            seen.add(page)
            links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
            todo += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert {name(page) for page in PAGES} <= {name(page) for page in seen}


def test_what_the_code_cites_is_there() -> None:
    headings = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    generated = {"table.md", "learn.md", "learn-dit.md"}
    for folder in ("hieramp", "app", "benchmarks"):
        for source in (ROOT / folder).rglob("*.py"):
            cited = re.findall(r'([\w-]+\.md)(?:, "([^"]+)")?', source.read_text(encoding="utf-8"))
            for document, section in cited:
                assert document in headings or document in generated, f"{name(source)} cites {document}"
                if section and document in headings:
                    assert re.search(rf"^#+ {re.escape(section)}$", headings[document], re.MULTILINE), (source, section)


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_command_can_be_typed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_arguments, "what_is_missing", lambda name: "")  # IMAGES stands for a folder
    for arguments in commands(page, "python -m hieramp"):
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{name(page)}: python -m hieramp {shlex.join(arguments)}")


def test_every_command_is_explained() -> None:
    typed = {arguments[0] for page in CURRENT for arguments in commands(page, "python -m hieramp")}
    (there,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    assert typed == set(there)


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_flags_of_the_page_exist(page: Path) -> None:
    source = (ROOT / "app" / "serve.py").read_text(encoding="utf-8")
    for arguments in commands(page, "python app.py"):
        flags = [argument for argument in arguments if argument.startswith("--")]
        assert all(f'"{flag}"' in source for flag in flags), (name(page), arguments)


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_python_examples_name_what_exists(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hieramp":
                    assert hasattr(hieramp, node.attr)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (text for language, text in FENCE.findall(README.read_text(encoding="utf-8")) if language == "python")
    assert "ipc=10" in block
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    exec(block.replace("ipc=10", "ipc=1"), seen)  # a tenth of the images, the same lines
    assert seen["out"].images.shape == (2, 3, 32, 32) and len(seen["out"].tokens) == len(seen["out"].saliency)
    with hieramp.open_set(tmp_path / "set.zip") as images:
        assert len(images.labels) == 10


def test_the_readme_is_short_and_its_set_up_stands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert text.startswith("---\ntitle: ") and "\nsdk: gradio\n" in text and "\napp_file: app.py\n" in text
    assert "    pip install -r requirements.txt && python app.py\n" in text
    assert "    pip install -r requirements-dev.txt && python -m pytest\n" in text


def results_of(path: Path) -> Results:
    study, kept = read_study(path), ROOT / "docs" / "measured" / "results"
    return {cell: read_result(kept / f"{cell.slug}-{study.protocol}") for cell in study.cells()}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_results_page_says_what_was_measured(path: Path) -> None:
    """If this fails, a row is new: docs/measured/README.md says how all tables are written again."""
    table = summary(read_study(path), results_of(path))
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_readmes_figures_are_those_measured() -> None:
    measured = {
        (cell.row, f"{student}, {cell.column}"): result
        for cell, result in results_of(ROOT / "studies" / "methods-diffusion.json").items()
        for student in [{"convnet": "ConvNet", "resnet18": "ResNet-18"}[cell.student]]
    }
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = ([entry.strip() for entry in line.strip("|").split("|")] for line in lines)
    assert len(rows) >= 9 and len(header) >= 3
    for row in rows:
        for heading, figure in zip(header[1:], row[1:]):
            assert {(row[0], other) for other in header[1:]} & set(measured), row[0]
            result = measured.get((row[0], heading))  # some sets cannot be made at IPC 1
            assert (figure == "–") == (result is None)
            if result:
                assert figure == f"{scores(result)[0]}" + FEW.get(len(result["runs"]), "")[:1], (row[0], heading)


def test_no_path_of_one_machine() -> None:
    """Folders of whoever measured mean nothing to a reader: docs/measured/README.md says what to write instead."""
    workplace = ROOT / "docs" / "card.md"  # what to type on the machine where a card may be lent
    for path in [page for page in PAGES if page != workplace] + [*(ROOT / "docs").rglob("*.json")]:
        found = re.search(r"(?<![\w.:/])/(work|tmp|home|root|Users|mnt)/[\w/.-]*", path.read_text(encoding="utf-8"))
        assert not found, f"{name(path)} names {found[0]}"


def test_docs_measured_holds_what_tables_are_made_of() -> None:
    found = {path.name for path in (ROOT / "docs" / "measured").rglob("*") if path.is_file()}
    tracked = {name for name in found if not re.fullmatch(r"tune-[\d-]+\.json", name)}
    allowed = {"README.md", "result.json", "table.md", "table.csv", "table.png"}  # git ignores the tables
    analysed = {path.name for folder in ("analysis", "teacher") for path in (ROOT / "docs/measured" / folder).iterdir()}
    assert tracked <= allowed | analysed


def test_the_page_in_the_docs_names_every_tab() -> None:
    source = (Path(page_package.__path__[0]) / "page.py").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    tabs = re.findall(r'gr\.Tab\("([^"]+)"', source)
    assert len(tabs) >= 5 and all(f"**{tab}" in text for tab in tabs)
