/* Numbers and texts in the words of the page. */

const grouping = new Intl.NumberFormat("en");
const counted = (count) => grouping.format(count);
const plural = (count, noun) => `${counted(count)} ${noun}${count === 1 ? "" : "s"}`;
const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1).replaceAll("_", " ");
const wordsIn = (text) => text.split(/\s+/).filter(Boolean).length;

const decimals = new Map();

const MOST_DECIMALS = 4;
const TINY = -1; /* instead of decimals: all numbers are so small that they are written with powers of ten */

/* As many decimals as show three digits of a column's largest number; the same for all its numbers. */
function decimalsOf(field) {
  if (!decimals.has(field)) {
    const present = field.values.filter((value) => value !== null);
    const largest = present.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const whole = present.every(Number.isInteger);
    const needed = whole || largest === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(largest)));
    decimals.set(field, needed > MOST_DECIMALS + 2 ? TINY : Math.min(MOST_DECIMALS, needed));
  }
  return decimals.get(field);
}

function shownNumber(number, places) {
  if (number === 0 || (Number.isInteger(number) && places === 0)) return String(number).replace("-", "−");
  const powers = places === TINY || Math.abs(number) >= 1e7;
  const text = powers ? number.toExponential(1) : number.toFixed(places);
  return Number(text) === 0 ? "0" : text.replaceAll("-", "−");
}

/* What the only column of answers is called. */
const answerName = () => capitalised(answers[0].name === "captions" ? "caption" : answers[0].name);

const shownCell = (field, row) => shownNumber(field.values[row], decimalsOf(field));

function make(tag, look = "", text = null) {
  const made = document.createElement(tag);
  if (look) made.className = look;
  if (text !== null) made.textContent = text;
  return made;
}

function makeButton(text, look = "") {
  const button = make("button", look, text);
  button.type = "button";
  return button;
}
