// The samples, the strip of scales, the player, blocks and heads. Follows viewer-draw.js.

// Samples and scales

function renderGallery() {
  const viewModel = view.model, gallery = element.querySelector(".gallery"), many = count() > 1;
  gallery.hidden = !many;
  if (!many) return;
  while (gallery.children.length > count()) gallery.lastChild.remove();
  viewModel.seeds.forEach((seed, i) => {
    let button = gallery.children[i];
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.innerHTML = "<img alt=''><img alt=''><span></span>";
      button.addEventListener("click", () => { view.sample = i; view.cursor = null; render(); askCloser(); });
      gallery.append(button);
    }
    button.setAttribute("aria-pressed", String(i === view.sample));
    button.lastChild.textContent = `seed ${seed}`;
    [0, 1].forEach(side => {
      const image = button.children[side], r = side * count() + i;
      if (numDrawn()) image.src = viewModel.finals ? viewModel.finals[r].uri : step(numDrawn() - 1).images[r];
      image.alt = `${SIDES[side]} picture of ${viewModel.name}, seed ${seed}`;
    });
  });
}

function buildStrip() {
  const viewModel = view.model, key = viewModel.titles.join(), isVar = viewModel.unit === "scale", counted = isVar ? "Tokens changed" : "Amplified";
  if (view.strip === key) return;
  view.strip = key;
  part("strip").innerHTML = `<div class="labels" aria-hidden="true"><span></span><span>Baseline</span><span>Amplified</span>` +
    `<span>Saliency, baseline</span><span>Saliency, amplified</span><span>${counted}</span></div>` +
    viewModel.sides.map((n, scale) => `<button type="button" data-scale="${scale}" aria-pressed="false">` +
      `<span class="head"><b>${viewModel.titles[scale]}</b><span>${viewModel.unit} ${viewModel.numbers[scale]}</span><span>${viewModel.stages[scale] || "start"}</span></span>` +
      `<img alt=""><img alt=""><canvas aria-hidden="true" width="${n}" height="${n}"></canvas>` +
      `<canvas aria-hidden="true" width="${n}" height="${n}"></canvas><small><span></span><span class="unseen"> ${isVar ? "tokens differ" : "positions amplified"}</span><span class="moved"></span></small></button>`).join("");
  all("[data-scale]").forEach(button => button.addEventListener("click", () => go(Number(button.dataset.scale))));
}

function renderStrip() {
  all("[data-scale]").forEach((button, scale) => {
    const isDrawn = scale < numDrawn();
    button.disabled = !isDrawn && !button.classList.contains("stale");
    button.classList.toggle("stale", !isDrawn && Boolean(button.querySelector("img").src));
    button.setAttribute("aria-pressed", String(scale === Math.min(view.scale, numDrawn() - 1)));
    if (!isDrawn) return;
    const { changed } = step(scale), marked = changed ? changed[view.sample].length : chosenOf(scale, 1).length, total = sideOf(scale) ** 2;
    button.querySelector("small span").textContent = `${marked} of ${total}`;
    const { moved } = step(scale);
    button.querySelector(".moved").textContent = moved ? `pixels ${(100 * moved[view.sample]).toFixed(1)}\u00a0%` : "";
    [0, 1].forEach(side => {
      button.querySelectorAll("img")[side].src = step(scale).images[row(side)];
      const canvas = button.querySelectorAll("canvas")[side], pen = canvas.getContext("2d");
      heat(pen, mapOf(scale, side), topOf(scale, side), sideOf(scale), i => i, 1);
    });
  });
}

function go(scale) {
  const last = view.model.sides.length - 1;
  view.scale = Math.max(0, Math.min(last, scale));
  view.follows = view.scale === last;
  view.cursor = null;
  renderStrip();
  renderStage();
  showInStrip(all("[data-scale]")[view.scale]);
}

// On a narrow page the strip scrolls sideways; the page itself stays where it is.
function showInStrip(button) {
  const strip = part("strip"), [box, mine] = [strip.getBoundingClientRect(), button.getBoundingClientRect()];
  if (mine.right > box.right) strip.scrollLeft += mine.right - box.right;
  if (mine.left < box.left) strip.scrollLeft -= box.left - mine.left;
}

function play() {
  const isPlaying = view.timer !== null;
  clearInterval(view.timer);
  view.timer = null;
  if (!isPlaying) {
    go(0);
    view.timer = setInterval(() => {
      go(view.scale + 1);
      if (view.scale >= view.model.sides.length - 1) play();
    }, 700);
  }
  element.querySelector('[data-go="play"]').textContent = view.timer === null ? "Play" : "Pause";
}

// Blocks and heads, on request

function buildBlocks() {
  const key = `${props.depth}/${props.heads}`;
  if (view.blocks === key) return;
  view.blocks = key;
  const option = (value, text) => `<option value="${value}">${text}</option>`;
  const blocks = props.heads ? Array.from({ length: props.depth }, (_, i) => option(i, String(i))) : [];
  const heads = Array.from({ length: props.heads }, (_, i) => option(i + 1, String(i)));
  part("block").innerHTML = option("", "amplified") + blocks.join("");
  part("head").innerHTML = option(0, "mean") + heads.join("");
  part("head").disabled = true;
}

function askCloser() {
  part("head").disabled = isAmplifiedBlock();
  if (!isAmplifiedBlock() && isFinished()) trigger("look", { sample: view.sample, block: Number(part("block").value) });
}
