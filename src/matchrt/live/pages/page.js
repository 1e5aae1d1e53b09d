"use strict";

const state = document.getElementById("state");
const facts = document.getElementById("facts");
const picture = document.getElementById("picture");
picture.addEventListener("error", () => { state.textContent = "No pictures: the run has ended, or too many watch."; });

function show(status) {
  facts.replaceChildren();
  for (const [name, value] of Object.entries(status)) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = String(value);
    facts.append(term, text);
  }
}

async function ask() {
  try {
    const status = await (await fetch("/status")).json();
    if (Object.keys(status).length) {
      state.textContent = "Running.";
      show(status);
    }
    setTimeout(ask, 1000);
  } catch {
    state.textContent = "The run has ended.";
  }
}

ask();
