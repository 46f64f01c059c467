/* Which cards are shown, in which order. */

const filters = {
  words: [], /* folded; all must occur in a card */
  question: -1, /* its number among the questions; -1 for all */
  ranges: new Map(), /* column of numbers → [lowest, highest] */
  onlySelected: false,
};
const order = { by: "", descending: false };
const selected = new Set(); /* cards */

let shown = data.names.map((_, card) => card);

/* Whether a row is shown on its card: its question is the chosen one. */
function isVisible(row) {
  return filters.question < 0 || questions.codes[row] === filters.question;
}

/* The filters in use: the facet or column of each, and the cards that pass it. */
function filtersInUse() {
  const chosen = facets.filter((facet) => facet.chosen.size);
  const used = chosen.map((facet) => [facet, cardsWithChosen(facet)]);
  for (const [field, range] of filters.ranges) used.push([field, cardsInRange(field, range)]);
  if (filters.question >= 0) used.push([asked, cardsWhere((card) => rowsOf(card).some(isVisible))]);
  if (filters.onlySelected) used.push([selected, cardsWhere((card) => selected.has(card))]);
  if (filters.words.length) used.push([filters.words, cardsWhere(hasWords)]);
  return used;
}

function cardsWhere(holds) {
  const passes = new Uint8Array(cardCount);
  for (let card = 0; card < cardCount; card += 1) passes[card] = holds(card) ? 1 : 0;
  return passes;
}

function hasWords(card) {
  const haystack = haystackOf(card);
  return filters.words.every((word) => haystack.includes(word));
}

function cardsInRange(field, [lowest, highest]) {
  const passes = new Uint8Array(cardCount);
  for (let row = 0; row < rowCount; row += 1) {
    const value = field.values[row];
    if (value !== null && value >= lowest && value <= highest && isVisible(row)) passes[cardOf[row]] = 1;
  }
  return passes;
}

/* For each card how many filters it misses, and the last one that it misses. */
function missesOf(used) {
  const misses = new Uint8Array(cardCount), missed = new Array(used.length ? cardCount : 0);
  for (const [what, passes] of used) {
    for (let card = 0; card < cardCount; card += 1) {
      if (passes[card]) continue;
      misses[card] += 1;
      missed[card] = what;
    }
  }
  return { misses, missed };
}

/* Chooses the cards, and counts those of each facet. */
function chooseCards() {
  const missing = missesOf(filtersInUse());
  shown = [];
  for (let card = 0; card < cardCount; card += 1) if (missing.misses[card] === 0) shown.push(card);
  for (const facet of facets) countLabels(facet, missing);
  sortShown();
}

/* ---- order ---- */

const lengthOf = (row) => {
  const texts = data.errors[row] || !answers.length ? [] : textsOf(answers[0], row);
  return texts.length ? wordsIn(texts[0]) : null;
};
const orders = new Map([["length", lengthOf]]);
for (const field of numbers) orders.set(`number:${field.name}`, (row) => field.values[row]);

/* A card with several rows stands where its highest stands, or in ascending order its lowest. */
function sortShown() {
  const valueOf = orders.get(order.by);
  const turn = order.descending ? -1 : 1;
  if (!valueOf) {
    if (order.descending) shown.reverse();
    return;
  }
  const keys = new Float64Array(cardCount);
  for (const card of shown) keys[card] = keyOf(card, valueOf, turn);
  shown.sort((one, other) => compared(keys[one], keys[other]) * turn || one - other);
}

/* Cards without a value come last in both orders. */
function keyOf(card, valueOf, turn) {
  let key = turn * Infinity;
  for (const row of rowsOf(card)) {
    const value = isVisible(row) ? valueOf(row) : null;
    if (value !== null && (value - key) * turn < 0) key = value;
  }
  return key;
}

const compared = (one, other) => (one < other ? -1 : Number(one > other));

/* The rows of a card that are shown. Answers keep the order of their questions; others are sorted as cards are. */
function visibleRows(card) {
  const rows = Array.from(rowsOf(card)).filter(isVisible);
  const valueOf = orders.get(order.by);
  if (!valueOf || question !== null || rows.length < 2) return rows;
  const turn = order.descending ? -1 : 1;
  const keys = new Map(rows.map((row) => [row, valueOf(row) ?? turn * Infinity]));
  return rows.sort((one, other) => compared(keys.get(one), keys.get(other)) * turn || one - other);
}
