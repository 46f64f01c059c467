"use strict";
/* Shows the rows in the page's data. Only the cards near the window are in the document; all of a row that comes from
   outside is put there as text, never as markup. */

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const answers = data.answer === null ? null : data.fields[data.answer];
const questions = data.question === null ? null : data.fields[data.question];
const scores = data.scores.map((at) => data.fields[at]);
/* What rows can be filtered by: the question, or the text that each image was compared with. */
const asked = questions ?? (answers?.name === "text" ? answers : null);

const MOST_QUESTIONS = 200;
const MOST_SCORES = 3; /* on a card */
const MOST_CHARTS = 3;
const MOST_PRINTED = 1000;
const MARGIN = 800; /* pixels beyond the window that are filled too */

/* ---- words and numbers ---- */

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1).replaceAll("_", " ");
const singular = (name) => (name === "captions" ? "caption" : name);
const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const texts = (field, row) => (field?.kind === "texts" ? field.values[row] : [field?.values[row]]) ?? [];
const written = (field, row, mark = "") =>
  texts(field, row).filter((text) => text != null).map((text, _, all) => (all.length > 1 ? mark + text : text)).join("\n");
const words = (text) => text.split(/\s+/).filter(Boolean).length;

function rounded(number) {
  if (Number.isInteger(number)) return number.toLocaleString("en").replace("-", "−");
  const size = Math.abs(number);
  const text = size >= 1e-3 && size < 1e6 ? number.toPrecision(size >= 1000 ? 6 : 3) : number.toExponential(2);
  return text.replaceAll("-", "−");
}

let haystacks = null;
function haystack(row) {
  haystacks ??= data.names.map((name, at) => {
    const cells = data.fields.map((field) => (field.kind === "number" ? "" : written(field, at)));
    return folded([name, data.errors[at] ?? "", ...cells].join("\n"));
  });
  return haystacks[row];
}

/* ---- pictures ---- */

const blocks = document.getElementsByClassName("thumbnails");
const read = new Map();
function thumbnail(place) {
  const at = Math.floor(place / data.block);
  if (!read.has(at)) {
    if (at >= blocks.length) return null; /* the browser has not come so far */
    read.set(at, JSON.parse(blocks[at].textContent));
  }
  return `data:image/webp;base64,${read.get(at)[place % data.block]}`;
}

function showPicture(holder, row) {
  const place = data.places[row];
  const source = place < 0 ? null : thumbnail(place);
  if (source !== null) {
    const image = document.createElement("img");
    image.alt = `Image ${data.names[row]}`;
    image.decoding = "async";
    image.src = source;
    holder.replaceChildren(image);
  } else {
    const blank = document.createElement("span");
    const fault = data.faults[row] ?? "left out: no room for its thumbnail";
    blank.textContent = place < 0 ? `No picture: ${fault.split(":")[0]}` : "";
    blank.title = place < 0 ? fault : "";
    holder.replaceChildren(blank);
  }
  holder.classList.toggle("waiting", place >= 0 && source === null);
}

/* ---- which rows are shown, in which order ---- */

const search = $("search"), state = $("state"), question = $("question"), sort = $("sort"), direction = $("direction");
const length = (row) => (data.errors[row] ? null : words(texts(answers, row)[0] ?? ""));
const lengths = (row) => (data.errors[row] ? [] : texts(answers, row).filter((text) => text != null).map(words));
const descending = () => direction.getAttribute("aria-pressed") === "true";
const sorts = new Map([["length", length]]);
scores.forEach((field) => sorts.set(`score:${field.name}`, (row) => field.values[row]));

let shown = data.names.map((_, row) => row);

function kept(row, wanted) {
  const error = data.errors[row];
  if (state.value === "good" && error) return false;
  if (state.value === "bad" && !error) return false;
  if (state.value.startsWith("kind:") && (!error || kind(error) !== state.value.slice(5))) return false;
  if (question.value !== "" && asked.values[row] !== questionTexts[question.value]) return false;
  return wanted.every((word) => haystack(row).includes(word));
}

