// What a result means, in words.

const WHAT = {
  homography: "a homography, as for a plane, or a camera that only turned",
  fundamental: "a fundamental matrix, as for one still scene seen from two places",
};

const of = (part, whole) => `${part} of ${whole}`;

const VERDICTS = {
  "match": "They show the same thing",
  "doubtful": "They may show the same thing",
  "no match": "They do not seem to show the same thing",
};

// The verdict on the pair in one line, and what it rests on.
export function judgement(result) {
  const alarms = Math.round(-result.log10_nfa);
  const chance = result.verdict !== "no match" && alarms >= 1
    ? ` Chance alone would give matches that agree so well once in 10^${alarms} pairs.` : "";
  const unknown = result.verdict === "doubtful" && result.evidence.cells < 12 && result.log10_nfa > -3;
  const more = result.advice?.length ? " With effort high, more is tried." : "";
  return {
    text: `${unknown ? "There are too few matches to tell" : VERDICTS[result.verdict]}`
      + ` (probability ${percent(result.probability)}).${more}`,
    basis: "The probability was calibrated on pairs whose truth is known, half of them true. It rests on how closely the "
      + `matches agree, how much of both images they cover, and their scores.${chance}`,
  };
}

// Never 0 or 100 %: nothing is that sure.
const percent = (value) => `${Math.round(100 * Math.min(Math.max(value, 0.01), 0.99))} %`;

// The matches in one line, what they mean and do not mean, and the share of inliers, 0..1, or null.
export function verdict(result) {
  const geometry = result.geometry;
  const count = result.matches;
  const matches = count === 1 ? "1 match" : `${count} matches`;
  if (count === 0) {
    return { verdict: "No matches.", share: null, meaning: "The network found nothing that both images show, "
      + "at this smallest score." };
  }
  if (!geometry) {
    return { verdict: `${matches}.`, share: null, meaning: "No geometry was asked for, so nothing says which of them "
      + "are right. A score is the network's own confidence in one match." };
  }
  if (!geometry.found) {
    return { verdict: `${matches}, and no ${name(geometry)} fits them.`, share: 0, meaning: "The images may not show the "
      + `same thing. Or it is not what ${WHAT[geometry.kind]} describes.` };
  }
  const share = geometry.inliers / count;
  return {
    verdict: `${of(geometry.inliers, matches)} (${Math.round(100 * share)} %) fit one ${name(geometry)}.`,
    share,
    meaning: `They agree within ${geometry.threshold_px} pixels with ${WHAT[geometry.kind]}. Many matches that `
      + "agree are good evidence of the same scene. A few can agree by chance.",
  };
}

const name = (geometry) => (geometry.kind === "fundamental" ? "fundamental matrix" : geometry.kind);

// The result's numbers and what each means.
export function numbers({ result, engine, took }) {
  const times = result.timings_ms;
  const made = result.provenance;
  const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  const geometry = result.geometry;
  const scores = result.scores;
  return [
    ["Verdict", `${result.verdict}. ${judgement(result).basis}`],
    ["Matches", `${result.matches}. Each is a point of the first image and the same point in the second one.`],
    ...(scores.length ? [["Scores", `${scores[scores.length - 1].toFixed(2)} to ${scores[0].toFixed(2)}. `
      + "How sure the network is of a match, 0 to 1. Not the probability that it is right."]] : []),
    ...(geometry?.found ? [["Inliers", `${geometry.inliers}. Matches that fit the ${name(geometry)} within `
      + `${geometry.threshold_px} pixels (found by ${geometry.estimator}).`]] : []),
    ["Images", [result.image0, result.image1].map((one) => `${one.width} × ${one.height}`).join(" and ")
      + ` pixels; the network saw ${made.network_size0[1]} × ${made.network_size0[0]}`
      + ` and ${made.network_size1[1]} × ${made.network_size1[0]}`
      + `${made.turned1 ? `, the second one turned by ${made.turned1} degrees clockwise` : ""}.`],
    ["Time", `${ms(took)} in all: decoding ${ms(times.decode)}, resizing ${ms(times.resize)}, `
      + `the network ${ms(times.inference)}${times.retry ? `, further runs ${ms(times.retry)}` : ""}.`],
    ["Engine", `${engine}: ${made.model}, ${made.precision}, ${made.backend}.`],
  ];
}
