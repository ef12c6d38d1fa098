// Tooltips of the glossary. app/glossary.py puts in which label says what.

(() => {
  const sayings = Object.entries(/* labels */{});
  const LABELS = "[data-testid=block-info], #preset label, #sampling > button, .ask button, .viewer h3, .viewer .line, .viewer .checks label, .viewer .selects label, label span";
  // A label as a whole, its beginning, or for a letter between spaces any part of it.
  const ofLabel = text => sayings.filter(([label]) => label.startsWith(" ") || label === label.toLowerCase()
    ? ` ${text} `.includes(label) : text.startsWith(label)).sort((a, b) => b[0].length - a[0].length)[0];
  function explain() {
    for (const label of document.querySelectorAll(LABELS)) {
      const text = label.textContent.trim().replace(/\s+/g, " ");
      if (label.dataset.explained === text) continue;
      label.dataset.explained = text;
      const found = text.length < 80 ? ofLabel(text) : undefined;
      if (!found) { if (label.dataset.word) label.removeAttribute("title"); continue; }
      label.title = found[1];
      label.dataset.word = found[0].trim();
    }
  }
  new MutationObserver(explain).observe(document, { childList: true, subtree: true, characterData: true });
})();
