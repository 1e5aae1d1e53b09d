// The size at which the network sees an image; matchrt/runtime/fit.py is the same in Python.

import { MatchError } from "./errors.mjs";

const MAX_ENLARGEMENT = 2;
const MIN_NETWORK_SIDE = 64;
const MIN_SIDE = 16;

/**
 * Fits an image into an engine's input.
 *
 * height, width: of the image, pixels. longSide: of dynamic engines, pixels.
 * Returns { height, width, canvasHeight, canvasWidth, scaleX, scaleY }: the resized image in the top-left corner of the
 * canvas; scales are pixels of the image for each pixel of the input. Throws MatchError: fit-size, image-too-small,
 * option-range.
 */
export function fitImage(height, width, manifest, longSide) {
  if (!(Math.min(height, width) >= MIN_SIDE)) {
    throw new MatchError("image-too-small", `${width}x${height} pixels; at least ${MIN_SIDE} on each side are needed`);
  }
  if (longSide !== undefined && !(Number.isInteger(longSide) && longSide > 0)) {
    throw new MatchError("option-range", `longSide is ${longSide}, not a number of pixels`);
  }
  const { profile, divisor } = manifest;
  if (profile !== null) return fitLongSide(height, width, longSide ?? Math.max(...profile.optimum), manifest);
  const canvas = [manifest.height, manifest.width];
  if (manifest.fitting === "stretch") return made([height, width], canvas, canvas);
  const factor = Math.min(canvas[0] / height, canvas[1] / width);
  const sides = [height, width].map((side, axis) =>
    nearest(side * factor, divisor, Math.min(smallest(divisor), canvas[axis]), canvas[axis]));
  return made([height, width], sides, canvas);
}

function fitLongSide(height, width, longSide, { profile, divisor }) {
  const least = profile.minimum.map((side) => Math.max(smallest(divisor), up(side, divisor)));
  const most = profile.maximum.map((side) => Math.floor(side / divisor) * divisor);
  if (most[0] < least[0] || most[1] < least[1]) {
    throw new MatchError("fit-size", "the engine's largest size is below the smallest that a network can use");
  }
  const image = [height, width];
  let factor = Math.min(longSide / Math.max(height, width), MAX_ENLARGEMENT);
  image.forEach((side, axis) => {
    // An engine's larger minimum is met by enlarging, not by stretching.
    if (least[axis] > smallest(divisor)) factor = Math.max(factor, least[axis] / side);
  });
  factor = Math.min(factor, most[0] / height, most[1] / width);
  const sides = image.map((side, axis) => nearest(side * factor, divisor, least[axis], most[axis]));
  return made(image, sides, sides);
}

function made(image, resized, canvas) {
  return {
    height: resized[0],
    width: resized[1],
    canvasHeight: canvas[0],
    canvasWidth: canvas[1],
    scaleX: image[1] / resized[1],
    scaleY: image[0] / resized[0],
  };
}

function smallest(step) {
  return up(Math.max(MIN_NETWORK_SIDE, 4 * step), step);
}

function up(side, step) {
  return Math.ceil(side / step) * step;
}

// The multiple of step nearest to wanted within low..high; halves go to the even multiple, as Python rounds.
function nearest(wanted, step, low, high) {
  return Math.max(Math.min(roundHalfEven(wanted / step) * step, Math.floor(high / step) * step), low);
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
