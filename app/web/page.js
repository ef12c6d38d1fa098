// The address bar, files dropped on the page, and the first look on a phone.

window.hieramp = {
  // The settings as the address, null for one that is not in it; what others put there (?__theme=dark) stays.
  address(query) {
    if (!query || !query.class) return;
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(query)) {
      if (value === null) url.searchParams.delete(name); else url.searchParams.set(name, value);
    }
    history.replaceState(history.state, "", url);
    // A Space is a frame in another page, whose address is the one people copy.
    if (parent !== window) parent.postMessage({ queryString: url.search, hash: url.hash }, "https://huggingface.co");
  },
  // On a phone the pictures lie below the controls.
  showResult() {
    if (innerWidth < 760) document.getElementById("viewer")?.scrollIntoView({ block: "start" });
  },
};

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