function kind(error) {
  const before = error.split(":")[0];
  return before.length <= 30 ? before : "other";
}

function choose() {
  const wanted = folded(search.value).split(/\s+/).filter(Boolean);
  shown = data.names.map((_, row) => row).filter((row) => kept(row, wanted));
  const key = sorts.get(sort.value);
  const turn = descending() ? -1 : 1;
  if (key) {
    const keys = new Map(shown.map((row) => [row, key(row)]));
    shown.sort((one, other) => compared(keys.get(one), keys.get(other), turn) || one - other);
  } else if (turn < 0) {
    shown.reverse();
  }
}

/* Rows without a value stand last, whichever way round. */
function compared(one, other, turn) {
  if (one === null || other === null) return (one === null) - (other === null);
  return (one - other) * turn;
}

/* ---- cards ---- */

const feed = $("feed"), cards = $("cards"), template = $("card").content.firstElementChild;
const made = new Map(); /* place among the shown rows → card */
let columns = 1, pitch = 1, current = 0, printing = false;

function makeCard(place) {
  const row = shown[place];
  const card = template.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  card.id = `row-${row}`;
  card.dataset.place = place;
  card.setAttribute("aria-posinset", place + 1);
  card.setAttribute("aria-setsize", shown.length);
  showPicture(part("picture"), row);
  if (questions) showText(part("question"), written(questions, row));
  else part("question").remove();
  const error = data.errors[row];
  const text = error ?? (answers ? written(answers, row, "– ") : "");
  showText(part("answer"), text || (answers ? "(empty)" : ""));
  part("answer").classList.toggle("bad", error !== undefined);
  part("answer").classList.toggle("nothing", !text);
  if (scores.length) showScores(part("scores"), row);
  else part("scores").remove();
  showText(part("name").firstElementChild, data.names[row]);
  part("name").title = data.names[row];
  for (const name of ["question", "answer", "name"]) if (part(name)) part(name).id = `${card.id}-${name}`;
  const told = [`${card.id}-question`, `${card.id}-answer`].filter((id) => card.querySelector(`#${id}`));
  card.setAttribute("aria-labelledby", told.join(" "));
  card.setAttribute("aria-describedby", `${card.id}-name`);
  return card;
}

function showScores(holder, row) {
  const first = scores.find((field) => `score:${field.name}` === sort.value);
  const ordered = first ? [first, ...scores.filter((field) => field !== first)] : scores;
  for (const field of ordered.filter((one) => one.values[row] !== null).slice(0, MOST_SCORES)) {
    const item = document.createElement("span"), value = document.createElement("b");
    value.textContent = rounded(field.values[row]);
    item.append(field.name, value);
    holder.append(item);
  }
}

/* A text, with what is searched for marked. */
function showText(holder, text) {
  const wanted = search.value.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!wanted.length) {
    holder.textContent = text;
    return;
  }
  const parts = text.split(new RegExp(`(${wanted.join("|")})`, "giu"));
  holder.replaceChildren(...parts.map((part, at) => {
    if (at % 2 === 0) return document.createTextNode(part);
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  }));
}

function measure() {
  const style = getComputedStyle(cards);
  columns = style.gridTemplateColumns.split(" ").length;
  pitch = parseFloat(style.gridAutoRows) + parseFloat(style.rowGap);
  feed.style.height = `${Math.max(0, Math.ceil(shown.length / columns) * pitch)}px`;
}

/* The places of the first card that stands in the document and of that behind the last. */
function stretch() {
  if (printing) return [0, Math.min(shown.length, MOST_PRINTED)];
  const top = feed.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((-top - MARGIN) / pitch)) * columns;
  const behind = Math.ceil((innerHeight - top + MARGIN) / pitch) * columns;
  return [Math.min(first, shown.length), Math.min(Math.max(behind, 0), shown.length)];
}

