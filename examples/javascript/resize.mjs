// The resize "area-linear" of grey bytes, as OpenCV computes it: areas are averaged along a side that shrinks, and a
// side that grows is interpolated linearly. matchrt/runtime/resize_weights.py has the same weights in Python.

const BITS = 2048; // OpenCV's linear weights are integers of 11 bits
const LEAST = 1e-3; // OpenCV's area averaging leaves out a part of a pixel that is smaller than this

/** Resizes bytes [height * width] to [newHeight * newWidth]. If one side shrinks and the other grows, it shrinks first. */
export function resize(pixels, width, height, newWidth, newHeight) {
  const downWidth = Math.min(width, newWidth);
  const downHeight = Math.min(height, newHeight);
  let result = pixels;
  if (downWidth !== width || downHeight !== height) result = shrink(pixels, width, height, downWidth, downHeight);
  if (downWidth !== newWidth || downHeight !== newHeight) {
    result = enlarge(result, downWidth, downHeight, newWidth, newHeight);
  }
  return result;
}

// ------------------------------------------------------------------------------------------------------------ areas

function shrink(pixels, width, height, newWidth, newHeight) {
  if (width % newWidth === 0 && height % newHeight === 0) return mean(pixels, width, newWidth, height, newHeight);
  const columns = areaWeights(width, newWidth);
  const rows = areaWeights(height, newHeight);
  const sums = new Float32Array(height * newWidth); // OpenCV sums in float32, in this order
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      const { first, weights } = columns[x];
      let sum = 0;
      for (let i = 0; i < weights.length; i += 1) {
        sum = Math.fround(sum + Math.fround(weights[i] * pixels[y * width + first + i]));
      }
      sums[y * newWidth + x] = sum;
    }
  }
  const result = new Uint8Array(newHeight * newWidth);
  for (let y = 0; y < newHeight; y += 1) {
    const { first, weights } = rows[y];
    for (let x = 0; x < newWidth; x += 1) {
      let sum = 0;
      for (let i = 0; i < weights.length; i += 1) {
        sum = Math.fround(sum + Math.fround(weights[i] * sums[(first + i) * newWidth + x]));
      }
      result[y * newWidth + x] = halfEven(sum);
    }
  }
  return result;
}

// Whole blocks of pixels: integer sums, and one product. Of 2 x 2 pixels OpenCV rounds halves up.
function mean(pixels, width, newWidth, height, newHeight) {
  const across = width / newWidth;
  const down = height / newHeight;
  const share = Math.fround(1 / (across * down));
  const result = new Uint8Array(newHeight * newWidth);
  for (let y = 0; y < newHeight; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      let sum = 0;
      for (let i = 0; i < down; i += 1) {
        const start = (y * down + i) * width + x * across;
        for (let j = 0; j < across; j += 1) sum += pixels[start + j];
      }
      const halves = across === 2 && down === 2;
      result[y * newWidth + x] = halves ? (sum + 2) >> 2 : halfEven(Math.fround(sum * share));
    }
  }
  return result;
}

// For each new sample: the first old one that it covers, and the share of each.
function areaWeights(source, target) {
  const scale = source / target;
  return Array.from({ length: target }, (_, index) => {
    const low = index * scale;
    const high = Math.min((index + 1) * scale, source);
    const width = Math.min(scale, source - low);
    const weights = [];
    let first = -1;
    for (let place = Math.floor(low); place < Math.min(high, source); place += 1) {
      const covered = Math.min(place + 1, high) - Math.max(place, low);
      if (covered <= LEAST) continue;
      if (first < 0) first = place;
      weights.push(Math.fround(covered / width));
    }
    return { first, weights };
  });
}

function halfEven(value) {
  const floor = Math.floor(value);
  const part = value - floor;
  return part === 0.5 ? floor + (floor % 2) : Math.floor(value + 0.5);
}

// ----------------------------------------------------------------------------------------------------------- linear

// OpenCV's integers: whole sums along x, of which 7 bits below the point are kept, and two bits of each product along y.
function enlarge(pixels, width, height, newWidth, newHeight) {
  const columns = linearWeights(width, newWidth, true);
  const rows = linearWeights(height, newHeight, false);
  const result = new Uint8Array(newHeight * newWidth);
  const sums = new Int32Array(height * newWidth);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      const { low, high, lowWeight, highWeight } = columns[x];
      const row = y * width;
      sums[y * newWidth + x] = (lowWeight * pixels[row + low] + highWeight * pixels[row + high]) >> 4;
    }
  }
  for (let y = 0; y < newHeight; y += 1) {
    const { low, high, lowWeight, highWeight } = rows[y];
    for (let x = 0; x < newWidth; x += 1) {
      const above = (lowWeight * sums[low * newWidth + x]) >> 16;
      const below = (highWeight * sums[high * newWidth + x]) >> 16;
      result[y * newWidth + x] = (above + below + 2) >> 2;
    }
  }
  return result;
}

// For each new sample: the two old ones around it, and their weights, which sum to BITS. Outside of the image both are its
// edge; there OpenCV gives all the weight to one of them along x, and not along y, where each product is rounded down.
function linearWeights(source, target, whole) {
  const last = source - 1;
  return Array.from({ length: target }, (_, index) => {
    const centre = Math.fround((index + 0.5) * (source / target) - 0.5);
    const below = Math.floor(centre);
    const part = whole && (below < 0 || below >= last) ? 0 : centre - below;
    return {
      low: Math.min(Math.max(below, 0), last),
      high: Math.min(Math.max(below + 1, 0), last),
      lowWeight: halfEven((1 - part) * BITS),
      highWeight: halfEven(part * BITS),
    };
  });
}
