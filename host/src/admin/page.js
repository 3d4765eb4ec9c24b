"use strict";
// What is shown comes as one stream of events, each of which is the whole of it. Rows are kept and changed
// in place, so that whoever reads or selects something isn't disturbed.

const SIGNS = {
  starting: ["○", "busy"],
  ready: ["●", "good"],
  retiring: ["◐", "busy"],
  leaving: ["◐", "busy"],
  draining: ["◔", "busy"],
  killed: ["✕", "alarm"],
};
const PHASES = {
  starting: ["○ starting", "busy"],
  serving: ["● serving", "good"],
  preflight: ["◐ restart: preflight", "busy"],
  rolling: ["◐ restart: rolling", "busy"],
  returning: ["◐ restart failed: rolling back", "alarm"],
  locked: ["✕ locked", "alarm"],
  stopping: ["◔ stopping", "busy"],
};
const STANDINGS = { active: ["●", "good"], quarantined: ["✕", "alarm"] };

// How long it may be quiet before what is shown is said to be old, in milliseconds.
const QUIET = 5000;

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(id, text) {
  $(id).hidden = !text;
  put($(id), text);
}

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return `${Math.round(ms)} ms`;
  if (seconds < 60) return `${Math.floor(ms / 100) / 10} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

// Of a moment, by the master's clock.
function ago(at, now) {
  const ms = Math.max(0, now - at);
  return ms < 1000 ? "just now" : `${duration(ms - (ms < 60000 ? ms % 1000 : 0))} ago`;
}

const short = (version) => version.slice(0, 12);
const bytes = (size) => `${(size / 1048576).toFixed(1)} MiB`;

// Keeps one element a key in `parent`, in the order of `items`; `make` and `update` know what is in it.
function keep(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let child = known.get(name);
    const isNew = !child;
    if (isNew) {
      child = make(item);
      child.dataset.key = name;
    }
    known.delete(name);
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
    const before = child.dataset.state;
    update(child, item);
    // Not the first that is seen: nothing has changed then.
    if (started && (isNew || (before !== undefined && before !== child.dataset.state))) flash(child);
  });
  known.forEach((child) => child.remove());
}

function flash(element) {
  element.classList.remove("changed");
  void element.offsetWidth;
  element.classList.add("changed");
}

function row(columns) {
  const made = document.createElement("tr");
  made.setAttribute("role", "row");
  for (const [label, className] of columns) {
    const cell = made.insertCell();
    cell.setAttribute("role", "cell");
    cell.dataset.label = label;
    cell.className = className;
  }
  return made;
}

function setState(element, cell, state, [sign, className] = ["○", ""]) {
  put(cell, state);
  cell.dataset.sign = sign;
  cell.className = `state ${className}`;
  element.dataset.state = state;
}

const WORKER = [
  ["Slot", "number slot"], ["State", "state"], ["Generation", "number"], ["Version", "code"], ["Process", "number"],
  ["Up", "number"], ["In flight", "number"], ["Requests", "number"], ["CPU", "number"], ["Memory", "number"],
];

function updateWorker(element, worker) {
  const cells = element.cells;
  setState(element, cells[1], worker.state, SIGNS[worker.state]);
  element.classList.toggle("going", ["leaving", "draining", "killed"].includes(worker.state));
  const busy = load.get(worker.pid);
  const texts = [
    worker.slot, null, worker.generation, short(worker.version), worker.pid || "–", duration(worker.uptime_ms),
    number.format(worker.in_flight), number.format(worker.requests), busy === undefined ? "–" : `${Math.round(busy)} %`,
    worker.memory_bytes === null ? "–" : bytes(worker.memory_bytes),
  ];
  texts.forEach((text, place) => {
    if (text !== null) put(cells[place], String(text));
  });
}

const VERSION = [["Version", "code"], ["State", "state"], ["App", ""], ["Since", ""], ["Why", "why"]];

function updateVersion(element, version) {
  const cells = element.cells;
  put(cells[0], short(version.version));
  setState(element, cells[1], version.state.replaceAll("_", " "), STANDINGS[version.state]);
  put(cells[2], [version.app, version.app_version].filter(Boolean).join(" ") || "–");
  put(cells[3], new Date(version.since).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
  put(cells[4], version.reason ?? "");
}

function makeRestart() {
  const made = document.createElement("li");
  const what = document.createElement("p");
  what.className = "what";
  for (const className of ["state", "by", "when"]) {
    const part = document.createElement("span");
    part.className = className;
    what.append(part);
  }
  const detail = document.createElement("p");
  detail.className = "detail";
  made.append(what, detail);
  return made;
}

function updateRestart(element, verdict) {
  const [state, by, when] = element.querySelectorAll("span");
  const look = verdict.reason === null ? ["●", "good"] : verdict.verdict.startsWith("refused") ? ["◔", "busy"] : ["✕", "alarm"];
  setState(element, state, `${verdict.request} ${verdict.verdict}`, look);
  const unchanged = verdict.unchanged ? ", unchanged" : "";
  put(by, `generation ${verdict.generation} ${verdict.reason === null ? "is" : "stays"} active${unchanged}`);
  const at = new Date(verdict.time);
  put(when, `${verdict.by}, took ${duration(verdict.took_ms)}, ${ago(at, clock)}`);
  when.title = at.toLocaleString();
  // The reason is said above.
  const { reason, detail } = verdict;
  put(element.lastElementChild, (detail ?? "").replace(reason ?? "", "").replace(/^: /, ""));
}

let started = false;
let clock = 0;
let last = null;
let rate = null;
// How busy each process is, in per cent of a processor.
const load = new Map();

// What can only be said of two moments.
function compare(now) {
  const elapsed = last ? now.now - last.now : 0;
  if (last && last.pid !== now.pid) {
    last = null;
    rate = null;
  }
  // Events that come together would say nothing of a second.
  if (last && elapsed < 900) return;
  if (last) {
    rate = ((now.totals.requests - last.totals.requests) * 1000) / elapsed;
    const before = new Map(last.workers.map((worker) => [worker.pid, worker.cpu_ms]));
    load.clear();
    for (const { pid, cpu_ms } of now.workers) {
      if (cpu_ms !== null && before.get(pid) != null) load.set(pid, ((cpu_ms - before.get(pid)) * 100) / elapsed);
    }
  }
  last = now;
}

function progress(now) {
  const restarts = ["preflight", "rolling", "returning"].includes(now.phase);
  $("progress").hidden = !restarts;
  if (!restarts) return;
  const newest = Math.max(now.generation, ...now.workers.map((worker) => worker.generation));
  const to = now.phase === "returning" ? now.generation : newest;
  const ready = now.workers.filter((worker) => worker.generation === to && worker.state === "ready").length;
  const all = Math.max(now.workers_configured, 1);
  const steps = {
    preflight: "A restart is in flight: what is new is looked at, nothing is touched yet.",
    rolling: `A restart is in flight: generation ${to} takes over, ${ready} of ${all} workers serve.`,
    returning: `A restart has failed: generation ${to} takes back, ${ready} of ${all} workers serve.`,
  };
  put($("step"), steps[now.phase]);
  $("bar").max = all;
  $("bar").value = now.phase === "preflight" ? 0 : ready;
}

function update(now) {
  compare(now);
  clock = now.now;
  const [phase, look] = PHASES[now.phase] ?? [now.phase, ""];
  put($("phase"), phase);
  $("phase").className = `badge ${look}`;
  document.title = `${phase} – ${now.app}`;
  put($("app"), now.app);
  put($("app-version"), now.app_version);
  show("locked", now.phase === "locked" && "A restart failed. Restart the master as soon as possible: until then restarts are refused and no worker is respawned.");
  progress(now);
  put($("workers-ready"), String(now.serving));
  put($("slots"), `for ${now.workers_configured} slots`);
  put($("generation"), String(now.generation));
  put($("version"), short(now.version));
  put($("rate"), rate === null ? "–" : number.format(Math.max(0, Math.round(rate))));
  put($("in-flight"), number.format(now.workers.reduce((sum, worker) => sum + worker.in_flight, 0)));
  put($("uptime"), duration(now.uptime_ms));
  const workers = [...now.workers].sort((a, b) => a.slot - b.slot || a.generation - b.generation || a.pid - b.pid);
  keep($("workers").tBodies[0], workers, (it) => `${it.slot} ${it.generation} ${it.pid}`, () => row(WORKER), updateWorker);
  const { complete, refused, failed, respawns, requests, cut, errors } = now.totals;
  put($("counts"), `${complete} complete, ${refused} refused, ${failed} failed; ${respawns} respawns.`);
  keep($("restarts"), now.verdicts, (it) => it.request, makeRestart, updateRestart);
  keep($("versions").tBodies[0], now.versions, (it) => `${it.version} ${it.config} ${it.state}`, () => row(VERSION), updateVersion);
  put($("master"), `Since the master started: ${number.format(requests)} requests, ${number.format(errors)} answered 5xx, ${number.format(cut)} cut. Master ${now.pid}, app-host ${now.app_host}, magic ${now.magic}.`);
  started = true;
}

let quiet;
function hear(trouble) {
  clearTimeout(quiet);
  show("connection", trouble);
  document.body.classList.toggle("stale", Boolean(trouble));
  if (!trouble) quiet = setTimeout(() => hear("Nothing was heard for a while: what is shown is old."), QUIET);
}

function listen() {
  const events = new EventSource("events");
  events.onmessage = ({ data }) => {
    hear("");
    update(JSON.parse(data));
  };
  events.addEventListener("silent", () => hear("The master doesn't answer: what is shown is old."));
  events.onerror = () => {
    hear("The connection is lost: what is shown is old. Trying again.");
    // Refused, which a browser takes for good.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}
listen();
