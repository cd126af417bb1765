"use strict";

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const SHOWN = { fused: ["fused"], side: ["ir", "vi", "fused"], swipe: ["vi", "fused"] };
const rates = [];

// Hidden pictures are not requested, so the server does not encode them.
function show(view) {
  stage.dataset.view = view;
  for (const name of ["ir", "vi", "fused"]) {
    const image = byId(name).querySelector("img");
    const wanted = SHOWN[view].includes(name);
    byId(name).hidden = !wanted;
    if (wanted && !image.getAttribute("src")) image.src = `stream/${name}.mjpg`;
    if (!wanted) image.removeAttribute("src");
  }
  byId("swipe").hidden = byId("divider").hidden = view !== "swipe";
  for (const button of document.querySelectorAll("nav button"))
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  // Not the bare name: the browser would look for an element of that id.
  history.replaceState(null, "", `#view-${view}`);
}

function rows(id, entries) {
  byId(id).replaceChildren(...entries.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const td = document.createElement("td");
      td.textContent = cell.text ?? cell;
      if (cell.bad) td.className = "bad";
      row.append(td);
    }
    return row;
  }));
}

const fixed = (value, digits = value < 100 ? 1 : 0) => Number(value).toFixed(digits);

function figures(report) {
  const { ir, vi } = report.cameras;
  byId("fps").textContent = fixed(report.fused.fps_lately);
  byId("p50").textContent = fixed(report.capture_to_output_ms.p50, 0);
  const both = [ir, vi];
  rows("cameras", [
    ["state", ...both.map((c) => ({ text: c.state, bad: c.state !== "live" }))],
    ["size", ...both.map((c) => (c.size ? c.size.join("×") : "–"))],
    ["frames/s", ...both.map((c) => fixed(c.fps_lately))],
    ["frames", ...both.map((c) => c.frames)],
    ["stalls", ...both.map((c) => c.stalls)],
    ["reconnects", ...both.map((c) => c.reconnects)],
    ["flat-field", `${fixed(ir.ffc_seconds)} s`, "–"],
  ]);
  const times = [["to output", report.capture_to_output_ms], ["pair skew", report.skew_ms]];
  for (const [stageName, ms] of Object.entries(report.stages_ms)) times.push([stageName, ms]);
  rows("times", times.map(([name, ms]) => [name, ...["p50", "p95", "p99", "max"].map((k) => fixed(ms[k]))]));
  rows("drops", Object.entries(report.drops));
  rows("flags", Object.entries(report.flags));
  byId("engine").textContent = [report.model, report.engine].filter(Boolean).join(" on ");
  byId("events").replaceChildren(...report.events.slice(-6).reverse().map((event) => {
    const item = document.createElement("li");
    item.textContent = `${event.time} s: ${event.subject}: ${event.text}`;
    if (event.severity === "error") item.className = "bad";
    return item;
  }));
  for (const [name, camera] of [["ir", ir], ["vi", vi]])
    byId(name).classList.toggle("lost", camera.state !== "live");
  const running = both.every((c) => c.state === "live");
  const state = byId("state");
  state.textContent = !report.healthy ? "no frames" : running ? "running" : "one camera lost";
  state.className = `pill ${!report.healthy ? "bad" : running ? "good" : "warn"}`;
  rates.push(report.fused.fps_lately);
  if (rates.length > 60) rates.shift();
  const top = Math.max(1, ...rates) * 1.15;
  byId("spark").firstElementChild.setAttribute(
    "points", rates.map((v, i) => `${((i + 60 - rates.length) * 240) / 59},${48 - (v / top) * 46}`).join(" "));
}

async function poll() {
  try {
    const answer = await fetch("report.json");
    if (answer.ok) figures(await answer.json());
  } catch {
    byId("state").textContent = "stream has ended";
    byId("state").className = "pill bad";
  }
  setTimeout(poll, 1000);
}

for (const button of document.querySelectorAll("nav button"))
  button.addEventListener("click", () => show(button.dataset.view));
byId("swipe").addEventListener("input", (event) => stage.style.setProperty("--at", `${event.target.value}%`));
// Request a picture again if its connection broke.
for (const image of document.querySelectorAll("figure img"))
  image.addEventListener("error", () => {
    const source = image.getAttribute("src");
    if (!source) return;
    image.removeAttribute("src");
    setTimeout(() => show(stage.dataset.view), 1000);
  });
const initial = location.hash.replace("#view-", "");
show(SHOWN[initial] ? initial : "fused");
poll();