function render() {
  const [first, behind] = stretch();
  const held = cards.contains(document.activeElement);
  for (const [place, card] of made) {
    if (place >= first && place < behind) continue;
    card.remove();
    made.delete(place);
  }
  if (held && !cards.contains(document.activeElement)) feed.focus({ preventScroll: true });
  let before = null;
  for (let place = behind - 1; place >= first; place -= 1) {
    if (!made.has(place)) {
      const card = makeCard(place);
      made.set(place, card);
      cards.insertBefore(card, before);
    }
    before = made.get(place);
  }
  cards.style.transform = `translateY(${(first / columns) * pitch}px)`;
  markCurrent();
}

/* Tab leads to one card, from which the arrow keys lead to the others. */
function markCurrent() {
  const inReach = made.has(current) ? current : Math.min(...made.keys());
  for (const [place, card] of made) card.tabIndex = place === inReach ? 0 : -1;
}

let asking = 0;
function renderSoon() {
  asking ||= requestAnimationFrame(() => {
    asking = 0;
    render();
  });
}

/* All anew: other rows, or another order. */
function update() {
  choose();
  made.clear();
  cards.replaceChildren();
  current = 0;
  const narrowed = shown.length < data.names.length;
  const of = narrowed ? `${shown.length.toLocaleString("en")} of ` : "";
  $("count").textContent = of + plural(data.names.length, "row");
  $("reset").hidden = !narrowed;
  $("none").hidden = shown.length > 0;
  const top = feed.getBoundingClientRect().top - covered() - 60;
  measure();
  if (top < 0) scrollBy(0, top);
  render();
  drawCharts();
}

/* Pixels of the window that the tools cover where they stay in it. */
const covered = () => (getComputedStyle($("tools")).position === "sticky" ? $("tools").offsetHeight : 0);

/* ---- keyboard ---- */

function go(place) {
  if (!shown.length) return;
  current = Math.max(0, Math.min(shown.length - 1, place));
  const top = Math.floor(current / columns) * pitch + feed.getBoundingClientRect().top;
  const above = covered() + 8;
  if (top < above) scrollBy(0, top - above);
  else if (top + pitch > innerHeight) scrollBy(0, top + pitch - innerHeight);
  render();
  made.get(current)?.focus({ preventScroll: true });
}

const screenful = () => Math.max(1, Math.floor((innerHeight - covered()) / pitch)) * columns;
const MOVES = {
  ArrowRight: () => current + 1,
  ArrowLeft: () => current - 1,
  ArrowDown: () => Math.min(current + columns, Math.max(current, shown.length - 1)),
  ArrowUp: () => (current >= columns ? current - columns : current),
  PageDown: () => current + screenful(),
  PageUp: () => current - screenful(),
  Home: () => 0,
  End: () => shown.length - 1,
};

feed.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (MOVES[event.key]) {
    event.preventDefault();
    go(MOVES[event.key]());
  } else if ((event.key === "Enter" || event.key === " ") && made.has(current)) {
    event.preventDefault();
    openDetail(current);
  }
});
feed.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card) current = Number(card.dataset.place);
});
feed.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card && String(getSelection()) === "") openDetail(Number(card.dataset.place));
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && search.value) {
    event.preventDefault();
    search.value = "";
    update();
  } else if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault();
    go(0);
  }
});

/* ---- one row in full ---- */

const detail = $("detail");
let opened = 0; /* its place; the browser gives the focus back to the card it was opened from, which moves `current` */

