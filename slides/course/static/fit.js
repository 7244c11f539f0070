/* Type grows where a slide has room. Words, printed lines and tables together get the largest of these sizes at which
   everything stays on the slide, no picture gets smaller, and no printed line and no row of a table is broken that was
   whole at size 1. Where a wide line or table is in the way, the words alone may still grow somewhat. */
const TOGETHER = [1.5, 1.4, 1.3, 1.2, 1.1];
const WORDS = [1.3, 1.2, 1.1];
const TITLE = [1.2, 1.1]; // a title page keeps its margins

function drawn(image) {
  return Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
}

function measured(page) {
  const all = (names) => [...page.querySelectorAll(names)];
  return {
    inside: page.scrollHeight <= page.clientHeight + 1 && page.scrollWidth <= page.clientWidth + 1,
    lines: all("pre").every((one) => one.scrollWidth <= one.clientWidth + 1),
    pictures: all("img").map(drawn),
    blocks: all("pre, table").map((one) => one.offsetHeight),
  };
}

function grow(page, names, sizes, before) {
  const old = names.map((name) => page.style.getPropertyValue(name) || 1);
  for (const size of sizes.filter((one) => one > Math.max(...old))) {
    names.forEach((name) => page.style.setProperty(name, size));
    const block = Number(page.style.getPropertyValue("--block") || 1);
    const now = measured(page);
    const pictures = now.pictures.every((one, place) => one > 0.98 * before.pictures[place]);
    const blocks = now.blocks.every((one, place) => one < 1.1 * block * before.blocks[place]);
    if (now.inside && now.lines && pictures && blocks) return;
  }
  names.forEach((name, place) => page.style.setProperty(name, old[place]));
}

function fit(page) {
  if (page.dataset.fitted) return;
  page.dataset.fitted = "1";
  const before = measured(page);
  grow(page, ["--words", "--block"], page.classList.contains("title") ? TITLE : TOGETHER, before);
  grow(page, ["--words"], WORDS, before);
}

/* A slide can be measured only once it is shown; on paper all are. */
function fitShown() {
  for (const page of document.querySelectorAll(".page")) if (page.offsetParent) fit(page);
}

async function fitDeck() {
  const paper = /print-pdf/.test(location.search);
  const laidOut = new Promise((done) => Reveal.on(paper ? "pdf-ready" : "ready", done));
  const pictures = [...document.images].map((one) => one.decode().catch(() => null)); // one may be missing
  await Promise.all([laidOut, MathJax.startup.promise, document.fonts.ready, ...pictures]);
  fitShown();
  Reveal.on("slidechanged", fitShown);
}
