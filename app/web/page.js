// The address bar and its history, files dropped on the page, keys, and what a browser or a phone lacks.

// In a frame of another site, where storage is blocked, even asking for it fails: then a page remembers for itself.
for (const name of ["localStorage", "sessionStorage"]) {
  try {
    window[name].getItem("hieramp");
  } catch (error) {
    const kept = new Map();
    const storage = {
      getItem: key => (kept.has(String(key)) ? kept.get(String(key)) : null),
      setItem: (key, value) => { kept.set(String(key), String(value)); },
      removeItem: key => { kept.delete(String(key)); },
      clear: () => kept.clear(),
      key: index => [...kept.keys()][index] ?? null,
      get length() { return kept.size; },
    };
    Object.defineProperty(window, name, { configurable: true, value: storage });
  }
}

// What a visitor does within this time, in ms, of what they did before, or while a pointer is down, is one step of Back,
// however late the server answers.
const SETTLED = 1000;
let acted = 0, isDown = false, isStep = false, isSet = false, restoring = false, pending = null, lastAsked = 0;

function act() {
  if (!isDown && Date.now() - acted > SETTLED) isStep = true;
  acted = Date.now();
}
for (const kind of ["keydown", "input", "change", "drop"]) addEventListener(kind, act, true);
addEventListener("pointerdown", () => { isDown = false; act(); isDown = true; }, true); // one let go outside was never told
for (const kind of ["pointerup", "pointercancel", "dragend"]) addEventListener(kind, () => { isDown = false; }, true);

function changedAddress(query) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(query)) {
    if (value === null) url.searchParams.delete(name); else url.searchParams.set(name, value);
  }
  return url;
}

function show(url, isStep) {
  if (url.href === location.href) return;
  history[isStep ? "pushState" : "replaceState"](isStep ? {} : history.state, "", url);
  // A Space is a frame in another page, whose address is the one people copy.
  if (parent !== window) parent.postMessage({ queryString: url.search, hash: url.hash }, "https://huggingface.co");
}

window.hieramp = {
  // What was asked for last: the settings as the address, null for one that is not in it (what others put there,
  // ?__theme=dark, stays), or the fields that hold what cannot be drawn. What was asked for before that and is answered
  // only now takes nothing back.
  asked(query, { when, wrong }) {
    if (when < lastAsked) return;
    lastAsked = when;
    if (wrong) { mark(wrong); return; }
    if (!query || !query.class) return;
    const url = changedAddress(query), isChange = isSet && url.href !== location.href;
    if (!restoring) show(url, isChange && isStep); // Back has set the address; an older answer must not
    if (isChange && !restoring) isStep = false;
    isSet = true;
    restoring = false;
    for (const field of document.querySelectorAll("[data-wrong]")) unmark(field);
    markStale(query);
    window.dispatchEvent(new CustomEvent("hieramp-asked", { detail: query }));
  },
  // What is looked at, which Back does not undo step by step.
  shown(query) {
    if (query.tab === "explore") query = { ...query, tab: null };
    if (!isSet || restoring) return;
    if (!pending) setTimeout(() => { if (!restoring) show(changedAddress(pending), false); pending = null; }, 200);
    pending = { ...pending, ...query };
  },
  // A form of a study as it is now (app/study.py).
  filled(study, values) {
    forms[study] = JSON.stringify(values);
    markStale();
  },
};

function mark(names) {
  for (const name of names) {
    const block = document.getElementById(name);
    if (!block) continue;
    block.dataset.wrong = "";
    for (const input of block.querySelectorAll("input, textarea")) input.setAttribute("aria-invalid", "true");
  }
}

function unmark(block) {
  delete block.dataset.wrong;
  for (const input of block.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function restore(query) {
  if (!document.querySelector("#viewer .viewer")) { location.reload(); return; } // Explore was never opened
  restoring = true;
  acted = 0;
  isStep = false;
  setTimeout(() => { restoring = false; }, 5000); // an address that cannot be drawn sets none
  window.dispatchEvent(new CustomEvent("hieramp-restore", { detail: query }));
}

addEventListener("popstate", () => restore(location.search));

// A picture of a sheet, or an example, sets the controls, and the sheet stays where it is. The tab belongs to the step before.
document.addEventListener("click", event => {
  const link = event.target.closest && event.target.closest(":is(.sheet, .examples, .pictures) a[href^='?']");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const url = new URL(location.href), asked = new URLSearchParams(link.getAttribute("href"));
  for (const name of ["__theme", "model", "level"]) if (url.searchParams.has(name)) asked.set(name, url.searchParams.get(name));
  url.search = asked.toString();
  show(url, true);
  restore(url.search);
});

// Results say of which settings they are, and that those are no longer the ones of the controls, or of their form.
let current = null;
const forms = {}; // by the name of their study, as they are filled in
function markStale(query) {
  current = query || current;
  for (const note of document.querySelectorAll("[data-of]")) note.hidden = !isStale(note);
}

function isStale(note) {
  const result = note.closest("[data-study]"), form = result && forms[result.dataset.study];
  if (form && form !== JSON.stringify(JSON.parse(result.dataset.asked))) return true;
  return current !== null && Object.entries(JSON.parse(note.dataset.of)).some(([name, value]) => (current[name] ?? null) !== value);
}

// Keys: Gradio gives each radio button a name of its own, so that arrow keys pass from none to none.
function joinRadios() {
  for (const radio of document.querySelectorAll("input[type=radio]")) {
    const group = radio.closest(".block[id]");
    if (group && radio.name !== group.id) radio.name = group.id;
  }
}
new MutationObserver(() => { joinRadios(); markStale(); }).observe(document, { childList: true, subtree: true });

document.addEventListener("keydown", event => {
  const tab = event.target.closest && event.target.closest("[role=tab]");
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (!tab || !(event.key in moves)) return;
  const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]:not(:disabled)")].filter(one => one.offsetParent);
  const at = tabs.indexOf(tab) + moves[event.key], next = tabs[Math.max(0, Math.min(tabs.length - 1, at))];
  event.preventDefault();
  next.focus();
  next.click();
});

// The name of a class is typed over, not into.
document.addEventListener("focusin", event => {
  if (event.target.matches && event.target.matches("#class_name input")) setTimeout(() => event.target.select(), 0);
});

// A saved picture dropped anywhere goes where "Open a saved picture" would put it.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, event => {
    const files = event.dataTransfer && event.dataTransfer.files;
    const input = document.querySelector("#open-picture input[type=file]") ||
      document.querySelector("input[type=file]");
    if (!event.dataTransfer || ![...event.dataTransfer.types].includes("Files") || !input) return;
    event.preventDefault();
    event.stopPropagation();
    if (kind !== "drop" || !files.length) return;
    const one = new DataTransfer();
    one.items.add(files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
}
