/* One image in full: its picture, all its answers, and every column. */

const lightbox = byId("lightbox");
const MOST_ROWS = 200; /* of one image */
let opened = 0; /* its place; the browser gives the focus back to the card it was opened from, which moves `current` */

function openLightbox(place) {
  opened = Math.max(0, Math.min(shown.length - 1, place));
  const card = shown[opened];
  showFullPicture(byId("full-picture"), card, (words) => {
    byId("picture-note").textContent = words;
    drawMap();
  });
  byId("lightbox-name").textContent = data.names[card];
  byId("lightbox-place").textContent = `${counted(opened + 1)} of ${plural(shown.length, noun)}`;
  byId("previous").disabled = opened === 0;
  byId("next").disabled = opened === shown.length - 1;
  byId("pick").checked = selected.has(card);
  byId("lightbox-rows").replaceChildren(...contentOf(card));
  showMaps(card);
  const opening = !lightbox.open;
  if (opening) lightbox.showModal();
  byId("lightbox-text").scrollTop = 0;
  const lost = document.activeElement.disabled || !lightbox.contains(document.activeElement);
  if (opening || lost) byId("lightbox-name").focus();
}

/* The rows of a card, and after them what is the same in all of them. */
function contentOf(card) {
  const rows = visibleRows(card), few = rows.slice(0, MOST_ROWS);
  const same = fields.filter((field) => rows.length > 1 && isSame(field, rows));
  const own = fields.filter((field) => !same.includes(field));
  const content = few.map((row) => rowContent(row, own));
  const more = rows.length - few.length;
  if (more > 0) content.push(make("p", "rest", `and ${plural(more, "row")} more`));
  const shared = [...same.map((field) => entryOf(field, rows[0])), faultEntry(card, rows)].filter(Boolean);
  return shared.length ? [...content, entries(shared)] : content;
}

function isSame(field, rows) {
  const first = textOf(field, rows[0]);
  return field !== question && !answers.includes(field) && rows.every((row) => textOf(field, row) === first);
}

/* The answer under its question first, then the other columns. */
function rowContent(row, own) {
  const error = data.errors[row];
  const present = own.filter((field) => cell(field, row) !== null);
  const rest = present.filter((field) => field !== question && !answers.includes(field));
  return entries([
    error !== undefined && entry("error", error, "bad"),
    ...answerEntries(row, present),
    ...rest.map((field) => entryOf(field, row)),
  ]);
}

function answerEntries(row, present) {
  const answered = answers.filter((field) => present.includes(field));
  const items = answered.map((field) => entryOf(field, row, "lead"));
  if (question === null || !present.includes(question)) return items;
  if (items.length !== 1) return [entryOf(question, row), ...items];
  items[0].firstChild.textContent = textOf(question, row);
  items[0].firstChild.dir = "auto";
  return items;
}

function faultEntry(card, rows) {
  const missing = data.side && data.places[card] < 0 && data.faults[card];
  return missing && !rows.some((row) => data.errors[row] === data.faults[card]) && entry("picture", data.faults[card], "");
}

function entryOf(field, row, look = "") {
  if (field.kind !== "number") return entry(field.name, textOf(field, row, "– ") || "(empty)", look);
  const item = entry(field.name, shownCell(field, row), `${look} number`);
  item.lastChild.title = String(field.values[row]);
  return item;
}

function entry(name, text, look) {
  const item = make("div", look.trim()), value = make("dd", "", text);
  value.dir = "auto";
  item.append(make("dt", "", name), value);
  return item;
}

function entries(items) {
  const list = make("dl");
  list.append(...items.filter(Boolean));
  return list;
}

/* ---- walking ---- */

const WALK = {
  ArrowRight: () => opened + 1,
  ArrowLeft: () => opened - 1,
  Home: () => 0,
  End: () => shown.length - 1,
};

function walk(place) {
  if (place >= 0 && place < shown.length && place !== opened) openLightbox(place);
}

byId("previous").addEventListener("click", () => walk(opened - 1));
byId("next").addEventListener("click", () => walk(opened + 1));
byId("close").addEventListener("click", () => lightbox.close());
byId("pick").addEventListener("change", () => toggleSelected(opened));
lightbox.addEventListener("click", (event) => {
  if (event.target === lightbox) lightbox.close();
});
lightbox.addEventListener("close", () => {
  fullPictureOf = -1;
  go(opened);
});
lightbox.addEventListener("keydown", (event) => {
  if (isShortcut(event) || event.target === mapStrength) return;
  if (WALK[event.key]) {
    event.preventDefault();
    walk(WALK[event.key]());
  } else if (event.key === "x") {
    toggleSelected(opened);
  }
});
