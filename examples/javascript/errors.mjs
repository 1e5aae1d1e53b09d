/** An error with a code of matchrt's list (docs/errors.md). */
export class MatchError extends Error {
  constructor(code, message) {
    super(`${code}: ${message}`);
    this.name = "MatchError";
    this.code = code;
  }
}
