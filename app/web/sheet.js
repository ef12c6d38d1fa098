// Sheets: the difference under the pointer, the figure under each tile, and a tile that opens beside the sheet.

(() => {
  let measure = null; // what a visitor chose to see under the tiles
  let opened = null; // the label of the tile that is open

  const tileOf = target => (target.closest ? target.closest(".sheet .tile") : null);
  const about = tile => JSON.parse(tile.dataset.tile);
  const baselineOf = tile => tile.closest(".sheet").querySelector(`.tile[data-index="${tile.dataset.baseline}"] img`);

  function made(name, text, options = {}) {
    const node = Object.assign(document.createElement(name), options);
    if (text) node.textContent = text;
    return node;
  }

  // Another figure under each tile; Gradio builds the sheet anew with every batch.
  function showMeasure() {
    for (const select of document.querySelectorAll(".sheet [data-measure]")) {
      const wanted = [...select.options].some(option => option.value === measure) ? measure : select.value;
      if (select.value !== wanted) select.value = wanted;
      for (const tile of select.closest(".sheet").querySelectorAll(".tile")) {
        const caption = tile.parentNode.querySelector("figcaption"), text = about(tile).numbers[wanted];
        if (caption.textContent !== text) caption.textContent = text;
        tile.setAttribute("aria-pressed", String(about(tile).label === opened));
        if (about(tile).label === opened && tile.closest(".sheet-and-tile").querySelector(".beside").hidden) open(tile);
      }
    }
  }

  function words(tile) {
    const { label, isBaseline, numbers } = about(tile);
    if (isBaseline) return `${label}: a baseline.`;
    const tokens = numbers.changed === "–" ? "" : `, ${numbers.changed} of the tokens are others`;
    return `${label}: pixels differ by ${numbers.distance} (RMS)${tokens}.`;
  }

  function differ(tile, isOn) {
    tile.querySelector(".over")?.remove();
    tile.classList.toggle("differs", false);
    const hint = tile.closest(".sheet").querySelector(".hint");
    if (!isOn) return;
    hint.textContent = words(tile);
    const base = baselineOf(tile);
    if (!base || about(tile).isBaseline) return;
    tile.append(made("img", "", { src: base.src, alt: "", className: "over" }));
    tile.classList.toggle("differs", true);
  }

  function figure(caption, ...sources) {
    const box = made("figure"), frame = made("div", "", { className: sources.length > 1 ? "frame differs" : "frame" });
    sources.forEach((src, i) => frame.append(made("img", "", { src, alt: i ? "" : caption, className: i ? "over" : "" })));
    box.append(frame, made("figcaption", caption));
    return box;
  }

  function open(tile) {
    const aside = tile.closest(".sheet-and-tile").querySelector(".beside"), { label, query, caption, named, isBaseline, numbers } = about(tile);
    opened = label;
    const picture = tile.querySelector("img").src, base = baselineOf(tile), list = made("dl");
    const rows = [["Probability of its class", numbers.probability], ["Classifier says", named]];
    if (!isBaseline) rows.push(["Pixels differ by (RMS)", numbers.distance], ["Tokens that differ", numbers.changed]);
    for (const [name, value] of rows) if (value && value !== "–") list.append(made("dt", name), made("dd", value));
    const close = made("button", "Close", { type: "button" });
    close.addEventListener("click", () => { aside.hidden = true; opened = null; showMeasure(); tile.isConnected && tile.focus(); });
    const pictures = made("div", "", { className: "three" });
    pictures.append(figure("This tile", picture));
    if (base && !isBaseline) pictures.append(figure("Baseline", base.src), figure("Difference, twice as bright", picture, base.src));
    const links = made("p", "", { className: "plain" });
    links.append(made("a", "Open in Explore", { href: query, target: "_self" }), close);
    // The link sets the controls in place (page.js): it looks for links inside a sheet.
    const inner = made("div", "", { className: "sheet" });
    inner.append(made("h3", label), pictures, list, made("p", caption, { className: "caption" }), links);
    aside.replaceChildren(inner);
    aside.hidden = false;
    showMeasure();
  }

  document.addEventListener("pointerover", event => { const tile = tileOf(event.target); if (tile && !tile.classList.contains("differs")) differ(tile, true); });
  document.addEventListener("pointerout", event => { const tile = tileOf(event.target); if (tile && !tile.contains(event.relatedTarget)) differ(tile, false); });
  document.addEventListener("focusin", event => { const tile = tileOf(event.target); if (tile && tile.matches(":focus-visible")) differ(tile, true); });
  document.addEventListener("focusout", event => { const tile = tileOf(event.target); if (tile) differ(tile, false); });
  document.addEventListener("click", event => { const tile = tileOf(event.target); if (tile) open(tile); });
  document.addEventListener("change", event => {
    if (event.target.matches && event.target.matches(".sheet [data-measure]")) { measure = event.target.value; showMeasure(); }
  });
  new MutationObserver(showMeasure).observe(document, { childList: true, subtree: true });
})();
