// An image becomes an engine's input: grey, resized and padded, with the integers of OpenCV that matchrt uses in Python.

import { MatchError } from "./errors.mjs";
import { fitImage } from "./fit.mjs";
import { resize } from "./resize.mjs";

/**
 * Converts an image to grey, resizes it and pads it, as the manifest says.
 *
 * image: { data, width, height, channels }. longSide: as in match.
 * Returns { data, fit }: bytes [canvasHeight * canvasWidth], and how to come back to the image's own pixels.
 * Throws MatchError: image-array, image-too-small, option-range, fit-size.
 */
export function prepareImage(image, manifest, longSide) {
  const { data, width, height, channels = 4 } = image ?? {};
  // Floats in 0..1, which other libraries give, would all become black.
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new MatchError("image-array", "the image's data are not a Uint8Array or a Uint8ClampedArray");
  }
  const whole = Number.isInteger(width) && Number.isInteger(height);
  if (!whole || ![1, 3, 4].includes(channels) || data.length !== width * height * channels) {
    throw new MatchError("image-array", `${data.length} bytes are no image of ${width}x${height}x${channels}`);
  }
  const fit = fitImage(height, width, manifest, longSide);
  const small = resize(toGrey(data, channels), width, height, fit.width, fit.height);
  if (fit.width === fit.canvasWidth && fit.height === fit.canvasHeight) return { data: small, fit };
  const canvas = new Uint8Array(fit.canvasWidth * fit.canvasHeight); // zeros right and below
  for (let y = 0; y < fit.height; y += 1) {
    canvas.set(small.subarray(y * fit.width, (y + 1) * fit.width), y * fit.canvasWidth);
  }
  return { data: canvas, fit };
}

/** Grey of interleaved bytes: ITU-R 601 luma with OpenCV's integers. */
export function toGrey(data, channels) {
  if (channels === 1) return Uint8Array.from(data);
  const grey = new Uint8Array(data.length / channels);
  for (let i = 0, j = 0; i < grey.length; i += 1, j += channels) {
    grey[i] = (9798 * data[j] + 19235 * data[j + 1] + 3735 * data[j + 2] + 16384) >> 15;
  }
  return grey;
}

/** Points [x, y, x, y, ...] in pixels of the engine's input to pixels of the image: a resize keeps an image's edges. */
export function toOriginal(points, fit) {
  const moved = Float32Array.from(points);
  if (fit.scaleX === 1 && fit.scaleY === 1) return moved;
  for (let i = 0; i < moved.length; i += 2) {
    moved[i] = (moved[i] + 0.5) * fit.scaleX - 0.5;
    moved[i + 1] = (moved[i + 1] + 0.5) * fit.scaleY - 0.5;
  }
  return moved;
}
