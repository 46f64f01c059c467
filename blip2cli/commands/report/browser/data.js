"use strict";
/* The data of the page, read once: columns, rows, and cards. A card is an image with all rows about it.

   Everything here comes from outside. It is put into the document as text, never as markup, by `textContent` only. */

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const fields = data.fields;
const question = data.question === null ? null : fields[data.question];
const resultsFile = data.file === null ? null : fields[data.file];
const answers = data.answers.map((at) => fields[at]);
const scoresOf = data.scores.map((scores) => scores.map((at) => fields[at])); /* of each answer */
const numbers = data.numbers.map((at) => fields[at]);
const rowCount = data.rows;
const cardCount = data.names.length;
const noun = data.results ? "result" : "image"; /* what a card is */

/* What rows are chosen by: the question, or the text that each image was compared with. */
const asked = question ?? (answers.length === 1 && answers[0].name === "text" ? answers[0] : null);

/* ---- cells ---- */

/* Columns of few different texts are kept as a list of these, and a number for each row. */
function cell(field, row) {
  if (!field.choices) return field.values[row];
  const code = field.codes[row];
  return code < 0 ? null : field.choices[code];
}

/* The texts of a cell: several where a column holds lists. */
function textsOf(field, row) {
  const value = cell(field, row);
  if (value === null) return [];
  return field.kind === "texts" ? value : [String(value)];
}

function textOf(field, row, mark = "") {
  const texts = textsOf(field, row);
  return texts.length > 1 ? texts.map((text) => mark + text).join("\n") : (texts[0] ?? "");
}

/* The number of each row's text among the labels, -1 for none; null if there are more labels than `most`. */
function codesOf(field, most = Infinity) {
  if (field.choices) {
    return field.choices.length > most ? null : { codes: field.codes, labels: field.choices };
  }
  const numberOf = new Map(), codes = new Int32Array(rowCount).fill(-1);
  for (let row = 0; row < rowCount; row += 1) {
    const value = field.values[row];
    if (value === null) continue;
    if (!numberOf.has(value)) numberOf.set(value, numberOf.size);
    if (numberOf.size > most) return null;
    codes[row] = numberOf.get(value);
  }
  return { codes, labels: [...numberOf.keys()] };
}

/* ---- cards ---- */

const cardOf = data.cards ?? Array.from({ length: rowCount }, (_, row) => row);
const grouped = groupRows();

function groupRows() {
  const starts = new Uint32Array(cardCount + 1), rows = new Uint32Array(rowCount);
  for (const card of cardOf) starts[card + 1] += 1;
  for (let card = 0; card < cardCount; card += 1) starts[card + 1] += starts[card];
  const next = starts.slice();
  cardOf.forEach((card, row) => {
    rows[next[card]] = row;
    next[card] += 1;
  });
  return { starts, rows };
}

/* The numbers of a card's rows, in their order. */
function rowsOf(card) {
  return grouped.rows.subarray(grouped.starts[card], grouped.starts[card + 1]);
}

/* ---- errors ---- */

function errorKind(error) {
  const kind = error.split(":")[0];
  return kind.length <= 30 ? kind : "other";
}

/* ---- what is searched ---- */

/* Case and accents do not matter. */
function folded(text) {
  if (/^[\x00-\x7f]*$/.test(text)) return text.toLowerCase();
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

const haystacks = new Array(cardCount);

/* All texts of a card. */
function haystackOf(card) {
  if (haystacks[card] === undefined) {
    const texts = Array.from(rowsOf(card), textsOfRow).flat();
    haystacks[card] = folded([data.names[card], ...texts].join("\n"));
  }
  return haystacks[card];
}

const searched = fields.filter((field) => field.kind !== "number");

function textsOfRow(row) {
  const texts = searched.map((field) => textOf(field, row));
  if (data.errors[row]) texts.push(data.errors[row]);
  return texts;
}

/* Prepares the search while the browser has nothing else to do, so that the first letter is answered at once. */
function prepareSearch(card = 0) {
  const until = performance.now() + 8;
  while (card < cardCount && performance.now() < until) {
    haystackOf(card);
    card += 1;
  }
  if (card < cardCount) setTimeout(prepareSearch, 0, card);
}
