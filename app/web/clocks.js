// Before Gradio's own scripts. Gradio 6.31 counts the seconds of its first "Loading…" in every frame for as long as the page
// is open, which takes a tenth of a core. No clock of its is shown here, so they tick once a second.
const frame = window.requestAnimationFrame.bind(window), isClock = tick => /performance\.now\(\).*\/1e3/.test(String(tick));
window.requestAnimationFrame = tick => (isClock(tick) ? setTimeout(tick, 1000) : frame(tick));
