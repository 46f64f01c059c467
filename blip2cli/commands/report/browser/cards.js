/* The cards. Only those near the visible part of the page are in the document. */

const MOST_LINES = 4; /* on a card */
const MOST_SCORES = 3; /* on a card with one line */
const MOST_PRINTED = 1000;
const MARGIN = 800; /* pixels beyond the window that are filled too */

const feed = byId("feed"), cards = byId("cards"), template = byId("card").content.firstElementChild;
const made = new Map(); /* place among the shown cards → its element */
let columns = 1, pitch = 1, current = 0, printing = false;

/* ---- the lines of a card ---- */

/* Every row is a line; or where each question has a column of its own, every such column. */
function linesOf(card) {
  const rows = visibleRows(card);
  const error = data.errors[rows[0]];
  const same = rows.length > 1 && error !== undefined && rows.every((row) => data.errors[row] === error);
  if (same) return [{ ...lineOf(rows[0], -1), label: "" }];
  return rows.flatMap(linesOfRow);
}

function linesOfRow(row) {
  const failed = data.errors[row] !== undefined;
  if (answers.length < 2) return [lineOf(row, failed ? -1 : 0)];
  const present = answers.map((_, at) => at).filter((at) => cell(answers[at], row) !== null);
  return [...present, ...(failed ? [-1] : [])].map((at) => lineOf(row, at));
}

/* A line: what was asked, the answer and the numbers that belong to it; -1 stands for the error. */
function lineOf(row, at) {
  const field = answers[at];
  const line = { row, label: labelOf(row, field), scores: scoresIn(row, at), text: "", look: "nothing" };
  if (at < 0) return { ...line, text: data.errors[row], look: "bad" };
  if (field === undefined) return line;
  const isNumber = field.kind === "number" && cell(field, row) !== null;
  const text = isNumber ? shownCell(field, row) : textOf(field, row, "– ");
  return text ? { ...line, text, look: "" } : { ...line, text: "(empty)" };
}

function scoresIn(row, at) {
  const scores = answers.length < 2 ? scoresOf[0] : (scoresOf[at] ?? []);
  return scores.filter((score) => score.values[row] !== null);
}

/* The question, or the name of an answer's column; and the file, where there are several. */
function labelOf(row, field) {
  const name = field && data.named ? capitalised(field.name) : "";
  const label = question === null ? name : textOf(question, row);
  return [label, resultsFile === null ? "" : textOf(resultsFile, row)].filter(Boolean).join(" · ");
}

const sortedFirst = (scores) => {
  const first = scores.find((field) => order.by === `number:${field.name}`);
  return first ? [first, ...scores.filter((field) => field !== first)] : scores;
};

/* ---- one card ---- */

function makeCard(place) {
  const card = shown[place], holder = template.cloneNode(true);
  const part = (name) => holder.querySelector(`.${name}`);
  holder.id = `card-${card}`;
  holder.dataset.place = place;
  holder.setAttribute("aria-posinset", place + 1);
  holder.setAttribute("aria-setsize", shown.length);
  showThumbnail(part("picture"), card);
  const lines = linesOf(card), few = lines.slice(0, lineCount);
  part("lines").replaceChildren(...few.map(lineCount === 1 ? makeLone : makeLine));
  const more = lines.length - few.length;
  part("more").textContent = more > 0 ? `and ${counted(more)} more` : "";
  showText(part("name").firstElementChild, data.names[card]);
  part("name").title = data.names[card];
  const told = [...holder.querySelectorAll(".question, .answer")];
  told.forEach((line, at) => { line.id = `${holder.id}-line-${at}`; });
  part("name").id = `${holder.id}-name`;
  holder.setAttribute("aria-labelledby", told.map((line) => line.id).join(" "));
  holder.setAttribute("aria-describedby", part("name").id);
  part("pick").setAttribute("aria-label", `Select ${data.names[card]}`);
  markSelected(holder, selected.has(card));
  return holder;
}

function makeLine({ row, label, text, look, scores }) {
  const line = make("div", "line");
  if (label) line.append(marked("question", label));
  const said = make("div", "said");
  said.append(marked(`answer ${look}`, text));
  if (!text && look !== "bad") said.firstChild.textContent = "";
  for (const field of sortedFirst(scores).slice(0, 1)) {
    const score = make("span", "score", shownCell(field, row));
    score.title = `${field.name} ${field.values[row]}`;
    score.setAttribute("aria-label", `${field.name} ${score.textContent}`);
    said.append(score);
  }
  line.append(said);
  return line;
}

