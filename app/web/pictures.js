// The pictures of a set, by class, as they are drawn: each a link that opens it in Explore. The server tells how far the
// set is (app/distill_tab.py), and this asks for what it lacks, so that nothing is lost while the tab is not open.

const part = name => element.querySelector(`[data-part="${name}"]`);
let job = null, wanted = 0, have = new Set(), isAsking = false, told = null, ended = null, timer = null;

function build(frame) {
  job = frame.job;
  have = new Set();
  wanted = frame.rows.length * frame.shown;
  const columns = frame.shown, rows = part("rows");
  const hidden = frame.classes > frame.rows.length ? `, of ${frame.rows.length} of ${frame.classes} classes` : "";
  part("note").textContent = columns < frame.ipc || hidden
    ? `The first ${columns} of ${frame.ipc} pictures of a class${hidden}. A picture opens in Explore.`
    : "A picture opens in Explore.";
  rows.replaceChildren();
  for (const [name, query] of frame.rows) {
    const row = document.createElement("div"), label = document.createElement("b"), cells = document.createElement("div");
    row.className = "row";
    label.textContent = name;
    cells.className = "cells";
    cells.dataset.query = query;
    cells.dataset.name = name;
    for (let i = 0; i < columns; i++) cells.append(document.createElement("span"));
    row.append(label, cells);
    rows.append(row);
  }
  element.querySelector(".pictures").hidden = false;
}

function place([index, row, column, seed, source]) {
  const cells = part("rows").children[row]?.lastChild, cell = cells?.children[column];
  have.add(index);
  if (!cell || cell.tagName === "A") return;
  const link = document.createElement("a"), picture = document.createElement("img");
  link.href = `${cells.dataset.query}&seed=${seed}`;
  link.target = "_self";
  picture.src = source;
  picture.alt = `${cells.dataset.name}, seed ${seed}`;
  link.append(picture);
  cell.replaceWith(link);
}

function ask() {
  if (isAsking || !told) return;
  isAsking = true;
  clearTimeout(timer);
  timer = setTimeout(() => { isAsking = false; ask(); }, 15000); // an answer that never came
  const isSame = job === told.job; // what is there of another set does not count
  trigger("more", { job: told.job, have: isSame ? [...have] : [], framed: isSame });
}

function receive() {
  const fresh = props.value;
  if (!fresh) return;
  if (fresh.told) {
    told = fresh.told;
    window.hieramp.filled("verdict", [told.job]);
    if (!told.job) { element.querySelector(".pictures").hidden = true; job = null; return; }
    if (told.job !== job || Math.min(told.done, wanted) > have.size) ask();
    else end();
    return;
  }
  isAsking = false;
  clearTimeout(timer);
  if (!told || !told.job) return;
  if (fresh.job !== told.job) { setTimeout(ask, 200); return; } // of the set that was on screen before
  if (fresh.frame) build(fresh.frame);
  if (fresh.job !== job) return;
  fresh.pictures.forEach(place);
  if (fresh.more) ask(); else end();
}

// The verdict is asked for once all is there.
function end() {
  if (!told.isDone || ended === told.job) return;
  ended = told.job;
  trigger("finished", { job: told.job });
}

watch("value", receive);
receive();
