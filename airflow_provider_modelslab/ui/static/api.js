// Airflow's public REST API, asked with the visitor's own session.

const API = new URL("../api/v2/", location.href);
const PAGE_SIZE = 100;

export class ApiError extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
  }
}

// Seconds that this browser's clock is behind Airflow's.
export let clockOffset = 0;

async function get(path, query = {}) {
  const url = new URL(path, API);
  url.search = new URLSearchParams(query);
  // Airflow 3.0 keeps the session in the browser's storage; later ones in a cookie.
  const token = localStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const reply = await fetch(url, { headers, credentials: "same-origin", redirect: "error" });
  if (!reply.ok) throw new ApiError(reply.status);
  const date = Date.parse(reply.headers.get("Date"));
  if (date) clockOffset = date / 1000 - Date.now() / 1000;
  return reply.json();
}

async function all(path, field, query = {}) {
  const found = [];
  for (;;) {
    const page = await get(path, { ...query, limit: PAGE_SIZE, offset: found.length });
    found.push(...page[field]);
    if (!page[field].length || found.length >= page.total_entries) return found;
  }
}

const segment = encodeURIComponent;
const run = (place) => `dags/${segment(place.dagId)}/dagRuns/${segment(place.runId)}/taskInstances`;

// The task instances of a run, of one of its tasks, or one of a mapped task.
export async function taskInstances(place) {
  if (place.taskId === null) return all(run(place), "task_instances");
  const task = `${run(place)}/${segment(place.taskId)}`;
  if (place.mapIndex >= 0) return [await get(`${task}/${place.mapIndex}`)];
  try {
    return [await get(task)];
  } catch (error) {
    if (error.status !== 404) throw error;
    return all(`${task}/listMapped`, "task_instances");
  }
}

// Which XComs there are, without their values.
export async function xcomEntries(place, keys) {
  const task = place.taskId === null ? "~" : segment(place.taskId);
  const query = place.taskId !== null && place.mapIndex >= 0 ? { map_index: place.mapIndex } : {};
  const path = `${run(place)}/${task}/xcomEntries`;
  const lists = await Promise.all(keys.map((key) => all(path, "xcom_entries", { ...query, xcom_key: key })));
  return lists.flat();
}

export async function xcomValue(entry) {
  const place = { dagId: entry.dag_id, runId: entry.run_id };
  const path = `${run(place)}/${segment(entry.task_id)}/xcomEntries/${segment(entry.key)}`;
  try {
    return (await get(path, { map_index: entry.map_index })).value;
  } catch (error) {
    if (error.status === 404) return null; // The task has begun again meanwhile.
    throw error;
  }
}
