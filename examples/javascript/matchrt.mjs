// matchrt's ONNX engines in JavaScript: images become an engine's inputs, and its outputs become matches.
//
//     import * as ort from "onnxruntime-node";  // or "onnxruntime-web"
//     import { match, readManifest } from "./matchrt.mjs";
//
//     const manifest = readManifest(await readFile("eloftr-lite.onnx.json", "utf8"));
//     const session = await ort.InferenceSession.create("eloftr-lite.onnx");
//     const found = await match(ort, session, manifest, image0, image1);  // { data, width, height, channels }
//
// Keypoints are pixels of the images as given: x to the right, y down, the centre of the top-left pixel is (0, 0).

import { readManifest } from "./manifest.mjs";
import { prepareImage, toOriginal } from "./image.mjs";
import { MatchError } from "./errors.mjs";

export { MatchError, prepareImage, readManifest };

/**
 * Matches two images.
 *
 * ort: the module onnxruntime-node or onnxruntime-web; its Tensor is used.
 * session: an InferenceSession of the engine.
 * manifest: what readManifest returned for the engine.
 * image0, image1: { data, width, height, channels }, bytes in rows; 1 channel is grey, 3 RGB, 4 RGBA (alpha is ignored).
 * options.minScore: matches below it are dropped; default: the engine's, from which matches are mostly right.
 * options.longSide: of dynamic engines, in pixels, at which the network sees the images; default: the engine's best.
 *
 * Returns { count, keypoints0, keypoints1, scores, timings }: Float32Arrays [2 * count], [2 * count], [count], best
 * match first, and milliseconds. Throws MatchError.
 */
export async function match(ort, session, manifest, image0, image1, options = {}) {
  if (options.minScore !== undefined) requireScore(options.minScore); // before the network takes seconds
  const start = performance.now();
  const images = [image0, image1].map((image) => prepareImage(image, manifest, options.longSide));
  const prepared = performance.now();
  const outputs = await session.run(makeInputs(ort, manifest, images));
  const ran = performance.now();
  const matches = decodeMatches(manifest, outputs, images, options.minScore);
  return { ...matches, timings: { prepare: prepared - start, network: ran - prepared } };
}

/** The engine's inputs, by name, for two images that prepareImage returned. */
export function makeInputs(ort, manifest, images) {
  const inputs = {};
  images.forEach((image, index) => {
    const { canvasHeight, canvasWidth, height, width } = image.fit;
    inputs[`image${index}`] = new ort.Tensor("uint8", image.data, [1, canvasHeight, canvasWidth, 1]);
    if (manifest.hasSizes) {
      inputs[`size${index}`] = new ort.Tensor("int32", Int32Array.of(height, width), [1, 2]);
    }
  });
  return inputs;
}

/** The matches in an engine's outputs, in pixels of the images as given. Only the first num_matches rows are matches. */
export function decodeMatches(manifest, outputs, images, minScore = manifest.defaultScore) {
  requireScore(minScore);
  const real = Number(outputs.num_matches.data[0]);
  const all = outputs.scores.data;
  if (!(real >= 0 && real <= all.length)) {
    throw new MatchError("matches-invalid", `the engine says that it found ${real} matches of at most ${all.length}`);
  }
  let count = 0;
  while (count < real && all[count] >= minScore) count += 1; // the engine sorts by score
  return {
    count,
    keypoints0: toOriginal(outputs.keypoints0.data.subarray(0, 2 * count), images[0].fit),
    keypoints1: toOriginal(outputs.keypoints1.data.subarray(0, 2 * count), images[1].fit),
    scores: all.slice(0, count),
  };
}

function requireScore(score) {
  if (!(typeof score === "number" && score >= 0 && score <= 1)) {
    throw new MatchError("option-range", `minScore is ${score}, not a number in 0..1`);
  }
}
