// What XComs say about outputs, as one flat list of cards. Pure: no document, no network, no clock.
//
// An XCom can hold anything: what is not understood is left out, and nothing here throws.

const KINDS = {
  image: ["png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "svg"],
  video: ["mp4", "m4v", "webm", "mov"],
  audio: ["mp3", "wav", "ogg", "flac", "m4a", "aac"],
  text: ["txt", "md", "json", "srt", "vtt"],
};
const KIND_OF_EXTENSION = new Map(Object.entries(KINDS).flatMap(([kind, names]) => names.map((name) => [name, kind])));
const KIND_OF_ENDPOINT = [
  [/video/, "video"],
  [/voice|audio|music|sfx/, "audio"],
  [/3d|blender/, "file"],
  [/image|realtime|interior|enhance|fashion|headshot/, "image"],
];

const list = (value) => (Array.isArray(value) ? value : []);
const object = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});
const text = (value) => (typeof value === "string" ? value : typeof value === "number" ? String(value) : "");
const shown = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value, null, 2) : text(value));
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

// Older Airflows return what JSON there is as text.
function plain(value) {
  for (let depth = 0; depth < 2 && typeof value === "string"; depth += 1) {
    try {
      value = JSON.parse(value);
    } catch {
      return value;
    }
  }
  return value;
}

// The URL if it leads into the web, or null.
export function webUrl(value) {
  try {
    const url = new URL(value);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

function extension(path) {
  return /\.([a-z0-9]{1,5})$/i.exec(path)?.[1].toLowerCase() ?? "";
}

function kindOf(output, path, endpoint) {
  const url = webUrl(output);
  const known = KIND_OF_EXTENSION.get(extension(path ?? "")) ?? KIND_OF_EXTENSION.get(extension(url ? new URL(url).pathname : ""));
  if (known) return known;
  if (!url) return path ? "file" : "text";
  if (extension(new URL(url).pathname)) return "file";
  return KIND_OF_ENDPOINT.find(([pattern]) => pattern.test(endpoint))?.[1] ?? "file";
}

// One record per thing to generate, from the manifest of a batch and the jobs.
function things(jobs, manifest) {
  const records = list(plain(jobs)).map(object).filter((job) => typeof job.endpoint === "string");
  const items = list(object(plain(manifest)).items).map(object);
  if (!items.length) return records.map((job) => ({ job, item: {} }));
  const byId = new Map(records.filter((job) => job.id).map((job) => [text(job.id), job]));
  return items.map((item, index) => {
    const known = item.job_id ? byId.get(text(item.job_id)) : records.length === items.length ? records[index] : null;
    return { job: known ?? {}, item };
  });
}

function statusOf(job, item) {
  const status = text(job.status) || text(item.status);
  return status === "success" ? "done" : status === "failed" ? "failed" : "waiting";
}

function unsafe(value, index) {
  return Array.isArray(value) ? value[index] === true : value === true;
}

// The cards of one task instance: one per output, and one per job without any.
export function cardsOf({ key, taskId, mapIndex, mapLabel, started, finished, jobs, files, manifest, pushed }) {
  const found = things(jobs, manifest);
  const outputs = found.flatMap(({ job, item }) => list(job.outputs ?? item.outputs));
  const paths = list(plain(files));
  let next = 0;
  return found.flatMap(({ job, item }, position) => {
    const payload = object(item.payload);
    const meta = object(job.meta);
    const ownPaths = list(item.files);
    const own = list(job.outputs ?? item.outputs).map(shown);
    const from = next;
    next += own.length;
    const common = {
      taskId,
      mapIndex,
      // A name that is only a position says nothing.
      name: [item.name, mapLabel].map(text).find((name) => /\D/.test(name)) ?? "",
      prompt: [payload.prompt, meta.prompt, payload.text, meta.text].map(text).find(Boolean) ?? "",
      endpoint: text(job.endpoint),
      id: text(job.id) || text(item.job_id),
      message: text(job.message) || text(item.message),
      seconds: number(job.generation_time),
      eta: number(job.eta),
      submitted: number(job.submitted),
      started,
      pushed,
      // A task that has ended watches its jobs no more.
      watched: !finished,
      status: statusOf(job, item),
      count: own.length,
    };
    const name = `${key}#${position}`;
    if (common.status !== "done" || !own.length)
      return [{ ...common, key: name, kind: "none", output: null, path: null, index: 0, unsafe: unsafe(job.nsfw_content_detected, 0) }];
    return own.map((output, index) => {
      const listed = paths.length === outputs.length ? paths[from + index] : ownPaths[index];
      const path = typeof listed === "string" ? listed : null;
      return {
        ...common,
        key: index ? `${name}/${index}` : name,
        kind: kindOf(output, path, common.endpoint),
        output,
        path,
        index,
        unsafe: unsafe(job.nsfw_content_detected, index),
      };
    });
  });
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return seconds > 0 && seconds < 9.95 && seconds % 1 ? `${seconds.toFixed(1)} s` : `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} days`;
}

export function age(seconds) {
  if (seconds < 90) return "a minute";
  if (seconds < 5400) return `${Math.round(seconds / 60)}\u00a0min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)}\u00a0h` : `${Math.round(seconds / 86400)}\u00a0days`;
}

export const title = (card) => card.name || card.prompt || `${card.endpoint} ${card.id}`.trim() || "Output";

export const numbered = (card) => (card.count > 1 ? `${card.index + 1} of ${card.count}` : "");

// What a screen reader calls it.
export const label = (card) => [title(card), numbered(card)].filter(Boolean).join(", ");

export function facts(card) {
  const state = card.status === "waiting" ? "" : card.status;
  const time = card.seconds === null ? "" : duration(card.seconds);
  const mapped = card.mapIndex < 0 ? "" : `[${card.mapIndex}]`;
  return [mapped, numbered(card), state, time, card.endpoint, card.id].filter(Boolean);
}
