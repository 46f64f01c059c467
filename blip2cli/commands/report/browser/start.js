/* The beginning: what controls do, light and dark, and the first cards. */

const search = byId("search"), sort = byId("sort"), direction = byId("direction");
const LONG_TEXT = 24; /* letters of an answer that may need a second line */
let lineCount = 1;

/* Shows other cards, or another order. */
function update() {
  chooseCards();
  made.clear();
  cards.replaceChildren();
  current = 0;
  showCount();
  showChips();
  facetViews.forEach(showFacet);
  const top = feed.getBoundingClientRect().top - covered() - 60;
  measure();
  if (top < 0) scrollBy(0, top);
  render();
  drawCharts();
  showSelection();
}

function showCount() {
  const fewer = shown.length < cardCount;
  const of = fewer ? `${counted(shown.length)} of ` : "";
  byId("count").textContent = of + plural(cardCount, noun);
  byId("panel-done").textContent = `Show ${plural(shown.length, noun)}`;
  byId("reset").hidden = !fewer && !filters.words.length;
  byId("none").hidden = shown.length > 0;
}

/* ---- search and order ---- */

search.addEventListener("input", () => {
  filters.words = folded(search.value).split(/\s+/).filter(Boolean);
  update();
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && search.value) {
    event.preventDefault();
    search.value = "";
    search.dispatchEvent(new Event("input"));
  } else if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault();
    go(0);
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
  if (event.key !== "/" || typing || isShortcut(event)) return;
  event.preventDefault();
  if (panel.contains(document.activeElement) && narrow.matches) closePanel();
  search.focus();
  search.select();
});
byId("tools").addEventListener("submit", (event) => event.preventDefault());

/* The best come first: high scores, and low ranks. */
sort.addEventListener("input", () => {
  setOrder(sort.value, sort.value.startsWith("number:") && sort.value !== "number:rank");
  update();
});
direction.addEventListener("click", () => {
  setOrder(order.by, !order.descending);
  update();
});

function setOrder(by, descending) {
  order.by = by;
  order.descending = descending;
  direction.setAttribute("aria-pressed", descending);
  direction.title = descending ? "Highest first" : "Lowest first";
}

byId("reset").addEventListener("click", () => {
  clearFilters();
  update();
  search.focus();
});

/* ---- light and dark ---- */

const theme = byId("theme"), prefersDark = matchMedia("(prefers-color-scheme: dark)");

function remembered(value) {
  try {
    if (value) localStorage.setItem("blip2-report-theme", value);
    return localStorage.getItem("blip2-report-theme");
  } catch {
    return null; /* where a browser keeps nothing for files */
  }
}

function showTheme() {
  const system = prefersDark.matches ? "dark" : "light";
  const dark = (document.documentElement.dataset.theme ?? system) === "dark";
  theme.setAttribute("aria-pressed", dark);
  return dark;
}

theme.addEventListener("click", () => {
  const other = showTheme() ? "light" : "dark";
  document.documentElement.dataset.theme = other;
  remembered(other);
  showTheme();
});
prefersDark.addEventListener("change", showTheme);

/* ---- the first cards ---- */

function addOrders() {
  if (answers.length === 1 && answers[0].kind !== "number") {
    sort.append(new Option(`${answerName()} length`, "length"));
  }
  for (const field of numbers) sort.append(new Option(capitalised(field.name), `number:${field.name}`));
}

/* The height of cards, which is the same for all. It has room for most of what the first cards have. */
function setHeights() {
  const first = Array.from({ length: Math.min(cardCount, 1000) }, (_, card) => linesOf(card));
  lineCount = linesPerCard(first);
  const lines = first.flat(), style = document.documentElement.style;
  const labelled = lines.some((line) => line.label !== "");
  const scores = lines.reduce((most, line) => Math.max(most, line.scores.length), 0);
  style.setProperty("--lines", lineCount);
  style.setProperty("--question-lines", labelled ? (lineCount === 1 ? 2 : 1) : 0);
  style.setProperty("--answer-lines", answerLines(lines, labelled));
  style.setProperty("--score-lines", lineCount === 1 ? Math.min(scores, MOST_SCORES) : 0);
  style.setProperty("--more-lines", first.some((few) => few.length > lineCount) ? 1 : 0);
  document.documentElement.classList.toggle("no-thumbnails", !data.side);
}

/* As many lines as nine of ten cards have. */
function linesPerCard(first) {
  const counts = Uint32Array.from(first, (lines) => lines.length).sort();
  return Math.max(1, Math.min(MOST_LINES, counts[Math.floor(counts.length * 0.9)] ?? 1));
}

function answerLines(lines, labelled) {
  const texts = lines.filter((line) => line.text !== "");
  if (!texts.length) return 0;
  if (lineCount === 1) return labelled ? 2 : 3;
  const long = texts.filter((line) => line.text.length > LONG_TEXT && line.look !== "bad");
  return long.length > texts.length / 10 ? 2 : 1;
}

function begin() {
  if (remembered()) document.documentElement.dataset.theme = remembered();
  showTheme();
  setHeights();
  addQuestions();
  addFacets();
  addOrders();
  addCharts();
  const empty = !facets.length && !charts.length && byId("question-field").hidden && !byId("settings");
  byId("panel-content").hidden = empty;
  panelButton.hidden = empty && !narrow.matches;
  placeControls();
  byId("tools").hidden = theme.hidden = byId("controls").hidden = false;
  feed.tabIndex = -1;
  update();
  performance.mark("first card");
  setTimeout(prepareSearch);
}

addEventListener("scroll", renderSoon, { passive: true });
addEventListener("resize", () => {
  measure();
  renderSoon();
});
addEventListener("beforeprint", () => {
  printing = true;
  render();
});
addEventListener("afterprint", () => {
  printing = false;
  render();
});
document.addEventListener("DOMContentLoaded", () => {
  for (const [place, card] of made) {
    const holder = card.querySelector(".picture.waiting");
    if (holder) showThumbnail(holder, shown[place]);
  }
  if (lightbox.open) openLightbox(opened);
});
begin();