function openDetail(place) {
  opened = Math.max(0, Math.min(shown.length - 1, place));
  const row = shown[opened];
  showPicture($("detail-picture"), row);
  $("detail-name").textContent = data.names[row];
  $("detail-place").textContent = `${(opened + 1).toLocaleString("en")} of ${plural(shown.length, "row")}`;
  $("previous").disabled = opened === 0;
  $("next").disabled = opened === shown.length - 1;
  const lead = [questions, answers].filter(Boolean);
  const fields = [...lead, ...data.fields.filter((field) => !lead.includes(field))];
  const fault = data.places[row] < 0 && data.side ? data.faults[row] : undefined;
  $("detail-fields").replaceChildren(
    ...[data.errors[row] !== undefined && entry("error", data.errors[row], "bad")].filter(Boolean),
    ...fields.filter((field) => field.values[row] !== null).map((field) =>
      entry(field.name, inFull(field, row), field === answers ? "lead" : "")),
    ...[fault !== undefined && fault !== data.errors[row] && entry("picture", fault, "")].filter(Boolean),
  );
  const opening = !detail.open;
  if (opening) detail.showModal();
  if (opening || document.activeElement.disabled || !detail.contains(document.activeElement)) $("detail-name").focus();
}

const inFull = (field, row) => (field.kind === "number" ? String(field.values[row]) : written(field, row, "– "));

function entry(name, text, look) {
  const item = document.createElement("div"), term = document.createElement("dt"), value = document.createElement("dd");
  term.textContent = name;
  value.textContent = text;
  value.dir = "auto";
  if (look) item.className = look;
  item.append(term, value);
  return item;
}

$("previous").addEventListener("click", () => openDetail(opened - 1));
$("next").addEventListener("click", () => openDetail(opened + 1));
$("close").addEventListener("click", () => detail.close());
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
detail.addEventListener("close", () => go(opened));
detail.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight" && opened < shown.length - 1) openDetail(opened + 1);
  if (event.key === "ArrowLeft" && opened > 0) openDetail(opened - 1);
});

/* ---- histograms ---- */

const charts = [];

function addChart(title, valuesOf) {
  const every = data.names.flatMap((_, row) => valuesOf(row));
  if (new Set(every).size < 2) return;
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const numbers = document.createElement("span"), ends = document.createElement("div");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  caption.append(title, numbers);
  svg.setAttribute("class", "chart");
  svg.setAttribute("role", "img");
  svg.setAttribute("preserveAspectRatio", "none");
  ends.className = "ends";
  figure.append(caption, svg, ends);
  $("charts").append(figure);
  const chart = { title, valuesOf, numbers, svg, bins: binsOf(every) };
  chart.all = counted(every, chart.bins);
  const { low, width, count, whole } = chart.bins;
  for (const end of [low, whole ? low + (count - 1) * width : low + count * width]) {
    const label = document.createElement("span");
    label.textContent = rounded(end);
    ends.append(label);
  }
  charts.push(chart);
}

/* Whole numbers have a bar each as long as there are few; everything else is cut into 24. */
function binsOf(values) {
  const low = values.reduce((one, other) => Math.min(one, other));
  const high = values.reduce((one, other) => Math.max(one, other));
  const whole = values.every(Number.isInteger) && high - low < 40;
  return whole ? { low, width: 1, count: high - low + 1, whole } : { low, width: (high - low) / 24, count: 24, whole };
}

function counted(values, { low, width, count }) {
  const counts = new Array(count).fill(0);
  for (const value of values) counts[Math.min(count - 1, Math.floor((value - low) / width))] += 1;
  return counts;
}

function drawCharts() {
  for (const chart of charts) {
    const values = shown.flatMap(chart.valuesOf).sort((one, other) => one - other);
    const median = values[Math.floor((values.length - 1) / 2)];
    const told = values.length
      ? `min ${rounded(values[0])} · median ${rounded(median)} · max ${rounded(values.at(-1))}`
      : "none of the rows shown has a value";
    chart.numbers.textContent = told;
    chart.svg.setAttribute("aria-label", `Histogram of ${chart.title}, ${plural(values.length, "value")}: ${told}`);
    drawBars(chart, counted(values, chart.bins));
  }
}

