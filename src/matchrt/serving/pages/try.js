// The page to try the service on: two images in, matches out, and the last pairs in a list.
import { drawMatches, drawRamp, overlayTransform } from "./draw.js";
import { judgement, numbers, verdict } from "./words.js";

const MOST_KEPT = 20;
const at = (id) => document.getElementById(id);
const zones = [...document.querySelectorAll(".zone")];
const chosen = [null, null];  // {file, image}; the image is null where the browser cannot show the file
const kept = [];  // the last pairs, newest first
let current = null;
let busy = false;
let saved = null;

// ------------------------------------------------------------------------------------------------------ two images

async function take(index, file) {
  if (!file) return;
  conceal();
  complain("");
  const image = new Image();
  image.src = URL.createObjectURL(file);
  const entry = { file, image };
  chosen[index] = entry;
  // A format that the browser does not show may still be one that the service reads.
  await image.decode().catch(() => { entry.image = null; });
  if (chosen[index] !== entry) return;
  const preview = zones[index].querySelector("img");
  preview.hidden = !entry.image;
  preview.src = entry.image ? image.src : "";
  zones[index].querySelector(".name").textContent = `${file.name}: drop or choose another one`;
  ready();
}

function ready() {
  at("go").disabled = !(chosen[0] && chosen[1]);
}

zones.forEach((zone, index) => {
  zone.querySelector("input").addEventListener("change", (event) => take(index, event.target.files[0]));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const files = event.dataTransfer.files;
    take(index, files[0]);
    take(1 - index, files[1]);
  });
});

// Beside the zones, a browser would open the file in the place of this page.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

// ------------------------------------------------------------------------------------------------------ the service

const headers = () => (at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {});

function complain(text) {
  at("wrong").textContent = text;
}

async function ask(path, options) {
  const answer = await fetch(path, { ...options, headers: headers() });
  const value = await answer.json().catch(() => null);
  if (answer.status === 401) {
    at("tokenlabel").hidden = false;
    throw new Error("This service asks for a token, or for another one.");
  }
  if (!answer.ok || value === null) {
    // A proxy in between may answer in its own words.
    throw new Error(value?.error ? `${value.error} ${value.remedy}` : `The service answered with status ${answer.status}.`);
  }
  return value;
}

async function listEngines() {
  const engines = await ask("v1/engines");
  const before = at("engine").value;
  at("engine").replaceChildren(...engines.map((one) => new Option(one.name)));
  if (before) at("engine").value = before;
  const showDefault = () => {
    const one = engines.find((engine) => engine.name === at("engine").value);
    at("score").placeholder = one ? String(one.default_score) : "";
  };
  at("engine").onchange = showDefault;
  showDefault();
}

at("token").addEventListener("change", () => listEngines().then(() => complain(""), (error) => complain(error.message)));

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy || at("go").disabled) return;
  const pair = [...chosen];
  const unchanged = () => pair.every((one, index) => one === chosen[index]);
  conceal();
  complain("");
  setBusy(true);
  try {
    if (!at("engine").value) await listEngines();
    const body = new FormData();
    pair.forEach((one, index) => body.append(`image${index}`, one.file));
    body.append("engine", at("engine").value);
    body.append("verify", at("verify").value);
    body.append("effort", at("effort").value);
    if (at("score").value) body.append("min_score", at("score").value);
    // Where the browser cannot show an image, the service draws.
    if (!pair.every((one) => one.image)) body.append("picture", "png");
    const start = performance.now();
    const result = await ask("v1/match", { method: "POST", body });
    const entry = { pair, result, engine: body.get("engine"), took: performance.now() - start };
    keep(entry);
    if (unchanged()) show(entry);
  } catch (error) {
    // What is said stands below the images that are chosen now.
    if (unchanged()) complain(error.message);
  }
  setBusy(false);
});

function setBusy(value) {
  busy = value;
  at("go").setAttribute("aria-disabled", value);  // not disabled: that would take the focus away
  sayState();
}

function sayState() {
  say(busy ? "Matching …" : (current ? `${at("judgement").textContent} ${at("verdict").textContent}` : ""), !busy);
}

// heard: whether it stands elsewhere for those who see the page.
function say(text, heard) {
  at("said").textContent = text;
  at("said").className = heard ? "heard" : "";
}

// ------------------------------------------------------------------------------------------------------ the result

// Nothing of another pair stays beside what is said of this one.
function conceal() {
  current = null;
  at("result").hidden = true;
  sayState();
  at("picture").removeAttribute("src");
  at("save").removeAttribute("href");
  if (saved) URL.revokeObjectURL(saved);
  saved = null;
  for (const name of ["verdict", "judgement", "names", "meaning", "drawn"]) at(name).textContent = "";
  at("numbers").replaceChildren();
  at("warnings").replaceChildren();
  markCurrent();
}

