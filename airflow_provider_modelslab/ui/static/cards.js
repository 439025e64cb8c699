// The contact sheet: one card per output, changed in place so that nothing flickers, jumps or stops playing.

import { clockOffset } from "./api.js";
import { element, mediaOf } from "./elements.js";
import { age, duration, facts, label, title } from "./records.js";

const template = document.getElementById("card-template").content;
const shown = new Map(); // key of a card -> { node, card, media, text }

export const now = () => Date.now() / 1000 + clockOffset;

export function placeOf(card) {
  if (card.status !== "done" || card.output === null) return "";
  if (card.path !== null) return card.path;
  if (card.kind === "text") return "";
  const since = card.submitted ?? card.pushed;
  return `Not stored: the URL may expire${since ? ` (${age(now() - since)}\u00a0old)` : ""}`;
}

export function waitOf(card) {
  if (!card.watched) return { left: "Not finished", waited: "when the task ended" };
  if (!card.id) return { left: "Not submitted yet", waited: "" };
  const since = card.submitted ?? card.started;
  const waited = since ? `waited ${duration(now() - since)}` : "";
  if (card.eta === null) return { left: "In progress", waited };
  const left = (card.submitted ?? card.pushed ?? now()) + card.eta - now();
  return { left: left > 1 ? `about ${duration(left)} left` : "any moment now", waited };
}

function waiting(card) {
  const wait = waitOf(card);
  return element("p", { class: "blank waiting" }, element("b", { text: wait.left }), element("span", { text: wait.waited }));
}

function mediaNode(card, place) {
  if (card.status === "failed") return element("p", { class: "blank reason", text: card.message || "Failed without a reason" });
  if (card.status === "waiting") return waiting(card);
  if (card.output === null) return element("p", { class: "blank", text: "Done, without an output" });
  return mediaOf(card, place, label(card), false);
}

function update(entry, card, place) {
  const media = JSON.stringify([card.status, card.output, card.path, card.kind, card.message]);
  entry.card = card;
  if (entry.media !== media) {
    entry.media = media;
    entry.node.dataset.status = card.status;
    entry.node.dataset.kind = card.kind;
    entry.node.querySelector(".media").replaceChildren(mediaNode(card, place));
  }
  const known = facts(card).join(" · ");
  const text = JSON.stringify([title(card), card.prompt, known, placeOf(card), card.unsafe]);
  if (entry.text === text) return;
  entry.text = text;
  const open = entry.node.querySelector(".open");
  open.replaceChildren(element("b", { text: title(card) }));
  open.setAttribute("aria-label", `Open ${label(card)}`);
  if (card.prompt && card.prompt !== title(card)) open.append(element("span", { text: card.prompt }));
  entry.node.querySelector(".facts").textContent = known;
  if (card.unsafe) entry.node.querySelector(".facts").append(element("em", { text: "flagged as unsafe" }));
  const where = entry.node.querySelector(".place");
  where.textContent = placeOf(card);
  where.title = card.path ?? "";
  where.classList.toggle("path", card.path !== null);
}

// Let a list hold the cards given, in their order.
export function show(list, cards, place, onOpen) {
  cards.forEach((card, index) => {
    let entry = shown.get(card.key);
    if (!entry) {
      const node = template.cloneNode(true).firstElementChild;
      entry = { node };
      shown.set(card.key, entry);
      node.querySelector(".open").addEventListener("click", () => onOpen(entry.card));
    }
    update(entry, card, place);
    if (list.children[index] !== entry.node) list.insertBefore(entry.node, list.children[index] ?? null);
  });
  while (list.children.length > cards.length) list.lastElementChild.remove();
}

export function forget(keys) {
  for (const key of shown.keys()) if (!keys.has(key)) shown.delete(key);
}

export function focusOn(card) {
  shown.get(card.key)?.node.querySelector(".open").focus();
}

export function filter(matches) {
  for (const { node, card } of shown.values()) node.hidden = !matches(card);
}

// Once a second: only the texts of what waits.
export function tick() {
  for (const { node, card } of shown.values()) {
    if (card.status !== "waiting") continue;
    const wait = waitOf(card);
    const [left, waited] = node.querySelectorAll(".waiting > *");
    if (left.textContent !== wait.left) left.textContent = wait.left;
    if (waited.textContent !== wait.waited) waited.textContent = wait.waited;
  }
}
