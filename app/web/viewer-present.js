// For a lecture hall: the pictures alone, as large as the screen, stepped by keys. Follows viewer-saving.js.

let overlayBefore = 0.5; // what S brings back

const isPresenting = () => root.classList.contains("presenting");

function present(isOn) {
  root.classList.toggle("presenting", isOn);
  document.documentElement.classList.toggle("presenting", isOn);
  if (isOn) {
    // A frame of another site may not; then the pictures fill the frame.
    if (root.requestFullscreen) root.requestFullscreen().catch(() => {});
    part("leave").focus();
  } else {
    if (document.fullscreenElement) document.exitFullscreen();
    part("present").focus();
  }
  if (view.model) renderStage();
}

function toggleSaliency() {
  const now = Number(part("opacity").value);
  if (now > 0) overlayBefore = now;
  part("opacity").value = String(now > 0 ? 0 : overlayBefore);
  renderStage();
}

// Clickers send the keys of pages.
const STEPS = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1, Home: -Infinity, End: Infinity };

document.addEventListener("keydown", event => {
  if (!isPresenting() || !view.model || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches && event.target.matches("input[type=range], select, input[type=text]")) return;
  const key = event.key.toLowerCase();
  if (event.key in STEPS) {
    if (view.timer !== null) play();
    go(Math.min(view.scale, numDrawn() - 1) + STEPS[event.key]);
  } else if (key === "s") toggleSaliency();
  else if (key === "c") showAs(element.querySelector(".stage").dataset.view === "compare" ? "pair" : "compare");
  else if (event.key === "Escape") present(false);
  else return;
  part("readout").setAttribute("aria-live", "polite");
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement && isPresenting()) present(false); });
part("present").addEventListener("click", () => present(true));
part("leave").addEventListener("click", () => present(false));

// A stop of the tour sets what is looked at (tour.js).
window.addEventListener("hieramp-view", event => {
  if (!view.model) return;
  const { scale, overlay, compare } = event.detail, last = view.model.sides.length - 1;
  if (view.timer !== null) play();
  view.scale = Math.max(0, Math.min(last, scale ?? last));
  view.follows = scale === null || view.scale === last;
  part("opacity").value = String(overlay);
  showAs(compare ? "compare" : "pair");
  render();
});
