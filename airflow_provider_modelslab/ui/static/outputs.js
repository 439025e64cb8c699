// The page: asks Airflow what there is, again and again while something runs, and keeps the sheet up to date.

import { ApiError, taskInstances, xcomEntries, xcomValue } from "./api.js";
import * as sheet from "./cards.js";
import { element } from "./elements.js";
import * as large from "./large.js";
import { cardsOf } from "./records.js";

const REFRESH_SECONDS = 3;
const REQUESTS_AT_A_TIME = 6;
const KEYS = ["jobs", "manifest", "files"];
const OUR_OPERATORS = ["ModelsLabGenerateOperator", "ModelsLabJobSensor", "ModelsLabPickOperator", "@task.modelslab"];
const FINAL_STATES = ["success", "failed", "skipped", "upstream_failed", "removed"];
const FILTERS = {
  all: () => true,
  failed: (card) => card.status === "failed",
  unfinished: (card) => card.status === "waiting",
};

const params = new URLSearchParams(location.search);
const place = {
  dagId: params.get("dag_id"),
  // Airflow 3.1 puts the "+" of a run's id into the address as it is.
  runId: params.get("run_id").replaceAll(" ", "+"),
  taskId: params.get("task_id"),
  mapIndex: /^\d+$/.test(params.get("map_index") ?? "") ? Number(params.get("map_index")) : -1,
};

const tasksNode = document.getElementById("tasks");
const notice = document.getElementById("notice");
const values = new Map(); // task instance and key of an XCom -> { timestamp, value }
const sections = new Map(); // task id -> section
let instances = [];
let cards = [];
let chosen = "all";
let loading = false;

const keyOf = (taskId, mapIndex) => `${taskId} ${mapIndex}`;
const isFinal = (instance) => FINAL_STATES.includes(instance.state);
const seconds = (date) => (date ? Date.parse(date) / 1000 : null);

// --- asking -----------------------------------------------------------------------------------------------

async function refresh() {
  const entries = new Map();
  const [found, listed] = await Promise.all([taskInstances(place), xcomEntries(place, KEYS)]);
  for (const entry of listed) entries.set(`${keyOf(entry.task_id, entry.map_index)} ${entry.key}`, entry);
  instances = found;
  for (const key of values.keys()) if (!entries.has(key)) values.delete(key);
  const changed = [...entries].filter(([key, entry]) => values.get(key)?.timestamp !== entry.timestamp);
  loading = changed.length > 0;
  render();
  const next = changed.values();
  const work = async () => {
    for (const [key, entry] of next) {
      values.set(key, { timestamp: entry.timestamp, value: await xcomValue(entry) });
      renderSoon();
    }
  };
  await Promise.all(Array.from({ length: REQUESTS_AT_A_TIME }, work));
  loading = false;
  render();
}

