// Matches two image files with an ONNX engine of matchrt, in Node.js:
//
//     npm install --ignore-scripts
//     node match.mjs eloftr-lite.onnx a.jpg b.jpg                          # onnxruntime-node
//     node match.mjs eloftr-lite.onnx a.jpg b.jpg --web --json matches.json  # onnxruntime-web, in WebAssembly
//
// The engine's manifest, ENGINE.json, lies beside it.

import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import sharp from "sharp";

import { match, readManifest } from "./matchrt.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { web: { type: "boolean" }, json: { type: "string" }, "min-score": { type: "string" } },
});
if (positionals.length !== 3) {
  console.error("usage: node match.mjs ENGINE.onnx IMAGE0 IMAGE1 [--web] [--min-score S] [--json FILE]");
  process.exit(2);
}

/** Decodes a file to bytes in rows, turned as its EXIF says; alpha is ignored, as in matchrt. */
async function readImage(path) {
  const decoded = sharp(path).rotate().toColourspace("srgb").removeAlpha();
  const { data, info } = await decoded.raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, channels: info.channels };
}

const [engine, ...paths] = positionals;
const ort = await import(values.web ? "onnxruntime-web" : "onnxruntime-node");
const manifest = readManifest(await readFile(`${engine}.json`, "utf8"));
const session = await ort.InferenceSession.create(await readFile(engine));
const [image0, image1] = await Promise.all(paths.map(readImage));
const minScore = values["min-score"] === undefined ? undefined : Number(values["min-score"]);
const found = await match(ort, session, manifest, image0, image1, { minScore });
console.log(`${found.count} matches, network ${found.timings.network.toFixed(0)} ms`);
if (values.json) {
  const listed = Object.fromEntries(Object.entries(found).map(([name, value]) =>
    [name, value instanceof Float32Array ? Array.from(value) : value]));
  await writeFile(values.json, JSON.stringify(listed));
}
