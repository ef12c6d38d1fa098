// The first minute: a curated pair, its saliency laid over it, growing once by itself. Before viewer-link.js.

const OPENING_OVERLAY = 0.4;

// A page whose address names nothing, on a model whose first pair is curated.
const opensFresh = (asked, viewModel) => props.curated && props.heads > 0 && !Object.keys(viewModel.query).some(name => asked.has(name));

// Whoever touches the page goes on by themselves, from the finished picture.
function growOnce() {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) { keepView(); return; }
  const end = () => {
    for (const kind of ["pointerdown", "keydown"]) document.removeEventListener(kind, touched, true);
    clearInterval(waiting);
  };
  const touched = () => {
    end();
    if (view.timer !== null) { play(); go(Infinity); }
  };
  const waiting = setInterval(() => { if (view.timer === null) { end(); keepView(); } }, 200);
  play();
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, touched, true);
}
