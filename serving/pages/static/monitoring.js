// The page works without this script. With it a slider, or a finger or pointer on a chart, reads the figures of a day.
"use strict";

const rows = [...document.querySelectorAll("#days tbody tr")].reverse();
const names = [...document.querySelectorAll("#days thead th")].map((cell) => cell.textContent.trim());
const slider = document.getElementById("day-slider");
const readout = document.getElementById("readout");
const charts = [...document.querySelectorAll(".charts svg")];
const days = rows.map((row) => row.cells[0].textContent.trim());
const DAY = 86400000;

function place(chart, day) {
  const {first, last, left, right} = chart.dataset;
  const span = Math.max(Date.parse(last) - Date.parse(first), DAY);
  return Number(left) + (Number(right) - Number(left)) * (Date.parse(day) - Date.parse(first)) / span;
}

function show(number) {
  const row = rows[number];
  if (!row) return;
  slider.value = number;
  slider.setAttribute("aria-valuetext", days[number]);
  const figures = [...row.cells].slice(1).map((cell, at) => [names[at + 1], cell.textContent.trim()]).filter(([, text]) => text);
  readout.textContent = `${days[number]}: ${figures.map(([name, text]) => `${name} ${text}`).join("; ")}`;
  for (const chart of charts) {
    const cursor = chart.querySelector(".cursor");
    const x = place(chart, days[number]);
    const inside = x >= Number(chart.dataset.left) - 0.5 && x <= Number(chart.dataset.right) + 0.5;
    cursor.setAttribute("visibility", inside ? "visible" : "hidden");
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  }
}

function nearest(chart, clientX) {
  const box = chart.getBoundingClientRect();
  const x = (clientX - box.left) / box.width * chart.viewBox.baseVal.width;
  let best = 0;
  days.forEach((day, number) => {
    if (Math.abs(place(chart, day) - x) < Math.abs(place(chart, days[best]) - x)) best = number;
  });
  return best;
}

if (slider && rows.length) {
  slider.max = rows.length - 1;
  for (const part of document.querySelectorAll(".with-script")) part.hidden = false;
  slider.addEventListener("input", () => show(Number(slider.value)));
  for (const chart of charts) {
    for (const kind of ["pointerdown", "pointermove"]) {
      chart.addEventListener(kind, (event) => show(nearest(chart, event.clientX)));
    }
  }
  show(rows.length - 1);
}