async function watch() {
  for (;;) {
    const started = performance.now();
    try {
      await refresh();
      notice.classList.remove("trouble");
      if (instances.length && instances.every(isFinal)) return;
    } catch (error) {
      if (error instanceof ApiError && [401, 403].includes(error.status)) {
        say(error.status === 401 ? "Your session has ended. Log in to Airflow, then open this page again." : "You may not read the XComs of this DAG.", true);
        return;
      }
      say(error instanceof ApiError && error.status === 404 ? "Airflow knows no such task or run." : "Airflow does not answer. Trying again …", true);
    }
    // A large run takes a while to ask for: then it is asked for less often.
    const pause = Math.max(REFRESH_SECONDS * 1000, 2 * (performance.now() - started));
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

function say(text, trouble = false) {
  if (notice.textContent !== text) notice.textContent = text;
  notice.classList.toggle("trouble", trouble);
  notice.hidden = !text;
}

// --- showing ----------------------------------------------------------------------------------------------

let renderTimer = null;

function renderSoon() {
  renderTimer ??= setTimeout(render, 150);
}

function cardsOfInstance(instance) {
  const key = keyOf(instance.task_id, instance.map_index);
  const [jobs, manifest, files] = KEYS.map((name) => values.get(`${key} ${name}`));
  return cardsOf({
    key,
    taskId: instance.task_id,
    mapIndex: instance.map_index,
    mapLabel: instance.rendered_map_index,
    started: seconds(instance.start_date),
    finished: isFinal(instance),
    jobs: jobs?.value,
    manifest: manifest?.value,
    files: files?.value,
    pushed: seconds((jobs ?? manifest)?.timestamp),
  });
}

function render() {
  clearTimeout(renderTimer);
  renderTimer = null;
  const tasks = new Map();
  const sorted = [...instances].sort((a, b) => (seconds(a.start_date) ?? Infinity) - (seconds(b.start_date) ?? Infinity));
  for (const instance of sorted) {
    const task = tasks.get(instance.task_id) ?? { instances: [], cards: [] };
    tasks.set(instance.task_id, task);
    task.instances.push(instance);
  }
  for (const [taskId, task] of tasks) {
    task.instances.sort((a, b) => a.map_index - b.map_index);
    task.cards = task.instances.flatMap(cardsOfInstance);
    const ours = task.instances.some((instance) => OUR_OPERATORS.includes(instance.operator_name ?? instance.operator));
    if (!task.cards.length && !ours && place.taskId === null) tasks.delete(taskId);
  }
  cards = [...tasks.values()].flatMap((task) => task.cards);
  sheet.forget(new Set(cards.map((card) => card.key)));
  for (const [taskId, section] of sections) {
    if (tasks.has(taskId)) continue;
    section.remove();
    sections.delete(taskId);
  }
  [...tasks].forEach(([taskId, task], index) => renderTask(taskId, task, index));
  renderOverview();
  applyFilter();
  large.refresh();
}

function renderTask(taskId, task, index) {
  let section = sections.get(taskId);
  if (!section) {
    section = document.getElementById("task-template").content.cloneNode(true).firstElementChild;
    section.querySelector(".task").textContent = taskId;
    section.querySelector(".sheet").setAttribute("aria-label", `Outputs of ${taskId}`);
    sections.set(taskId, section);
  }
  section.querySelector("h2").hidden = place.taskId !== null;
  section.querySelector(".state").textContent = stateOf(task.instances);
  section.style.setProperty("--cards", Math.max(task.cards.length, 1));
  const hint = section.querySelector(".hint");
  const text = task.cards.length ? "" : emptyText(task.instances);
  if (hint.textContent !== text) hint.textContent = text;
  hint.hidden = !text;
  sheet.show(section.querySelector(".sheet"), task.cards, place, large.open);
  if (tasksNode.children[index] !== section) tasksNode.insertBefore(section, tasksNode.children[index] ?? null);
}

function stateOf(instances) {
  const counts = new Map();
  for (const { state } of instances) counts.set(state ?? "not started", (counts.get(state ?? "not started") ?? 0) + 1);
  if (instances.length === 1) return [...counts.keys()][0].replaceAll("_", " ");
  return [...counts].map(([state, count]) => `${count} ${state.replaceAll("_", " ")}`).join(", ");
}

function emptyText(instances) {
  if (loading) return "Loading …";
  if (!instances.every(isFinal)) return "Nothing yet: the task tells of its jobs as soon as they are submitted.";
  return "No outputs: the task has ended without any job.";
}

function renderOverview() {
  const jobs = cards.filter((card) => card.index === 0);
  const count = (status) => jobs.filter((card) => card.status === status).length;
  const [done, failed, waiting] = ["done", "failed", "waiting"].map(count);
  const noun = jobs.length === 1 ? "job" : "jobs";
  const parts = [`${done} of ${jobs.length} ${noun} done`];
  if (failed) parts.push(`${failed} failed`);
  if (waiting) parts.push(`${waiting} unfinished`);
  const summary = document.getElementById("summary");
  const text = parts.join(" · ");
  if (summary.textContent !== text) summary.textContent = text;
  document.getElementById("overview").hidden = !jobs.length;
  document.getElementById("done").style.width = `${(100 * done) / jobs.length}%`;
  document.getElementById("lost").style.width = `${(100 * failed) / jobs.length}%`;
  for (const [name, matches] of Object.entries(FILTERS))
    document.querySelector(`[data-filter=${name}] span`).textContent = cards.filter(matches).length;
  tasksNode.setAttribute("aria-busy", String(loading));
}

function applyFilter() {
  sheet.filter(FILTERS[chosen]);
  const none = cards.length > 0 && !cards.some(FILTERS[chosen]);
  if (none) say(chosen === "failed" ? "Nothing has failed." : "Everything is finished.");
  else say(instances.length && !sections.size && !loading ? "This run has no tasks of ModelsLab." : "");
}

function renderWhere() {
  const airflow = `../dags/${encodeURIComponent(place.dagId)}/runs/${encodeURIComponent(place.runId)}`;
  const whole = new URLSearchParams({ dag_id: place.dagId, run_id: place.runId });
  const node = document.getElementById("where");
  const link = (text, href, name = "up") => node.append(element("a", { text, href, class: name }));
  link(place.dagId, `../dags/${encodeURIComponent(place.dagId)}`);
  link(place.runId, airflow);
  if (place.taskId !== null) {
    const mapped = place.mapIndex < 0 ? "" : `/mapped/${place.mapIndex}`;
    const label = place.mapIndex < 0 ? place.taskId : `${place.taskId} [${place.mapIndex}]`;
    link(label, `${airflow}/tasks/${encodeURIComponent(place.taskId)}${mapped}`);
    link("All outputs of this run", `outputs?${whole}`, "whole");
  }
  // Airflow's own page around the frame says where it is.
  document.documentElement.classList.toggle("framed", parent !== window);
  document.title = `Outputs – ${place.taskId ?? place.runId} – ${place.dagId}`;
}

for (const button of document.querySelectorAll("[data-filter]"))
  button.addEventListener("click", () => {
    chosen = button.dataset.filter;
    for (const each of document.querySelectorAll("[data-filter]")) each.setAttribute("aria-pressed", String(each === button));
    applyFilter();
  });

renderWhere();
large.prepare(place, () => cards.filter(FILTERS[chosen]));
setInterval(sheet.tick, 1000);
watch();
