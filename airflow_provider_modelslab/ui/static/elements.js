// Small parts of the page. Foreign text only ever becomes text, and foreign URLs only http(s) ones.

import { webUrl } from "./records.js";

const TEXT_BYTES = 20000;
const mediaServed = document.documentElement.dataset.media === "on";

export function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function storedUrl(card, place, more = {}) {
  const url = new URL("media", location.href);
  const query = { dag_id: place.dagId, run_id: place.runId, task_id: card.taskId, map_index: card.mapIndex, path: card.path };
  url.search = new URLSearchParams({ ...query, ...more });
  return url.href;
}

// Where an output can be had, the stored file first, since URLs expire.
export function sourcesOf(card, place) {
  const stored = mediaServed && card.path !== null ? [storedUrl(card, place)] : [];
  const url = webUrl(card.output);
  return url ? [...stored, url] : stored;
}

// Where the browser saves the file instead of showing it: of another site it does so for nobody.
export function downloadUrl(card, place) {
  return mediaServed && card.path !== null ? storedUrl(card, place, { download: true }) : null;
}

// A link that opens outside of the page. Airflow shows the page in a frame from which no link may open a tab, and
// in some versions none may download: then Airflow's own document follows the link.
export function outsideLink(url, text, attributes = {}) {
  const link = element("a", { text, href: url, target: "_blank", rel: "noopener noreferrer", ...attributes });
  link.addEventListener("click", (event) => {
    if (parent === window) return;
    event.preventDefault();
    const same = parent.document.importNode(link, true);
    same.click();
  });
  return link;
}

// Media appear when they come near the visible part of the page.
const nearby = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      nearby.unobserve(target);
      target.dispatchEvent(new Event("nearby"));
    }
  },
  { rootMargin: "600px" },
);

function whenNearby(node, action) {
  node.addEventListener("nearby", action, { once: true });
  nearby.observe(node);
}

function withSources(node, sources, start) {
  const left = [...sources];
  const next = () => {
    const source = left.shift();
    if (source) node.src = source;
    else node.replaceWith(unavailable());
  };
  node.addEventListener("error", next);
  if (start) next();
  else whenNearby(node, next);
  return node;
}

function unavailable() {
  return element("p", { class: "blank", text: "Cannot be shown: the URL may have expired, or is not a picture, video or sound." });
}

// The output itself: in a card, or large.
export function mediaOf(card, place, label, large) {
  const sources = sourcesOf(card, place);
  if (card.kind === "text") return textOf(card, sources);
  if (!sources.length) return element("p", { class: "blank", text: card.path ? "Stored" : "Not a URL that can be shown" });
  if (card.kind === "image") {
    const image = element("img", { alt: label, decoding: "async", referrerpolicy: "no-referrer", loading: large ? "eager" : "lazy" });
    return withSources(image, sources, true);
  }
  if (card.kind === "video") {
    const video = element("video", { controls: "", playsinline: "", preload: "metadata", "aria-label": label });
    return withSources(video, sources, large);
  }
  if (card.kind === "audio") {
    return withSources(element("audio", { controls: "", preload: large ? "metadata" : "none", "aria-label": label }), sources, true);
  }
  const extension = /\.([a-z0-9]{1,8})$/i.exec(card.path ?? new URL(sources[0]).pathname)?.[1] ?? "file";
  return element("p", { class: "blank file", text: `.${extension.toLowerCase()}` });
}

function textOf(card, sources) {
  const box = element("pre", { tabindex: "0", "aria-label": "Text of the output" });
  // A long text stands only in its file, whose path took its place.
  if (!webUrl(card.output) && card.output && card.output !== card.path) box.textContent = card.output;
  else if (mediaServed && card.path !== null) whenNearby(box, () => load(box, sources[0]));
  else box.textContent = "A text: open it to read it.";
  return box;
}

async function load(box, url) {
  try {
    const reply = await fetch(url, { headers: { Range: `bytes=0-${TEXT_BYTES - 1}` }, credentials: "same-origin" });
    box.textContent = reply.ok ? await reply.text() : "The text cannot be read.";
  } catch {
    box.textContent = "The text cannot be read.";
  }
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS a browser offers only the old way.
    const field = element("textarea", { class: "offscreen" });
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
