// Draws matches between two images. Keypoints are pixels of the images; the top-left pixel's centre is 0, 0.

const MOST_LINES = 200;
const GAP = 6;
const DARK = "#18181b";
const OUTLIER = "#ef4444";
// Viridis from teal to yellow, as in the pictures of `matchrt match`: its dark end cannot be seen on dark images.
const RAMP = [[38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

export function scoreColour(score) {
  const place = Math.min(Math.max(score, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (place - low)));
  return `rgb(${mixed.join(" ")})`;
}

export function drawRamp(canvas) {
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    pen.fillStyle = scoreColour(x / (canvas.width - 1));
    pen.fillRect(x, 0, 1, canvas.height);
  }
}

// Indices of at most `most` of `indices`, spread evenly over their order.
function spread(indices, most) {
  if (indices.length <= most) return indices;
  return Array.from({ length: most }, (_, i) => indices[Math.round(i * (indices.length - 1) / (most - 1))]);
}

// Where both images lie on a canvas of that width: side by side, or on each other on narrow ones.
function place(sizes, width) {
  if (width < 560) {
    const scales = sizes.map((size) => width / size.width);
    const top = Math.round(sizes[0].height * scales[0]) + GAP;
    return { scales, corners: [[0, 0], [0, top]], height: top + Math.round(sizes[1].height * scales[1]) };
  }
  // As high as each other.
  const wide = sizes.map((size) => size.width / size.height);
  const height = Math.min((width - GAP) / (wide[0] + wide[1]), 720);
  const left = Math.round(height * wide[0]) + GAP;
  return { scales: sizes.map((size) => height / size.height), corners: [[0, 0], [left, 0]], height: Math.round(height) };
}

let ground = { key: "", canvas: null };

// Both images, scaled once for as long as nothing but the matches changes: large ones take long.
function background(images, sizes, { scales, corners, height }, width, fine) {
  const key = [...images.map((image) => image.src), width, fine].join(" ");
  if (ground.key === key) return ground.canvas;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * fine);
  canvas.height = Math.round(height * fine);
  const pen = canvas.getContext("2d");
  pen.scale(fine, fine);
  pen.fillStyle = DARK;
  pen.fillRect(0, 0, width, height);
  images.forEach((image, i) =>
    pen.drawImage(image, ...corners[i], sizes[i].width * scales[i], sizes[i].height * scales[i]));
  ground = { key, canvas };
  return canvas;
}

// Draws the matches from a score on. Gives how many there are, how many of them are inliers, and how many are drawn.
export function drawMatches(canvas, images, result, { least, view, width }) {
  const sizes = [result.image0, result.image1];
  const placed = place(sizes, width), { scales, corners, height } = placed;
  const fine = Math.min(window.devicePixelRatio || 1, 2);
  const behind = background(images, sizes, placed, width, fine);
  canvas.width = behind.width;
  canvas.height = behind.height;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.drawImage(behind, 0, 0);
  pen.scale(fine, fine);

  const points = [result.keypoints0, result.keypoints1].map((list, i) =>
    (index) => list[index].map((value, axis) => (value + 0.5) * scales[i] + corners[i][axis]));
  const shown = result.scores.map((_, index) => index).filter((index) => result.scores[index] >= least);
  const good = (index) => !result.inliers || result.inliers[index];
  const chosen = view === "lines" ? spread(shown, MOST_LINES) : shown;
  // The worst first, so that the best are on top.
  const order = [...chosen.filter((index) => !good(index)), ...chosen.filter(good).reverse()];
  if (view === "lines") {
    pen.globalAlpha = 0.8;
    for (const index of order) {
      pen.strokeStyle = good(index) ? scoreColour(result.scores[index]) : OUTLIER;
      pen.lineWidth = good(index) ? 1.2 : 1;
      pen.beginPath();
      pen.moveTo(...points[0](index));
      pen.lineTo(...points[1](index));
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }
  for (const index of order)
    for (const side of points) {
      pen.beginPath();
      pen.arc(...side(index), 2.2, 0, 7);
      pen.fillStyle = good(index) ? scoreColour(result.scores[index]) : OUTLIER;
      pen.fill();
      pen.lineWidth = 0.6;
      pen.strokeStyle = DARK;
      pen.stroke();
    }
  return { matches: shown.length, inliers: shown.filter(good).length, drawn: chosen.length };
}

// The CSS transform that lays image 0 on image 1, both shown `scale` times as large as they are.
export function overlayTransform(matrix, scale) {
  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));
  // From the browser's pixels, whose first one begins at 0, to ours, whose first one is 0 at its centre, and back.
  const ours = [[1 / scale, 0, -0.5], [0, 1 / scale, -0.5], [0, 0, 1]];
  const theirs = [[scale, 0, 0.5 * scale], [0, scale, 0.5 * scale], [0, 0, 1]];
  const [[a, b, c], [d, e, f], [g, h, i]] = times(theirs, times(matrix, ours));
  return `matrix3d(${[a, d, 0, g, b, e, 0, h, 0, 0, 1, 0, c, f, 0, i].join(",")})`;
}