function drawBars(chart, now) {
  const most = Math.max(...chart.all), count = chart.all.length;
  chart.svg.setAttribute("viewBox", `0 0 ${count} 100`);
  const bars = [["all", chart.all], ["now", now]].flatMap(([look, counts]) => counts.map((number, at) => {
    const height = (100 * number) / most;
    const bar = svgElement("rect", { class: look, x: at + 0.06, width: 0.88, y: 100 - height, height });
    const title = svgElement("title", {});
    title.textContent = `${binName(chart.bins, at)}: ${number.toLocaleString("en")}`;
    bar.append(title);
    return bar;
  }));
  chart.svg.replaceChildren(...bars, svgElement("line", { x1: 0, x2: count, y1: 100, y2: 100 }));
}

function binName({ low, width, whole }, at) {
  return whole ? rounded(low + at) : `${rounded(low + at * width)} to ${rounded(low + (at + 1) * width)}`;
}

function svgElement(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/* ---- light and dark ---- */

const theme = $("theme"), prefersDark = matchMedia("(prefers-color-scheme: dark)");

function remembered(value) {
  try {
    if (value) localStorage.setItem("blip2-report-theme", value);
    return localStorage.getItem("blip2-report-theme");
  } catch {
    return null; /* where a browser keeps nothing for files */
  }
}

function showTheme() {
  const dark = (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
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

/* ---- beginning ---- */

let questionTexts = [];
function addQuestions() {
  const counts = new Map();
  for (const text of asked?.values ?? []) if (typeof text === "string") counts.set(text, (counts.get(text) ?? 0) + 1);
  if (counts.size < 2) return;
  const ranked = [...counts].sort(([, one], [, other]) => other - one);
  questionTexts = ranked.slice(0, MOST_QUESTIONS).map(([text]) => text);
  const added = ranked.slice(0, MOST_QUESTIONS).map(([text, count], at) => {
    const short = text.length > 80 ? `${text.slice(0, 79)}…` : text;
    return new Option(`${short} (${count.toLocaleString("en")})`, at);
  });
  question.append(...added);
  if (counts.size > MOST_QUESTIONS) {
    const rest = new Option(`${plural(counts.size - MOST_QUESTIONS, "other")}: search for them`);
    rest.disabled = true;
    question.append(rest);
  }
  document.querySelector("label[for=question]").textContent = capitalised(asked.name);
  $("question-field").hidden = false;
}

function begin() {
  if (remembered()) document.documentElement.dataset.theme = remembered();
  showTheme();
  addQuestions();
  if (answers) sort.append(new Option(`${capitalised(singular(answers.name))} length`, "length"));
  scores.forEach((field) => sort.append(new Option(capitalised(field.name), `score:${field.name}`)));
  const look = document.documentElement.style;
  if (questions) look.setProperty("--question-lines", 2);
  const told = answers !== null || Object.keys(data.errors).length > 0;
  if (questions || !told) look.setProperty("--answer-lines", told ? 2 : 0);
  look.setProperty("--score-lines", Math.min(scores.length, MOST_SCORES));
  if (!data.side) document.body.classList.add("no-thumbnails");
  if (answers) addChart(`${capitalised(singular(answers.name))} length in words`, lengths);
  for (const field of scores.slice(0, MOST_CHARTS)) {
    addChart(capitalised(field.name), (row) => (field.values[row] === null ? [] : [field.values[row]]));
  }
  $("charts-panel").hidden = !charts.length;
  $("charts-panel").open = innerWidth >= 640;
  $("tools").hidden = theme.hidden = false;
  feed.tabIndex = -1;
  update();
}

for (const control of [search, state, question]) control.addEventListener("input", update);
sort.addEventListener("input", () => {
  const best = sort.value.startsWith("score:") && sort.value !== "score:rank";
  direction.setAttribute("aria-pressed", best);
  update();
});
direction.addEventListener("click", () => {
  direction.setAttribute("aria-pressed", !descending());
  update();
});
$("tools").addEventListener("submit", (event) => event.preventDefault());
$("reset").addEventListener("click", () => {
  search.value = question.value = "";
  state.value = "all";
  update();
  search.focus();
});
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
    if (holder) showPicture(holder, shown[place]);
  }
});
begin();
