/* Maps of where the model looked, over the picture that is shown in full: what it did not look at is made dark.

   A map is [answer, word, columns, patches]: the name of one of several answers, or ""; a word, or "" for the whole
   text; and a byte for each patch, in base64. */

const MAP_SIDE = 640; /* pixels of the longer side of what is drawn */
const SHADE = [8, 10, 24];
const mapCanvas = byId("map"), mapChoice = byId("map-choice"), mapStrength = byId("map-strength");
let chosenMap = null;

/* The buttons for the maps of a card, and the first of its maps. */
function showMaps(card) {
  const rows = Array.from(visibleRows(card)).filter((row) => data.maps[row]);
  byId("map-controls").hidden = !rows.length;
  mapChoice.replaceChildren(...rows.slice(0, MOST_ROWS).map(makeMapLine));
  const first = mapChoice.querySelector("button");
  chosenMap = null;
  if (first) first.click();
  else drawMap();
}

/* The maps of a row: those of whole texts, each with its words behind it. */
function makeMapLine(row) {
  const line = make("div", "map-line");
  for (const map of data.maps[row]) line.append(makeMapButton(row, map));
  return line;
}

function makeMapButton(row, map) {
  const [answer, word] = map;
  const button = makeButton(word || wholeText(row, answer), word ? "word" : "whole");
  button.dir = "auto";
  button.setAttribute("aria-pressed", false);
  button.addEventListener("click", () => {
    for (const other of mapChoice.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
    chosenMap = map;
    drawMap();
  });
  return button;
}

/* What the map of a whole text is called: the text. */
function wholeText(row, answer) {
  const field = answers.find((one) => one.name === answer) ?? answers[0];
  const text = field ? textOf(field, row) : "";
  return answer ? `${capitalised(answer)}: ${text}` : text || "Whole text";
}

/* Draws the chosen map in the proportions of the picture, so that both are fitted in alike. */
function drawMap() {
  const image = byId("full-picture").querySelector("img");
  mapCanvas.hidden = chosenMap === null || image === null;
  if (mapCanvas.hidden) return;
  if (!image.naturalWidth) {
    mapCanvas.hidden = true;
    image.addEventListener("load", drawMap, { once: true });
    return;
  }
  const scale = MAP_SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  mapCanvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  mapCanvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  mapCanvas.style.opacity = Number(mapStrength.value) / 100;
  const context = mapCanvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(shadeOf(chosenMap), 0, 0, mapCanvas.width, mapCanvas.height);
}

/* A pixel for each patch, the darker the less the model looked at it. */
function shadeOf([, , columns, patches]) {
  const bytes = Uint8Array.from(atob(patches), (letter) => letter.charCodeAt(0));
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = bytes.length / columns;
  const pixels = new ImageData(small.width, small.height);
  bytes.forEach((height, at) => pixels.data.set([...SHADE, 255 - height], 4 * at));
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

mapStrength.addEventListener("input", () => {
  mapCanvas.style.opacity = Number(mapStrength.value) / 100;
});