function show(entry) {
  conceal();
  complain("");
  current = entry;
  const { result, pair } = entry;
  const said = verdict(result);
  at("verdict").textContent = said.verdict;
  at("judgement").textContent = judgement(result).text;
  at("judgement").dataset.verdict = result.verdict;
  at("names").textContent = names(entry);
  at("meaning").textContent = said.meaning;
  at("share").hidden = said.share === null;
  at("bar").style.width = `${100 * (said.share ?? 0)}%`;
  at("warnings").replaceChildren(...(result.warnings ?? []).map((text) => element("li", text)));
  at("numbers").replaceChildren(...numbers(entry).flatMap(([term, text]) => [element("dt", term), element("dd", text)]));
  const drawable = pair.every((one) => one.image);
  for (const name of ["views", "leastrow", "savepicture"]) at(name).hidden = !drawable;
  at("overlayview").disabled = !overlays(result);
  at("overlayview").parentElement.title = overlays(result) ? "" : "needs a homography";
  if (!overlays(result) && view() === "overlay") document.querySelector("[name=view][value=lines]").checked = true;
  const lowest = result.scores.length ? Math.floor(Math.min(...result.scores) * 100) / 100 : 0;
  at("least").min = at("least").value = lowest;
  at("outlier").hidden = !result.inliers;
  const { picture, ...rest } = result;
  saved = URL.createObjectURL(new Blob([JSON.stringify(rest)], { type: "application/json" }));
  at("save").href = saved;
  at("result").hidden = false;
  at("picture").hidden = drawable;
  if (!drawable) at("picture").src = `data:image/png;base64,${picture}`;
  draw();
  markCurrent();
}

const overlays = (result) => result.geometry?.kind === "homography" && result.geometry.found;
const names = (entry) => entry.pair.map((one) => one.file.name).join(" and ");
const view = () => document.querySelector("[name=view]:checked").value;

function draw() {
  if (!current) return;
  const { result, pair } = current;
  const least = Number(at("least").value);
  at("leastvalue").value = least.toFixed(2);
  at("blendvalue").value = `${at("blend").value} %`;
  const drawable = pair.every((one) => one.image);
  const over = drawable && view() === "overlay";
  at("canvas").hidden = !drawable || over;
  at("overlay").hidden = !over;
  at("blendrow").hidden = !over;
  at("leastrow").hidden = !drawable || over;
  at("legend").hidden = over;
  at("savepicture").hidden = !drawable || over;
  const words = `${at("verdict").textContent} ${names(current)}.`;
  const width = Math.floor(at("result").clientWidth);
  if (!drawable) {
    at("drawn").textContent = "The browser cannot show one of the images, so the service has drawn them: at most 200 lines.";
    at("picture").alt = words;
  } else if (over) {
    overlay(width, words);
  } else {
    const counts = drawMatches(at("canvas"), pair.map((one) => one.image), result, { least, view: view(), width });
    at("canvas").setAttribute("aria-label", words);
    const inliers = result.inliers ? `, ${counts.inliers} of them inliers` : "";
    const fewer = counts.drawn < counts.matches ? ` Of these, ${counts.drawn} are drawn, spread over the scores.` : "";
    at("drawn").textContent = `${counts.matches} of ${result.matches} matches have this score or more${inliers}.${fewer}`;
  }
}

function overlay(width, words) {
  const { result, pair } = current;
  const scale = Math.min(width / result.image1.width, 720 / result.image1.height);
  const sides = [[at("over"), pair[0], result.image0], [at("under"), pair[1], result.image1]];
  for (const [shown, one, size] of sides) {
    if (shown.src !== one.image.src) shown.src = one.image.src;
    shown.style.width = `${size.width * scale}px`;
    shown.style.height = `${size.height * scale}px`;
  }
  at("over").style.transform = overlayTransform(result.geometry.matrix, scale);
  at("over").style.opacity = at("blend").value / 100;
  at("overlay").style.width = `${result.image1.width * scale}px`;
  at("overlay").style.height = `${result.image1.height * scale}px`;
  at("overlay").setAttribute("aria-label", words);
  at("drawn").textContent = "The first image, turned into the view of the second one by the homography. "
    + "Where both show the same plane, nothing moves when you blend.";
}

for (const name of ["least", "blend"]) at(name).addEventListener("input", draw);
for (const one of document.querySelectorAll("[name=view]")) one.addEventListener("change", draw);
new ResizeObserver(() => requestAnimationFrame(draw)).observe(document.querySelector("main"));

at("savepicture").addEventListener("click", () => at("canvas").toBlob((blob) => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "matches.png" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}));

// ------------------------------------------------------------------------------------------------------ several pairs

function keep(entry) {
  kept.unshift(entry);
  kept.splice(MOST_KEPT);
  list();
}

function list() {
  at("kept").hidden = kept.length === 0;
  at("list").replaceChildren(...kept.map((entry) => {
    const item = element("li"), button = element("button");
    button.type = "button";
    button.append(element("span", names(entry)));
    button.append(element("small", `${entry.engine}: ${entry.result.verdict}. ${verdict(entry.result).verdict}`));
    button.addEventListener("click", () => show(entry));
    item.append(button);
    return item;
  }));
  markCurrent();
}

function markCurrent() {
  [...at("list").querySelectorAll("button")].forEach((button, index) =>
    button.setAttribute("aria-current", kept[index] === current && current !== null));
}

at("forget").addEventListener("click", () => {
  kept.length = 0;
  conceal();
  list();
  at("image0").focus();
});

function element(tag, text) {
  return Object.assign(document.createElement(tag), text === undefined ? {} : { textContent: text });
}

drawRamp(at("ramp"));
ready();
listEngines().catch((error) => complain(error.message));
