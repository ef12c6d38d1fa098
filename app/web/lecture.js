// Several models, the sheet of controls on a phone, and how much is shown. Follows page.js.

const KEPT = ["model", "level", "__theme"]; // of an address, whatever settings come into it

// Another model is another page; of the view it keeps what every model has. Gradio tells a choice twice.
let leaving = "";
addEventListener("pageshow", () => { leaving = ""; });
window.hieramp.open = query => {
  const url = new URL(location.href), asked = new URLSearchParams(query);
  for (const name of ["overlay", "view", "tab", "level", "__theme"]) {
    if (url.searchParams.has(name)) asked.set(name, url.searchParams.get(name));
  }
  url.pathname = url.pathname.replace(/models\/[^/]+\/?$/, "");
  url.search = asked.toString();
  if (url.href === leaving) return;
  leaving = url.href;
  location.href = url.href;
};

// A stop of the tour: hides what would give the answer away, sets what is looked at, and goes to its heading.
window.hieramp.tour = stop => {
  document.documentElement.classList.toggle("asking", stop.asking);
  document.documentElement.classList.toggle("touring", "overlay" in stop);
  if ("overlay" in stop) window.dispatchEvent(new CustomEvent("hieramp-view", { detail: stop }));
  if (stop.focus) setTimeout(() => focusSoon("#tour-text h2"), 200);
  if (stop.over) focusSoon(".tab-container:not(.visually-hidden) [role=tab][aria-selected=true]");
};

// As soon as it is to be seen: the room of the tour may still be opening.
function focusSoon(selector, tries = 50) {
  const found = document.querySelector(selector);
  if (found && found.offsetParent) found.focus();
  else if (tries) setTimeout(() => focusSoon(selector, tries - 1), 100);
}

// A link to other settings is one to them on this model, in a new tab too.
for (const kind of ["pointerdown", "focusin"]) {
  document.addEventListener(kind, event => {
    const link = event.target.closest && event.target.closest("a[href^='?']");
    if (!link) return;
    const now = new URL(location.href).searchParams, asked = new URLSearchParams(link.getAttribute("href"));
    for (const name of KEPT) if (now.has(name) && !asked.has(name)) asked.set(name, now.get(name));
    link.setAttribute("href", `?${asked}`);
  }, true);
}

// Simple hides what a first look does not need (lecture.css); the address and the browser remember the choice.
const LEVELS = ["simple", "expert"];

function setLevel(level) {
  document.documentElement.dataset.level = level;
  for (const button of document.querySelectorAll("#level button")) {
    button.setAttribute("aria-pressed", String(button.dataset.level === level));
  }
}

function chooseLevel(level) {
  setLevel(level);
  localStorage.setItem("hieramp-level", level);
  window.hieramp.shown({ level: level === "simple" ? level : null });
}

function firstLevel() {
  const asked = new URL(location.href).searchParams.get("level"), kept = localStorage.getItem("hieramp-level");
  return [asked, kept].find(level => LEVELS.includes(level)) || "expert";
}
setLevel(firstLevel());
document.addEventListener("click", event => {
  const button = event.target.closest && event.target.closest("#level button");
  if (button) chooseLevel(button.dataset.level);
});

// On a narrow page the controls are a sheet at the foot, which leaves the pictures in view above it.
function openSheet(isOpen) {
  const handle = document.getElementById("sheet-handle"), stage = document.querySelector(".viewer .stage");
  for (const id of ["controls", "workspace"]) document.getElementById(id).classList.toggle("sheet-open", isOpen);
  handle.setAttribute("aria-expanded", String(isOpen));
  handle.textContent = isOpen ? "Close the controls" : "Controls";
  if (isOpen && stage && stage.offsetParent) stage.scrollIntoView({ block: "start" });
}
const isSheetOpen = () => document.querySelector("#controls.sheet-open") !== null;

document.addEventListener("click", event => {
  if (event.target.id === "sheet-handle") openSheet(!isSheetOpen());
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape" || !isSheetOpen()) return;
  openSheet(false);
  document.getElementById("sheet-handle").focus();
});

// The switch is drawn by Gradio, after this.
new MutationObserver((_, observer) => {
  if (!document.querySelector("#level button")) return;
  observer.disconnect();
  setLevel(document.documentElement.dataset.level);
}).observe(document, { childList: true, subtree: true });
