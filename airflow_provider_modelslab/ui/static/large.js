// One output large, with all that is known of it. Arrow keys lead to the others, Escape leads back.

import { focusOn, placeOf, waitOf } from "./cards.js";
import { copy, downloadUrl, element, mediaOf, outsideLink } from "./elements.js";
import { duration, label, numbered, title, webUrl } from "./records.js";

const dialog = document.getElementById("large");
const find = (selector) => dialog.querySelector(selector);
let cards = () => [];
let place = null;
let current = null;
let drawn = "";

export function prepare(where, visibleCards) {
  place = where;
  cards = visibleCards;
  for (const button of dialog.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  find("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    // Within a player the arrows wind, and within a text they scroll.
    if (event.target.closest("video, audio, pre") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      step(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  dialog.addEventListener("close", () => {
    find(".stage").replaceChildren(); // Nothing plays on unseen.
    drawn = "";
    focusOn(current);
  });
}

export function open(card) {
  current = card;
  draw();
  dialog.showModal();
  find("h2").focus();
}

function step(by) {
  const all = cards();
  const at = all.findIndex((card) => card.key === current.key);
  current = all[(at + by + all.length) % all.length] ?? current;
  draw();
}

// Show the newest state of the card, without disturbing what plays.
export function refresh() {
  if (!dialog.open) return;
  current = cards().find((card) => card.key === current.key) ?? current;
  draw();
}

function draw() {
  const all = cards();
  const at = all.findIndex((card) => card.key === current.key);
  find("#large-position").textContent = at < 0 ? "" : `${at + 1} of ${all.length}`;
  const state = JSON.stringify(current);
  if (state === drawn) return;
  drawn = state;
  find(".stage").replaceChildren(stage());
  find("h2").textContent = title(current);
  find(".prompt").textContent = current.prompt === title(current) ? "" : current.prompt;
  find("dl").replaceChildren(...details());
  find(".actions").replaceChildren(...actions());
  find(".copied").textContent = "";
}

function stage() {
  if (current.status === "failed") return element("p", { class: "blank reason", text: current.message || "Failed without a reason" });
  if (current.status === "waiting") return element("p", { class: "blank", text: waitOf(current).left });
  if (current.output === null) return element("p", { class: "blank", text: "Done, without an output" });
  return mediaOf(current, place, label(current), true);
}

function details() {
  const rows = [
    ["State", current.status === "waiting" ? waitOf(current).left : current.status],
    ["Time", current.seconds === null ? "" : duration(current.seconds)],
    ["Endpoint", current.endpoint],
    ["Job", current.id],
    ["Output", numbered(current)],
    ["Task", current.mapIndex < 0 ? current.taskId : `${current.taskId} [${current.mapIndex}]`],
    [current.path === null ? "Storage" : "Stored at", placeOf(current)],
    ["Message", current.status === "failed" ? "" : current.message],
    ["Safety", current.unsafe ? "flagged as unsafe" : ""],
  ];
  return rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]);
}

function actions() {
  const url = webUrl(current.output);
  const download = downloadUrl(current, place);
  return [
    ...(download ? [outsideLink(download, "Download", { download: "" })] : []),
    ...(url ? [outsideLink(url, "Open URL")] : []),
    ...(url ? [copyButton("URL", url)] : []),
    ...(current.path !== null ? [copyButton("path", current.path)] : []),
    ...(current.id ? [copyButton("id", current.id)] : []),
  ];
}

function copyButton(name, value) {
  const button = element("button", { type: "button", text: `Copy ${name}` });
  button.addEventListener("click", async () => {
    await copy(value);
    button.focus();
    find(".copied").textContent = `Copied the ${name}.`;
  });
  return button;
}
