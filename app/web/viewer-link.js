// The view in the address, and what is copied: link, Python, command line. Follows viewer-input.js; the last part.

const SWITCHES = ["outline", "marks", "shared", "finished", "against"];

// What is looked at as parameters of the address; null for what is as on a fresh page.
function viewNow() {
  const asked = { view: null, scale: null, sample: null, overlay: null, block: null, head: null, map: null, look: null };
  const shown = element.querySelector(".stage").dataset.view;
  if (shown !== "pair") asked.view = shown;
  if (!view.follows) asked.scale = String(view.scale);
  if (view.sample) asked.sample = String(view.sample);
  if (Number(part("opacity").value)) asked.overlay = part("opacity").value;
  if (!isAmplifiedBlock()) asked.block = part("block").value;
  if (!isAmplifiedBlock() && part("head").value !== "0") asked.head = String(Number(part("head").value) - 1);
  if (part("map").value) asked.map = part("map").value;
  if (view.looked) asked.look = `${view.looked.scale}-${view.looked.position}`;
  for (const name of SWITCHES) asked[name] = part(name).checked === part(name).defaultChecked ? null : String(Number(part(name).checked));
  return asked;
}

function keepView() {
  if (isFinished() && view.timer === null) window.hieramp.shown(viewNow());
}

// The same the other way; what is out of range is left aside.
function readView(asked, viewModel) {
  const whole = (name, most) => {
    const text = asked.get(name);
    return text !== null && /^\d{1,4}$/.test(text) && Number(text) <= most ? Number(text) : null;
  };
  const last = viewModel.sides.length - 1, scale = whole("scale", last), block = whole("block", props.depth - 1);
  view.scale = scale ?? last;
  view.follows = scale === null || scale === last;
  view.sample = whole("sample", viewModel.seeds.length - 1) ?? 0;
  const overlay = opensFresh(asked, viewModel) ? OPENING_OVERLAY : Number(asked.get("overlay"));
  part("opacity").value = overlay > 0 && overlay <= 1 ? overlay : 0;
  buildBlocks();
  part("block").value = block === null || !props.heads ? "" : String(block);
  const head = whole("head", props.heads - 1);
  part("head").value = head === null || isAmplifiedBlock() ? "0" : String(head + 1);
  part("head").disabled = isAmplifiedBlock();
  part("map").value = props.classifier && asked.get("map") === "occlusion" ? "occlusion" : "";
  const [lookedScale, position] = /^\d{1,2}-\d{1,4}$/.test(asked.get("look")) ? asked.get("look").split("-").map(Number) : [-1, 0];
  view.looked = props.kind === "var" && lookedScale >= 0 && lookedScale <= last && position < viewModel.sides[lookedScale] ** 2
    ? { scale: lookedScale, position } : null;
  for (const name of SWITCHES) part(name).checked = asked.has(name) ? asked.get(name) === "1" : part(name).defaultChecked;
  showAs(asked.get("view") === "compare" ? "compare" : "pair");
}

// Back, Forward, and a picture of a sheet: the server reads the settings, the view is read here.
window.addEventListener("hieramp-restore", event => {
  if (view.model) {
    readView(new URLSearchParams(event.detail), view.model);
    render();
  }
  trigger("restore", { query: event.detail });
});

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) { // no clipboard over plain http, or in a frame: the old way
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("aria-hidden", "true");
    area.style.cssText = "position: fixed; opacity: 0";
    element.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}

all("[data-copy]").forEach(button => button.addEventListener("click", async () => {
  if (!view.model) return;
  const text = { link: location.href, python: view.model.python, command: view.model.command }[button.dataset.copy];
  part("copied").textContent = await copied(text) ? "Copied." : "The browser did not allow it.";
  button.focus();
  setTimeout(() => { part("copied").textContent = ""; }, 3000);
}));

// What only a VAR has: tokens, blocks and heads to look into, a map of one's own, beliefs.
all("[data-var]").forEach(one => { one.classList.toggle("gone", props.kind !== "var"); });
if (props.kind !== "var") all("[data-go][aria-label]").forEach(one => one.setAttribute("aria-label", one.getAttribute("aria-label").replace(/scale/i, "step")));
part("legend").title = props.legend;
part("judges").textContent = props.judges;
watch("value", receive);
receive();
