// The page works without this script. With it an answer appears in place, and a screen reader announces one sentence.
"use strict";

const PARTS = ["problems", "fields", "result"];
const form = document.getElementById("form");
let controller = null;

async function show(address, options, fallBack) {
  controller?.abort();
  controller = new AbortController();
  const own = controller;
  form.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(address, {...options, signal: own.signal});
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (PARTS.some((id) => !page.getElementById(id))) return fallBack();
    for (const id of PARTS) document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
    markExamples(page);
    document.title = page.title;
    document.getElementById("announcement").textContent = page.getElementById("announcement").textContent;
    reveal();
  } catch (error) {
    if (error.name !== "AbortError") fallBack();
  } finally {
    if (own === controller) form.removeAttribute("aria-busy");
  }
}

function markExamples(page) {
  for (const link of document.querySelectorAll(".examples a")) {
    const other = page.querySelector(`.examples a[href="${link.getAttribute("href")}"]`);
    link.toggleAttribute("aria-current", Boolean(other?.hasAttribute("aria-current")));
  }
}

function reveal() {
  if (document.querySelector("#problems #outcome")) {
    document.getElementById("outcome").focus();
  } else {
    document.getElementById("outcome")?.scrollIntoView({block: "nearest"});
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form));
  show("/", {method: "POST", body}, () => form.submit());
});

for (const link of document.querySelectorAll(".examples a")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(link.href.split("#")[0], {}, () => location.assign(link.href));
  });
}
