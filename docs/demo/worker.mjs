// Loads the engine and matches, apart from the page, which stays responsive. Messages in: { id, images }, out:
// { id, found } or { id, error }, and { told } about what is being loaded.

import { match, readManifest } from "../../examples/javascript/matchrt.mjs";

const ENGINE = new URL("../../src/matchrt/assets/eloftr-lite.onnx", import.meta.url).href;
// This site's copy if the site was built with one (docs/other-runtimes.md), else the same version from a CDN.
const HERE = new URL("../../examples/javascript/node_modules/onnxruntime-web/dist/", import.meta.url).href;
const ELSEWHERE = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/";
const MODULE = "ort.wasm.min.mjs";

let loading = null;

function loaded() {
  loading ??= load().catch((error) => {
    loading = null; // the next match tries again
    throw error;
  });
  return loading;
}

async function load() {
  postMessage({ told: "Loading onnxruntime-web …" });
  const own = await fetch(HERE + MODULE, { method: "HEAD" }).then((answer) => answer.ok, () => false);
  const base = own ? HERE : ELSEWHERE;
  const ort = await import(base + MODULE);
  ort.env.wasm.wasmPaths = base;
  ort.env.wasm.numThreads = 1; // more need headers that plain file servers do not send
  postMessage({ told: "Loading the engine …" });
  const [bytes, text] = await Promise.all([got(ENGINE, "arrayBuffer"), got(`${ENGINE}.json`, "text")]);
  const manifest = readManifest(text);
  await requireDigest(bytes, manifest.sha256);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return { ort, manifest, session };
}

async function got(address, kind) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
  return answer[kind]();
}

// crypto.subtle exists on https and localhost only.
async function requireDigest(bytes, wanted) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== wanted) throw new Error("the engine's bytes are not those of its manifest");
}

onmessage = async ({ data: { id, images } }) => {
  try {
    const { ort, manifest, session } = await loaded();
    postMessage({ told: "Matching; this takes some seconds …" });
    const found = await match(ort, session, manifest, images[0], images[1], { minScore: 0 });
    postMessage({ id, found: { ...found, defaultScore: manifest.defaultScore } });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
