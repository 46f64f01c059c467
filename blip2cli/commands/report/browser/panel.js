/* The panel of filters: facets with their counts, the chosen question, and what is chosen in a line above the cards. */

const panel = byId("panel"), questionSelect = byId("question");
const FEW_LABELS = 7; /* shown before "All …" is pressed */
const MANY_LABELS = 300;
const OPEN_FACETS = 6;
const MOST_QUESTIONS_LISTED = 200;

/* ---- facets ---- */

const facetViews = [];

function addFacets() {
  facets.forEach((facet, at) => {
    const open = facet.group !== "others" && at < OPEN_FACETS;
    const view = makeFacetView(facet, open);
    facetViews.push(view);
    byId("facets").append(view.holder);
  });
}

function makeFacetView(facet, open) {
  const holder = make("details", "facet"), summary = make("summary");
  const title = make("h3", "", facet.title), list = make("ul");
  title.dir = "auto";
  summary.append(title);
  holder.append(summary, list);
  holder.open = open;
  const view = { facet, holder, list, items: [], all: false };
  addLabels(view, FEW_LABELS);
  if (facet.labels.length > view.items.length) addMoreButton(view);
  return view;
}

/* A facet's labels up to a number of them, as buttons; one more is shown where that saves a button. */
function addLabels(view, most) {
  const { facet, items, list } = view;
  const count = facet.labels.length <= most + 1 ? facet.labels.length : most;
  for (let label = items.length; label < count; label += 1) {
    const item = make("li"), button = makeButton("", "label");
    const text = make("span", "text", facet.labels[label] || "(empty)"), number = make("b");
    text.dir = "auto";
    button.title = facet.labels[label];
    button.append(text, number);
    button.addEventListener("click", () => toggleLabel(facet, label));
    item.append(button);
    list.append(item);
    items.push({ button, number, label });
  }
}

function addMoreButton(view) {
  const { facet, holder } = view;
  const more = makeButton(`All ${counted(facet.labels.length)}`, "more");
  more.setAttribute("aria-label", `All ${counted(facet.labels.length)} values of ${facet.title}`);
  more.addEventListener("click", () => {
    const first = view.items.length;
    addLabels(view, MANY_LABELS);
    const rest = facet.labels.length - view.items.length;
    if (rest > 0) more.before(make("p", "rest", `and ${plural(rest, "rarer value")}: use the search`));
    more.remove();
    showFacet(view);
    view.items[first].button.focus();
  });
  holder.append(more);
}

function toggleLabel(facet, label) {
  if (!facet.chosen.delete(label)) facet.chosen.add(label);
  update();
}

function showFacet({ facet, items }) {
  const largest = items.reduce((most, { label }) => Math.max(most, facet.counts[label]), 1);
  for (const { button, number, label } of items) {
    const count = facet.counts[label], chosen = facet.chosen.has(label);
    number.textContent = counted(count);
    button.setAttribute("aria-pressed", chosen);
    button.disabled = count === 0 && !chosen;
    button.style.setProperty("--share", `${(100 * count) / largest}%`);
  }
}

/* ---- the question ---- */

/* Which question's rows are shown, or which text's. */
function addQuestions() {
  if (questions === null || questions.labels.length < 2) return;
  const counts = new Array(questions.labels.length).fill(0);
  for (const code of questions.codes) if (code >= 0) counts[code] += 1;
  const ranked = counts.map((_, code) => code).sort((one, other) => counts[other] - counts[one] || one - other);
  for (const code of ranked.slice(0, MOST_QUESTIONS_LISTED)) {
    const text = questions.labels[code];
    const short = text.length > 80 ? `${text.slice(0, 79)}…` : text;
    questionSelect.append(new Option(`${short} (${counted(counts[code])})`, code));
  }
  if (ranked.length > MOST_QUESTIONS_LISTED) {
    const rest = new Option(`${plural(ranked.length - MOST_QUESTIONS_LISTED, "other")}: search for them`);
    rest.disabled = true;
    questionSelect.append(rest);
  }
  document.querySelector("label[for=question]").textContent = capitalised(asked.name);
  byId("question-field").hidden = false;
  questionSelect.addEventListener("input", () => {
    filters.question = questionSelect.value === "" ? -1 : Number(questionSelect.value);
    update();
  });
}

/* ---- what is chosen ---- */

/* A button for each filter in use, which removes it. */
function showChips() {
  const chips = [];
  if (filters.question >= 0) chips.push(chip(asked.name, questions.labels[filters.question], clearQuestion));
  for (const facet of facets) chips.push(...chipsOf(facet));
  for (const [field, range] of filters.ranges) {
    chips.push(chip(field.name, rangeText(field, range), () => clearRange(field)));
  }
  if (filters.onlySelected) chips.push(chip("Only", "selected", () => { filters.onlySelected = false; }));
  byId("chips").replaceChildren(...chips);
}

function chipsOf(facet) {
  return Array.from(facet.chosen, (label) => {
    const remove = () => facet.chosen.delete(label);
    return chip(facet.title, facet.labels[label] || "(empty)", remove);
  });
}

function chip(title, text, remove) {
  const button = makeButton("", "chip");
  const name = make("span", "of", title), value = make("bdi", "", text);
  button.append(name, value);
  button.setAttribute("aria-label", `Remove the filter ${title}: ${text}`);
  button.title = `${title}: ${text}`;
  button.addEventListener("click", () => {
    remove();
    update();
    (byId("chips").querySelector("button") ?? search).focus();
  });
  return button;
}

function clearQuestion() {
  filters.question = -1;
  questionSelect.value = "";
}

function clearFilters() {
  for (const facet of facets) facet.chosen.clear();
  for (const field of [...filters.ranges.keys()]) clearRange(field);
  clearQuestion();
  filters.onlySelected = false;
  filters.words = [];
  search.value = "";
}

/* ---- the panel on a narrow window: in front of the cards, opened by a button ---- */

const panelButton = byId("panel-button"), narrow = matchMedia("(max-width: 56rem)");

function showPanel(open) {
  document.body.classList.toggle("panel-closed", !open);
  panelButton.setAttribute("aria-expanded", open);
  const covers = open && narrow.matches;
  for (const behind of document.querySelectorAll("header, main, footer")) behind.inert = covers;
  if (covers) byId("panel-close").focus();
}

/* The controls for order and export stand in the header, or where that is too narrow in the panel. */
function placeControls() {
  const place = narrow.matches ? byId("panel-controls") : byId("header-controls");
  place.append(byId("controls"));
  showPanel(!narrow.matches && !byId("panel-content").hidden);
}

function closePanel() {
  showPanel(false);
  panelButton.focus();
}

panelButton.addEventListener("click", () => {
  showPanel(document.body.classList.contains("panel-closed"));
  measure();
  renderSoon();
});
byId("panel-close").addEventListener("click", closePanel);
byId("panel-done").addEventListener("click", closePanel);
panel.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && narrow.matches) closePanel();
});
narrow.addEventListener("change", () => {
  placeControls();
  measure();
  renderSoon();
});