/* The only line of a card, which has more room. */
function makeLone({ row, label, text, look, scores }) {
  const line = make("div", "line");
  if (label) line.append(marked("question", label));
  if (text) line.append(marked(`answer ${look}`, text));
  const list = make("div", "scores");
  for (const field of sortedFirst(scores).slice(0, MOST_SCORES)) {
    const item = make("span", "", field.name);
    item.append(make("b", "", shownCell(field, row)));
    list.append(item);
  }
  if (list.children.length) line.append(list);
  return line;
}

function marked(look, text) {
  const holder = make("p", look.trim());
  holder.dir = "auto";
  showText(holder, text);
  if (text.length > 24) holder.title = text;
  return holder;
}

/* A text, with what is searched for marked. */
function showText(holder, text) {
  const words = search.value.split(/\s+/).filter(Boolean);
  if (!words.length) {
    holder.textContent = text;
    return;
  }
  const patterns = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const parts = text.split(new RegExp(`(${patterns.join("|")})`, "giu")); /* every second one is a word */
  holder.replaceChildren(...parts.map((part, at) => (at % 2 === 0 ? part : make("mark", "", part))));
}

function markSelected(holder, on) {
  holder.classList.toggle("selected", on);
  holder.querySelector(".pick").checked = on;
}

/* ---- which cards are in the document ---- */

function measure() {
  const style = getComputedStyle(cards);
  columns = style.gridTemplateColumns.split(" ").length;
  pitch = parseFloat(style.gridAutoRows) + parseFloat(style.rowGap);
  feed.style.height = `${Math.max(0, Math.ceil(shown.length / columns) * pitch)}px`;
}

/* The place of the first card in the document, and the place after the last. */
function placesNear() {
  if (printing) return [0, Math.min(shown.length, MOST_PRINTED)];
  const top = feed.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((-top - MARGIN) / pitch)) * columns;
  const end = Math.ceil((innerHeight - top + MARGIN) / pitch) * columns;
  return [Math.min(first, shown.length), Math.min(Math.max(end, 0), shown.length)];
}

function render() {
  const [first, end] = placesNear();
  const hadFocus = cards.contains(document.activeElement);
  for (const [place, card] of made) {
    if (place >= first && place < end) continue;
    card.remove();
    made.delete(place);
  }
  if (hadFocus && !cards.contains(document.activeElement)) feed.focus({ preventScroll: true });
  let after = null;
  for (let place = end - 1; place >= first; place -= 1) {
    if (!made.has(place)) {
      const card = makeCard(place);
      made.set(place, card);
      cards.insertBefore(card, after);
    }
    after = made.get(place);
  }
  cards.style.transform = `translateY(${(first / columns) * pitch}px)`;
  markCurrent();
}

/* Tab leads to one card, from which the arrow keys lead to the others. */
function markCurrent() {
  const inReach = made.has(current) ? current : Math.min(...made.keys());
  for (const [place, card] of made) card.tabIndex = place === inReach ? 0 : -1;
}

let frame = 0;
function renderSoon() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    render();
  });
}

/* Pixels of the window that the header covers where it stays in it. */
const header = document.querySelector("header");
const covered = () => (getComputedStyle(header).position === "sticky" ? header.offsetHeight : 0);

/* ---- moving between cards ---- */

function go(place) {
  if (!shown.length) return;
  current = Math.max(0, Math.min(shown.length - 1, place));
  const top = Math.floor(current / columns) * pitch + feed.getBoundingClientRect().top;
  const above = covered() + 8;
  if (top < above) scrollBy(0, top - above);
  else if (top + pitch > innerHeight) scrollBy(0, Math.min(top + pitch - innerHeight, top - above));
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

const isShortcut = (event) => event.ctrlKey || event.metaKey || event.altKey;

feed.addEventListener("keydown", (event) => {
  if (isShortcut(event)) return;
  const onBox = event.target.classList.contains("pick");
  if (MOVES[event.key]) {
    event.preventDefault();
    go(MOVES[event.key]());
  } else if (event.key === "x" && made.has(current)) {
    toggleSelected(current);
  } else if ((event.key === "Enter" || (event.key === " " && !onBox)) && made.has(current)) {
    event.preventDefault();
    openLightbox(current);
  }
});
feed.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card) current = Number(card.dataset.place);
});
feed.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  const place = Number(card.dataset.place);
  const onBox = event.target.closest(".box");
  if (event.shiftKey && (onBox || selected.size)) selectTo(place);
  else if (event.ctrlKey || event.metaKey) toggleSelected(place);
  else if (!onBox && String(getSelection()) === "") openLightbox(place);
});
feed.addEventListener("change", (event) => {
  const card = event.target.closest(".card");
  if (event.target.classList.contains("pick")) {
    select(shown[card.dataset.place], event.target.checked);
    selectionStart = Number(card.dataset.place);
    showSelection();
  }
});
