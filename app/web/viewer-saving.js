// The view as a figure, the growth as an animation, the maps: made by the server (app/saved_files.py), saved here. Follows
// viewer-opening.js.

const tellSaving = text => { part("copied").textContent = text; };
const savingFile = inPieces("saved", "halt-saving", tellSaving, found => {
  const link = document.createElement("a");
  link.href = found.address;
  link.download = found.name;
  link.click();
  tellSaving(`Saved as ${found.name}.`);
  setTimeout(() => { if (!savingFile.isOut) tellSaving(""); }, 5000);
});

all("[data-save-as]").forEach(button => button.addEventListener("click", () => {
  if (!view.model || !isFinished()) { part("copied").textContent = "Wait until the pictures are finished."; return; }
  const isBare = element.querySelector(".stage").dataset.view === "compare";
  tellSaving("Making the file …");
  savingFile.ask({
    what: button.dataset.saveAs, sample: view.sample, scale: view.scale, overlay: Number(part("opacity").value),
    outline: part("outline").checked, shared: part("shared").checked, finished: part("finished").checked, compare: isBare,
    block: isAmplifiedBlock() ? null : Number(part("block").value), head: Number(part("head").value), occlusion: wantsOcclusion(),
  });
}));
