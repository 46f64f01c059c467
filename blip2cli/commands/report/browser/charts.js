/* Histograms of numbers, of the rows that are shown in front of all rows, with the bounds that filter them. */

const BARS = 24;
const MOST_WHOLE = 40; /* different whole numbers that have a bar each */
const MOST_CHARTS = 8;
const charts = [];

function addCharts() {
  if (answers.length === 1 && answers[0].kind !== "number") {
    addChart(`${answerName()} length in words`, lengthsOf, 0, null);
  }
  for (const field of numbers.slice(0, MOST_CHARTS)) {
    const valuesOf = (row) => (field.values[row] === null ? [] : [field.values[row]]);
    addChart(capitalised(field.name), valuesOf, decimalsOf(field), field);
  }
  byId("charts-panel").hidden = !charts.length;
}

const lengthsOf = (row) => (data.errors[row] ? [] : textsOf(answers[0], row).map(wordsIn));

/* `valuesOf` gives the numbers of a row, `field` is the column that they come from, if they do. */
function addChart(title, valuesOf, places, field) {
  const held = valuesByRow(valuesOf), sorted = held.values.slice().sort();
  if (!sorted.length || sorted[0] === sorted.at(-1)) return;
  const figure = make("figure"), caption = make("figcaption", "", title), summary = make("span");
  const svg = svgElement("svg", { class: "chart", role: "img", preserveAspectRatio: "none" });
  caption.append(summary);
  figure.append(caption, svg, field ? boundsOf(field, sorted, places) : endsOf(sorted));
  byId("charts").append(figure);
  const bins = binsOf(sorted);
  charts.push({ title, places, summary, svg, bins, ...held, all: countsIn(sorted, bins) });
}

/* All numbers in the order of their rows, and where those of each row begin. */
function valuesByRow(valuesOf) {
  const values = [], begins = new Uint32Array(rowCount + 1);
  for (let row = 0; row < rowCount; row += 1) {
    for (const value of valuesOf(row)) values.push(value);
    begins[row + 1] = values.length;
  }
  return { values: Float64Array.from(values), begins };
}

function endsOf(values) {
  const ends = make("div", "ends");
  ends.append(make("span", "", String(values[0])), make("span", "", String(values.at(-1))));
  return ends;
}

/* ---- bounds ---- */

const boundInputs = new Map(); /* column → its two inputs */

function boundsOf(field, values, places) {
  const bounds = make("div", "bounds");
  const inputs = [["at least", values[0]], ["at most", values.at(-1)]].map(([words, value]) => {
    const input = make("input");
    input.type = "number";
    input.step = "any";
    input.placeholder = shownNumber(value, places).replace("−", "-");
    input.setAttribute("aria-label", `${capitalised(field.name)} ${words}`);
    input.addEventListener("input", () => setRange(field));
    bounds.append(input);
    return input;
  });
  boundInputs.set(field, inputs);
  return bounds;
}

/* The number in an input, or if there is none the other one. */
function numberIn(input, otherwise) {
  return Number.isNaN(input.valueAsNumber) ? otherwise : input.valueAsNumber;
}

function setRange(field) {
  const [least, most] = boundInputs.get(field);
  const range = [numberIn(least, -Infinity), numberIn(most, Infinity)];
  if (range.some(Number.isFinite)) filters.ranges.set(field, range);
  else filters.ranges.delete(field);
  update();
}

function clearRange(field) {
  filters.ranges.delete(field);
  for (const input of boundInputs.get(field)) input.value = "";
}

function rangeText(field, [lowest, highest]) {
  if (highest === Infinity) return `at least ${lowest}`;
  return lowest === -Infinity ? `at most ${highest}` : `${lowest} to ${highest}`;
}

/* ---- bars ---- */

/* Whole numbers have a bar each as long as there are few. The values are sorted. */
function binsOf(values) {
  const low = values[0], high = values.at(-1);
  const whole = high - low < MOST_WHOLE && values.every(Number.isInteger);
  if (whole) return { low, width: 1, count: high - low + 1, whole };
  return { low, width: (high - low) / BARS, count: BARS, whole };
}

function countsIn(values, { low, width, count }) {
  const counts = new Array(count).fill(0);
  for (const value of values) counts[Math.min(count - 1, Math.floor((value - low) / width))] += 1;
  return counts;
}

/* The numbers of the rows that are shown, sorted. */
function shownValues({ values, begins }) {
  const { starts, rows } = grouped, found = new Float64Array(values.length);
  let count = 0;
  for (const card of shown) {
    for (let at = starts[card]; at < starts[card + 1]; at += 1) {
      const row = rows[at];
      if (!isVisible(row)) continue;
      for (let one = begins[row]; one < begins[row + 1]; one += 1) found[count++] = values[one];
    }
  }
  return found.subarray(0, count).sort();
}

function drawCharts() {
  if (!byId("charts-panel").open) return;
  for (const chart of charts) {
    const values = shownValues(chart);
    const words = summaryOf(values, chart.places);
    chart.summary.textContent = words;
    chart.svg.setAttribute("aria-label", `Histogram of ${chart.title}, ${plural(values.length, "value")}: ${words}`);
    drawBars(chart, countsIn(values, chart.bins));
  }
}

/* Of sorted values. */
function summaryOf(values, places) {
  if (!values.length) return "no value";
  const median = values[Math.floor((values.length - 1) / 2)];
  const [low, middle, high] = [values[0], median, values.at(-1)].map((value) => shownNumber(value, places));
  return `${low} to ${high}, median ${middle}`;
}

function drawBars(chart, now) {
  const count = chart.bins.count, most = Math.max(...chart.all);
  chart.svg.setAttribute("viewBox", `0 0 ${count} 100`);
  const bars = [...barsOf(chart, "all", chart.all, most), ...barsOf(chart, "now", now, most)];
  chart.svg.replaceChildren(...bars, svgElement("line", { x1: 0, x2: count, y1: 100, y2: 100 }));
}

function barsOf(chart, look, counts, most) {
  return counts.map((number, at) => {
    const height = number ? Math.max(2, (100 * number) / most) : 0;
    const bar = svgElement("rect", { class: look, x: at + 0.06, width: 0.88, y: 100 - height, height });
    const title = svgElement("title", {});
    title.textContent = `${binName(chart, at)}: ${counted(number)}`;
    bar.append(title);
    return bar;
  });
}

function binName({ bins: { low, width, whole }, places }, at) {
  if (whole) return shownNumber(low + at, 0);
  return `${shownNumber(low + at * width, places)} to ${shownNumber(low + (at + 1) * width, places)}`;
}

function svgElement(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

byId("charts-panel").addEventListener("toggle", drawCharts);
