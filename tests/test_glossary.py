"""The words: one file for the page and the docs."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from serving import serving

import hieramp
from app import glossary, page

# What the page and its tester could not be read without (VAR, …, as the issue names them).
ASKED_FOR = {
    "VAR",
    "token",
    "codebook",
    "nats",
    "guidance",
    "IPC",
    "soft labels",
    "weak coarse",
    "block",
    "seed",
    "top-k",
}
# labels of the page, and the word that each explains
LABELS = {"Seed": "seed", "coarse β": "β (beta)", "mid ρ": "ρ (rho)", "weak mid": "weak coarse", "Block": "block"}
LABELS |= {"Where it looks": "saliency"}


def test_docs_are_written_from_the_file() -> None:
    assert glossary.DOCS.read_text(encoding="utf-8") == glossary.as_markdown()


def test_every_word_has_a_sentence_of_its_own() -> None:
    words = glossary.words()
    assert {word.term for word in words} >= ASKED_FOR
    assert len({word.term for word in words}) == len({word.says for word in words}) == len(words)
    assert all(re.match(r".{20,}\.$", word.says) for word in words)
    labels = [label for word in words for label in word.on]
    assert len(set(labels)) == len(labels)


def test_the_schedule_is_what_the_sentence_says() -> None:
    says = next(word.says for word in glossary.words() if word.term == "weak coarse")
    weak = hieramp.SCHEDULES["weak-coarse"]
    assert weak.mode == "attention" and weak.coarse and weak.mid and weak.fine
    assert f"γ {weak.coarse[1]:g}" in says and f"γ {weak.mid[1]:g}" in says and weak.mid == weak.fine


def test_the_script_holds_the_words() -> None:
    script = glossary.script()
    assert "/* labels */" not in script
    assert all(json.dumps(word.says, ensure_ascii=False) in script for word in glossary.words() if word.on)


@pytest.fixture(scope="module")
def address(model: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(page.build(model, job_root=tmp_path_factory.mktemp("jobs")))


def test_labels_of_the_page_explain_themselves(browser: Any, address: str) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(60_000)
    tab.goto(address)
    tab.wait_for_selector('.viewer[aria-busy="false"]')
    tab.wait_for_function("document.querySelectorAll('[data-word]').length > 10")
    for text, term in LABELS.items():
        says = next(word.says for word in glossary.words() if word.term == term)
        shown = tab.locator("[data-word]").filter(has_text=re.compile(f"^\\s*{text}")).first
        assert shown.get_attribute("title") == says, text
    tab.get_by_label("weak mid").check(force=True)  # γ instead of β: the label is another one
    gamma = next(word.says for word in glossary.words() if word.term == "γ (gamma)")
    tab.wait_for_function(
        "says => [...document.querySelectorAll('[data-word]')].some(e => e.title === says)", arg=gamma
    )
    tab.get_by_role("tab", name="Learn").click()
    assert tab.locator("#words dt").all_inner_texts() == [word.term for word in glossary.words()]
    tab.close()
