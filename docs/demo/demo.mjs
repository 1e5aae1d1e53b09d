// The page: reads two images, has them matched by worker.mjs, draws the matches. Nothing here opens a connection but to
// the example photographs of this site.

const MOST_LINES = 200;
const MOST_PIXELS = 50e6;
const SHOWN_HEIGHT = 480;
const EXAMPLES = [0, 1].map((side) => new URL(`../../examples/images/cup_${side}.jpg`, import.meta.url));

const at = (name) => document.getElementById(name);
// A worker of a blob is under this page's security policy; one of an address would be under none.
const code = `import ${JSON.stringify(new URL("worker.mjs", import.meta.url).href)};`;
const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
const chosen = [null, null]; // ImageBitmaps
const latest = [null, null]; // the files that were chosen last, which may still be decoded
let asked = 0;
let result = null; // { found, bitmaps } of the images that are shown

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
}

// No old result stays beside new images or an error.
function forget() {
  asked += 1;
  result = null;
  at("result").hidden = true;
  at("go").disabled = chosen.includes(null);
}

async function choose(side, blob) {
  chosen[side] = null;
  latest[side] = blob;
  forget();
  at(`shown${side}`).hidden = true;
  if (!blob) return;
  try {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
    const bitmap = await createImageBitmap(blob, options);
    if (latest[side] !== blob) return; // a smaller file may be decoded before a larger one that was chosen earlier
    if (bitmap.width * bitmap.height > MOST_PIXELS) throw new Error("it has more than 50 megapixels");
    chosen[side] = bitmap;
  } catch (error) {
    if (latest[side] !== blob) return;
    say(`${blob.name ?? "The file"} cannot be read as an image: ${error.message}`, true);
    return;
  }
  const shown = at(`shown${side}`);
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(blob);
  shown.hidden = false;
  forget();
  say(chosen.includes(null) ? "Choose the other image." : "Ready to match.");
}

function pixels(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return { data, width, height, channels: 4 };
}

function start(event) {
  event.preventDefault();
  if (chosen.includes(null)) return;
  forget();
  at("go").disabled = true;
  worker.postMessage({ id: asked, images: chosen.map(pixels) });
}

worker.onmessage = ({ data }) => {
  if (data.told) return say(data.told);
  if (data.id !== asked) return undefined; // other images were chosen meanwhile
  at("go").disabled = false;
  if (data.error) return say(`Matching failed: ${data.error}`, true);
  result = { found: data.found, bitmaps: [...chosen] };
  at("score").value = data.found.defaultScore;
  at("result").hidden = false;
  return show();
};
worker.onerror = (event) => {
  at("go").disabled = chosen.includes(null);
  say(`Matching failed: ${event.message || "the worker could not be loaded"}`, true);
};

// How many matches have the score that the slider asks for; they are sorted by score.
function kept() {
  const least = Number(at("score").value);
  const index = result.found.scores.findIndex((score) => score < least);
  return index < 0 ? result.found.count : index;
}

function show() {
  const { found } = result;
  const count = kept();
  at("least").textContent = Number(at("score").value).toFixed(2);
  const seconds = (found.timings.network / 1000).toFixed(1);
  say(`${count} matches with a score of ${at("least").textContent} or more; the network took ${seconds} s.`);
  draw(at("picture"), result.bitmaps, found, count);
}

function draw(canvas, bitmaps, found, count) {
  const scales = bitmaps.map((bitmap) => Math.min(1, SHOWN_HEIGHT / bitmap.height));
  const left = Math.round(bitmaps[0].width * scales[0]) + 6;
  canvas.width = left + Math.round(bitmaps[1].width * scales[1]);
  canvas.height = Math.round(Math.max(...bitmaps.map((bitmap, side) => bitmap.height * scales[side])));
  const pen = canvas.getContext("2d");
  bitmaps.forEach((bitmap, side) =>
    pen.drawImage(bitmap, side * left, 0, bitmap.width * scales[side], bitmap.height * scales[side]));
  const step = Math.max(1, count / MOST_LINES); // spread over the ranks, so that weak ones are shown too
  for (let rank = 0; rank < count; rank += step) {
    const i = Math.floor(rank);
    const [x0, y0] = [0, 1].map((axis) => (found.keypoints0[2 * i + axis] + 0.5) * scales[0]);
    const [x1, y1] = [0, 1].map((axis) => (found.keypoints1[2 * i + axis] + 0.5) * scales[1]);
    pen.strokeStyle = `hsl(${190 - 135 * found.scores[i]} 75% 50% / 0.75)`;
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(left + x1, y1);
    pen.stroke();
  }
}

function points(values, count) {
  return Array.from({ length: count }, (_, i) => [values[2 * i], values[2 * i + 1]]);
}

function save() {
  const { found } = result;
  const count = kept();
  const text = JSON.stringify({
    model: "eloftr-lite",
    keypoints0: points(found.keypoints0, count),
    keypoints1: points(found.keypoints1, count),
    scores: Array.from(found.scores.subarray(0, count)),
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "matches.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const side of [0, 1]) {
  const input = at(`image${side}`);
  input.addEventListener("change", () => choose(side, input.files[0]));
  if (input.files[0]) choose(side, input.files[0]); // chosen before this script ran, or kept by a reload
}
at("example").addEventListener("click", async () => {
  try {
    const blobs = await Promise.all(EXAMPLES.map(async (address) => (await fetch(address)).blob()));
    for (const [side, blob] of blobs.entries()) await choose(side, blob);
  } catch (error) {
    say(`The example images cannot be fetched: ${error.message}`, true);
  }
});
at("form").addEventListener("submit", start);
at("score").addEventListener("input", show);
at("save").addEventListener("click", save);
