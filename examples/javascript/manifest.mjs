// What an engine's manifest (ENGINE.json) says of its inputs and matches: docs/engine-contract.md.

import { MatchError } from "./errors.mjs";

const FITTINGS = ["aspect", "letterbox", "stretch"];

/**
 * Reads a manifest.
 *
 * text: of the file.
 *
 * Returns { divisor, fitting, height, width, profile, hasSizes, maxMatches, defaultScore, sha256 }: height and width are
 * null for a dynamic engine, whose profile has minimum, optimum and maximum, each [height, width].
 * Throws MatchError: manifest-invalid, or engine-unsupported for an engine that needs what this module does not do.
 */
export function readManifest(text) {
  let raw;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new MatchError("manifest-invalid", `the manifest is not JSON: ${error.message}`);
  }
  const input = part(raw, "input");
  const matching = part(raw, "matching");
  requireSupported(raw, input);
  const profile = input.profile ?? null;
  for (const [name, value] of [["divisor", input.divisor], ["max_matches", matching.max_matches]]) {
    if (!Number.isInteger(value) || value < 1) throw new MatchError("manifest-invalid", `${name} is ${value}`);
  }
  const sizes = profile === null
    ? [[input.height, input.width]]
    : [profile.minimum, profile.optimum, profile.maximum];
  if (!sizes.every(isSize)) throw new MatchError("manifest-invalid", "the input has no size that could be used");
  if (!(matching.default_score >= 0 && matching.default_score <= 1)) {
    throw new MatchError("manifest-invalid", `default_score is ${matching.default_score}`);
  }
  return {
    divisor: input.divisor,
    fitting: input.fitting,
    height: profile === null ? input.height : null,
    width: profile === null ? input.width : null,
    profile,
    hasSizes: raw.inputs.some((spec) => spec.name === "size0"),
    maxMatches: matching.max_matches,
    defaultScore: matching.default_score,
    sha256: raw.engine_sha256,
  };
}

function part(raw, name) {
  const value = raw?.[name];
  if (typeof value !== "object" || value === null) throw new MatchError("manifest-invalid", `it has no '${name}'`);
  return value;
}

function isSize(size) {
  return Array.isArray(size) && size.length === 2 && size.every((side) => Number.isInteger(side) && side > 0);
}

function requireSupported(raw, input) {
  const reasons = [
    [raw.backend !== "onnxruntime", `it is of backend '${raw.backend}', not of onnxruntime`],
    [input.channels !== 1, "it takes colour images"],
    [input.kernel !== "area-linear", `its images are resized by '${input.kernel}'`],
    [!FITTINGS.includes(input.fitting), `its images are fitted as '${input.fitting}'`],
    [(input.batch ?? 1) !== 1, "it takes several pairs in a run"],
    [(input.coarse ?? null) !== null, "it takes a second, smaller copy of each image"],
    [(input.frames ?? null) !== null, "it takes camera frames"],
    [!Array.isArray(raw.inputs), "its manifest names no inputs"],
  ];
  const found = reasons.find(([applies]) => applies);
  if (found) throw new MatchError("engine-unsupported", `this module cannot feed the engine: ${found[1]}`);
}
