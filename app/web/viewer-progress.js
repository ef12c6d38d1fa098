// What takes longer than a moment: how far it is, how long it takes yet, and a button that ends it. Follows viewer-strip.js.

const LONG = 1000; // ms after which a Stop is offered
const inTime = seconds => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);
const leftWords = (since, done, of) => {
  const seconds = (performance.now() - since) / 1000;
  return done > 0 && done < of && seconds * of / done > 2 ? `about ${inTime(seconds / done * (of - done))} left` : "";
};

// A request to the server that answers in pieces (app/channel.py): `tell` shows words, "" for none; `done` gets the answer.
function inPieces(name, button, tell, done) {
  const mine = { number: 0, isOut: false, doing: "", since: 0, timer: null };
  const end = () => { mine.isOut = false; clearTimeout(mine.timer); part(button).hidden = true; };
  const halt = () => { if (mine.isOut) trigger("halt", { what: name, number: mine.number }); end(); };
  mine.ask = asked => {
    halt(); // only the newest is waited for
    Object.assign(mine, { number: mine.number + 1, isOut: true, doing: "" });
    mine.timer = setTimeout(() => { part(button).hidden = false; }, LONG);
    trigger(name, { ...asked, number: mine.number });
  };
  mine.end = () => { halt(); tell(""); };
  part(button).addEventListener("click", () => { halt(); tell("Stopped."); });
  window.addEventListener(`hieramp-${name}`, event => {
    const found = event.detail;
    if (!found || found.number !== mine.number || !mine.isOut) return;
    if (found.failed) { end(); tell(""); return; } // why is told where everything is told that went wrong
    if (found.answer) { end(); done(found.answer); return; }
    if (found.doing !== mine.doing) Object.assign(mine, { doing: found.doing, since: performance.now() - 1, first: found.done });
    const [n, of] = [found.done - mine.first, found.of - mine.first], left = leftWords(mine.since, n, of);
    tell(`${found.doing[0].toUpperCase()}${found.doing.slice(1)}: ${found.done} of ${found.of}${left && `, ${left}`} …`);
  });
  return mine;
}

// The drawing. It was asked for when the address was set; the first scale comes when the device has drawn it.

Object.assign(view, { asked: false, since: 0, stopped: false, offering: null });
const isDrawing = () => !view.stopped && (view.asked || !isFinished());
// How much of a drawing is behind: a scale takes about as long as it has positions.
const workTo = scale => view.model.sides.slice(1, scale).reduce((sum, n) => sum + n * n, 0);

function drawingWords() {
  if (view.asked) return view.stopped ? "Stopped: these are still the pictures of before." : `Drawing the first ${view.model.unit} …`;
  if (isFinished()) return view.model.caption;
  const next = nameOf(numDrawn());
  if (view.stopped) return `Stopped before ${next}.`;
  const left = leftWords(view.since, workTo(numDrawn()), workTo(view.model.sides.length));
  return `Drawing ${next}${left && `: ${left}`}`;
}

// Before a drawing is shown: whether it is the one that was stopped, of which one more scale may be on its way, or another.
function followDrawing(before, now, isNew) {
  const grows = !isNew && before && now.steps.length > before.steps.length;
  if (!grows) Object.assign(view, { stopped: isNew && view.asked && view.stopped, since: performance.now() });
  view.asked = false;
}

function offerStop() {
  if (!isDrawing()) { clearTimeout(view.offering); view.offering = null; part("halt").hidden = true; return; }
  view.offering = view.offering ?? setTimeout(() => { part("halt").hidden = !isDrawing(); }, LONG);
}

function renderDrawing() {
  root.setAttribute("aria-busy", String(!isFinished() && !view.stopped));
  offerStop();
  renderStatus();
}

part("halt").addEventListener("click", () => {
  view.stopped = true;
  trigger("halt", { what: "drawing" });
  renderDrawing();
});

// The address was set: a drawing of these settings comes, unless it is there.
window.addEventListener("hieramp-asked", event => {
  if (!view.model) return;
  const isThere = Object.entries(view.model.query).every(([name, value]) => (event.detail[name] ?? null) === value);
  Object.assign(view, { asked: !isThere, stopped: isThere && view.stopped });
  renderDrawing();
});
