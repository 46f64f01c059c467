/* Pictures: thumbnails from inside the page, and the full pictures, which are files next to the page.

   Only the program that wrote the page makes the addresses of files; names and columns never become addresses. */

const blocks = document.getElementsByClassName("thumbnails");
const blocksRead = new Map();

/* The address of a thumbnail; null as long as the browser has not read so far. */
function thumbnailAddress(place) {
  const at = Math.floor(place / data.block);
  if (!blocksRead.has(at)) {
    if (at >= blocks.length) return null;
    blocksRead.set(at, JSON.parse(blocks[at].textContent));
  }
  return `data:image/webp;base64,${blocksRead.get(at)[place % data.block]}`;
}

/* Why a card has no picture. */
const faultOf = (card) => data.faults[card] ?? "left out: no room for its thumbnail";

function showThumbnail(holder, card) {
  const place = data.places[card];
  const address = place < 0 ? null : thumbnailAddress(place);
  holder.classList.toggle("waiting", place >= 0 && address === null);
  if (address !== null) {
    const image = make("img");
    image.alt = `Image ${data.names[card]}`;
    image.decoding = "async";
    image.draggable = false;
    image.src = address;
    holder.replaceChildren(image);
  } else {
    const blank = make("span", "", place < 0 ? `No picture: ${faultOf(card).split(":")[0]}` : "");
    blank.title = place < 0 ? faultOf(card) : "";
    holder.replaceChildren(blank);
  }
}

let fullPictureOf = -1;

/* The thumbnail, and the full picture in its place once it is read. `told` is called with what there is to say. */
function showFullPicture(holder, card, told) {
  fullPictureOf = card;
  showThumbnail(holder, card);
  const link = data.links[card];
  if (!link) {
    told("");
    return;
  }
  const image = new Image();
  image.alt = `Image ${data.names[card]}`;
  image.src = link;
  told("The full picture is being read.");
  image.decode().then(
    () => {
      if (fullPictureOf !== card) return;
      holder.replaceChildren(image);
      told(`${image.naturalWidth} × ${image.naturalHeight} pixels`);
    },
    () => {
      if (fullPictureOf === card) told(`Only the thumbnail is shown: the browser cannot read ${link}`);
    },
  );
}
