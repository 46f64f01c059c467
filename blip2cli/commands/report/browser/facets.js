/* Facets: the values by which cards are counted and filtered, such as the answers to a question.

   A facet has labels, and for each row the number of its label, or -1. Those that are chosen filter the cards. */

const MOST_QUESTIONS = 20; /* with a facet each */
const MOST_FACETS = 40;
const MOST_LABELS = 2000;
const FEW_VALUES = 8; /* that are counted however few images there are */
const MOST_NUMBERS = 20; /* different whole numbers that are counted */

const questions = asked === null ? null : codesOf(asked);
const facets = makeFacets();

function makeFacets() {
  return [...errorFacets(), ...questionFacets(), ...textFacets(), ...numberFacets()].slice(0, MOST_FACETS);
}

/* The labels with the most rows come first. `everyRow` is whether rows count that a chosen question hides. */
function makeFacet(title, group, { codes, labels }, everyRow = false) {
  const totals = new Array(labels.length).fill(0);
  for (const code of codes) if (code >= 0) totals[code] += 1;
  const order = totals.map((_, code) => code).filter((code) => totals[code] > 0);
  order.sort((one, other) => totals[other] - totals[one] || one - other);
  const ranks = new Int32Array(labels.length).fill(-1);
  order.forEach((code, rank) => { ranks[code] = rank; });
  return {
    title,
    group,
    everyRow,
    codes: Int32Array.from(codes, (code) => (code < 0 ? -1 : ranks[code])),
    labels: order.map((code) => String(labels[code])),
    counts: new Uint32Array(order.length),
    chosen: new Set(),
  };
}

function errorFacets() {
  if (!Object.keys(data.errors).length) return [];
  const labels = ["no error"], numberOf = new Map();
  const codes = Int32Array.from({ length: rowCount }, (_, row) => {
    const error = data.errors[row];
    if (error === undefined) return rowsOf(cardOf[row]).some((other) => data.errors[other]) ? -1 : 0;
    const kind = errorKind(error);
    if (!numberOf.has(kind)) numberOf.set(kind, labels.push(kind) - 1);
    return numberOf.get(kind);
  });
  return [makeFacet("Errors", "errors", { codes, labels }, true)];
}

/* One for each question, with its answers; or one for all answers, where most rows have questions of their own. */
function questionFacets() {
  if (question === null || answers.length !== 1 || answers[0].kind !== "text") return [];
  const answered = codesOf(answers[0]);
  const count = questions.labels.length;
  const many = count > MOST_QUESTIONS || (count > FEW_VALUES && 2 * count > rowCount);
  if (many) return repeated(answers[0], "answers");
  return questions.labels.map((text, at) => {
    const codes = Int32Array.from(answered.codes, (code, row) => (questions.codes[row] === at ? code : -1));
    return makeFacet(text, "answers", { codes, labels: answered.labels }, true);
  });
}

function textFacets() {
  const texts = fields.filter((field) => field.kind === "text" && field !== asked);
  const others = question === null ? texts : texts.filter((field) => !answers.includes(field));
  return others.flatMap((field) => repeated(field, groupOf(field)));
}

function groupOf(field) {
  return answers.includes(field) ? "answers" : "others";
}

/* A facet of a column, if its values are shared by images. */
function repeated(field, group, most = Math.min(MOST_LABELS, Math.max(FEW_VALUES, cardCount / 2))) {
  const coded = codesOf(field, most);
  if (coded === null || coded.labels.length < 2 || coded.labels.length >= cardCount) return [];
  return [makeFacet(capitalised(field.name), group, coded)];
}

function numberFacets() {
  const whole = numbers.filter((field) => decimalsOf(field) === 0);
  return whole.flatMap((field) => repeated(field, groupOf(field), MOST_NUMBERS));
}

/* ---- counting ---- */

/* Which cards have a row with one of the chosen labels. */
function cardsWithChosen(facet) {
  const wanted = new Uint8Array(facet.labels.length), passes = new Uint8Array(cardCount);
  for (const label of facet.chosen) wanted[label] = 1;
  for (let row = 0; row < rowCount; row += 1) {
    const code = facet.codes[row];
    if (code >= 0 && wanted[code] && (facet.everyRow || isVisible(row))) passes[cardOf[row]] = 1;
  }
  return passes;
}

/* Counts the cards with each label, among those that pass all filters but the facet's own. */
function countLabels(facet, { misses, missed }) {
  const { codes, counts } = facet, { starts, rows } = grouped;
  const countedFor = new Int32Array(counts.length).fill(-1);
  counts.fill(0);
  for (let card = 0; card < cardCount; card += 1) {
    if (misses[card] > 1 || (misses[card] === 1 && missed[card] !== facet)) continue;
    for (let at = starts[card]; at < starts[card + 1]; at += 1) {
      const code = codes[rows[at]];
      if (code < 0 || countedFor[code] === card || !(facet.everyRow || isVisible(rows[at]))) continue;
      countedFor[code] = card;
      counts[code] += 1;
    }
  }
}
