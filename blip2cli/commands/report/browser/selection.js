/* Selecting cards, and writing the rows of those that are selected, or shown, to a file. */

let selectionStart = -1; /* place of the card from which a range is selected */

function select(card, on) {
  if (on) selected.add(card);
  else selected.delete(card);
}

function toggleSelected(place) {
  const card = shown[place];
  select(card, !selected.has(card));
  selectionStart = place;
  showSelection();
}

/* With Shift, all cards from the one that was selected last. */
function selectTo(place) {
  const from = selectionStart < 0 ? place : selectionStart;
  for (let at = Math.min(from, place); at <= Math.max(from, place); at += 1) select(shown[at], true);
  selectionStart = place;
  showSelection();
}

function showSelection() {
  for (const [place, card] of made) markSelected(card, selected.has(shown[place]));
  document.body.classList.toggle("selecting", selected.size > 0);
  const among = selected.size ? `${plural(selected.size, noun)} selected` : "";
  byId("selected-count").textContent = among;
  byId("clear-selection").hidden = byId("only-selected").hidden = selected.size === 0;
  byId("only-selected").setAttribute("aria-pressed", filters.onlySelected);
  byId("pick").checked = selected.has(shown[opened]);
}

byId("select-all").addEventListener("click", () => {
  for (const card of shown) selected.add(card);
  showSelection();
});
byId("clear-selection").addEventListener("click", () => {
  selected.clear();
  selectionStart = -1;
  if (filters.onlySelected) {
    filters.onlySelected = false;
    update();
  }
  showSelection();
  byId("select-all").focus();
});
byId("only-selected").addEventListener("click", () => {
  filters.onlySelected = !filters.onlySelected;
  update();
});

/* ---- export ---- */

/* Those that are selected in their order on the page; else those that are shown. */
function exportedCards() {
  if (!selected.size) return shown;
  const visible = shown.filter((card) => selected.has(card));
  const inView = new Set(visible);
  const hidden = [...selected].filter((card) => !inView.has(card)).sort((one, other) => one - other);
  return [...visible, ...hidden];
}

const exportedRows = () => exportedCards().flatMap(visibleRows);

byId("export").addEventListener("toggle", () => {
  if (byId("export").open) showExport();
});

function showExport() {
  const cards = exportedCards();
  const which = selected.size ? "selected" : "shown";
  const rows = exportedRows().length;
  const lines = rows === cards.length ? "" : `, ${plural(rows, "row")}`;
  byId("export-what").textContent = `${plural(cards.length, noun)} ${which}${lines}`;
  for (const button of document.querySelectorAll("#export button")) button.disabled = cards.length === 0;
}

/* A row as JSON has it, with the columns of the results. */
function recordOf(row) {
  const record = [["image", data.names[cardOf[row]]], ...fields.map((field) => [field.name, cell(field, row)])];
  return [...record, ["error", data.errors[row] ?? null]];
}

function jsonLine(row) {
  const members = recordOf(row).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{${members.join(", ")}}\n`;
}

function csvCell(value) {
  if (value === null) return "";
  const text = Array.isArray(value) ? JSON.stringify(value) : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csvLine = (cells) => `${cells.map(csvCell).join(",")}\r\n`;

const EXPORTS = {
  csv: () => [csvLine(["image", ...fields.map((field) => field.name), "error"]),
    ...exportedRows().map((row) => csvLine(recordOf(row).map(([, value]) => value)))],
  jsonl: () => exportedRows().map(jsonLine),
  txt: () => Array.from(new Set(exportedCards().map((card) => data.names[card])), (name) => `${name}\n`),
};

/* The page's title in letters and digits. */
function fileStem() {
  const title = document.title.replace(/ – blip2 report$/, "");
  const words = title.match(/[\p{L}\p{N}]+/gu) ?? ["results"];
  return words.join("-").slice(0, 60);
}

function save(kind) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(EXPORTS[kind](), { type: "text/plain" }));
  link.download = `${fileStem()}-${selected.size ? "selected" : "shown"}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  byId("export").open = false;
}

for (const button of document.querySelectorAll("#export button")) {
  button.addEventListener("click", () => save(button.value));
}
document.addEventListener("click", (event) => {
  if (!byId("export").contains(event.target)) byId("export").open = false;
});
byId("export").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.stopPropagation();
  byId("export").open = false;
  byId("export").querySelector("summary").focus();
});
