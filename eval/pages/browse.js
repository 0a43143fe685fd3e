"use strict";
// What all views share. The address after # holds the view and what was asked, so that reloading,
// going back and sending the address to oneself work. Text of strangers only ever becomes text.
const $ = (id) => document.getElementById(id);
const views = {};  // name -> function of the address' parameters
let about = null, flagged = new Set();

/** An element: make("p", {class: "x", onclick: f}, "text", child). */
function make(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text of a stranger: its direction is its own and ends with it. */
const theirs = (text, properties) => make("bdi", {dir: "auto", ...properties}, String(text ?? ""));

/** The same with characters that can't be seen written out. */
function visible(text) {
  const out = theirs("", {});
  for (const part of String(text ?? "").split(/([\u0000-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff])/)) {
    const hidden = part.length === 1 && /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u206f\ufeff]/.test(part);
    out.append(hidden ? make("mark", {}, "U+" + part.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()) : part);
  }
  return out;
}

const number = (n) => n === null || n === undefined ? "" : Number(n).toLocaleString("en");
const plural = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;
const took = (seconds) => seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;

async function post(action, body) {
  const reply = await fetch("/" + action, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body || {}),
  });
  const type = reply.headers.get("Content-Type") || "";
  const answer = type.startsWith("application/json") ? await reply.json() : {};
  if (!reply.ok) throw new Error(answer.error || `the page's server answered ${reply.status}; is the picture too large, or was wit browse started anew?`);
  return answer;
}

/** Run something that asks the server; a mistake stands on top of the page. */
async function run(work) {
  $("error").textContent = "";
  document.body.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    $("error").textContent = error instanceof TypeError ? "wit browse does not answer: is it still running?" : error.message;
    return null;
  } finally {
    document.body.removeAttribute("aria-busy");
  }
}

/** Address of a view, e.g. go("search", {q: "dog"}). Values that are lists are repeated. */
function address(view, values) {
  const params = new URLSearchParams({view});
  for (const [name, value] of Object.entries(values || {})) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) params.append(name, one);
  }
  return "#" + params;
}

function go(view, values) {
  const next = address(view, values);
  if (location.hash === next) route();
  else location.hash = next;
}

function route() {
  const params = new URLSearchParams(location.hash.slice(1));
  const view = params.get("view") in views ? params.get("view") : "search";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if ($("detail").open) $("detail").close();
  $("error").textContent = "";
  views[view](params);
}

/** Bytes of a file as base64. */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",")[1] || "");
    reader.onerror = () => reject(new Error("the file can't be read"));
    reader.readAsDataURL(file);
  });
}

/** Draw a file into a canvas, whole; formats that this browser can't show leave it empty. */
async function draw(file, canvas) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    pen.drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  } catch { /* the server may still read it */ }
}

/** Let a picture be dropped on an element. */
function droppable(target, take) {
  target.addEventListener("dragover", (event) => { event.preventDefault(); target.classList.add("over"); });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

function showFlags(answer) {
  $("flags").textContent = number(answer.flags);
  $("flags-file").textContent = answer.file;
  $("command").textContent = answer.command;
}

async function flag(value, on, button) {
  const answer = await run(() => post("flag", {value, on}));
  if (!answer) return;
  if (on) flagged.add(value); else flagged.delete(value);
  showFlags(answer);
  for (const other of document.querySelectorAll("button.flag")) {
    if (other.dataset.value === value) pressed(other, on);
  }
  button.focus();
}

function pressed(button, on) {
  button.setAttribute("aria-pressed", on);
  button.textContent = on ? "Flagged" : "Flag";
  button.closest(".card")?.classList.toggle("marked", on);
}

function flagButton(value) {
  const button = make("button", {type: "button", class: "flag", "data-value": value,
    "aria-label": "flag for removal",
    onclick: () => flag(value, button.getAttribute("aria-pressed") !== "true", button)});
  pressed(button, flagged.has(value));
  return button;
}

/** A pair in a list. */
function card(pair) {
  const kept = pair.verdict === "kept";
  const picture = pair.key
    ? make("img", {src: "/picture/" + encodeURIComponent(pair.key), alt: "", loading: "lazy"})
    : make("span", {class: "none"}, "no picture: ", pair.reason || "dropped");
  const caption = (pair.text || pair.raw_text || "").slice(0, 400);
  const flagger = flagButton(pair.uid);
  const node = make("li", {class: flagged.has(pair.uid) ? "card marked" : "card", "data-row": pair.row},
    make("button", {type: "button", class: "open", "aria-label": "open: " + caption.slice(0, 120), onclick: () => openPair(pair.row)}, picture),
    make("p", {class: "text"}, theirs(caption || "(no caption)")),
    make("div", {class: "foot"},
      make("span", {class: kept ? "badge" : "badge bad"}, kept ? "kept" : pair.reason),
      pair.cosine === null || pair.cosine === undefined ? null : make("span", {title: "cosine"}, pair.cosine.toFixed(3)),
      pair.key && about.checkpoint ? make("a", {class: "end", href: address("search", {mode: "like", key: pair.key})}, "alike") : make("span", {class: "end"}),
      flagger));
  return node;
}

window.addEventListener("hashchange", route);
window.addEventListener("DOMContentLoaded", () => run(async () => {
  about = await post("about");
  document.body.classList.toggle("no-model", !about.checkpoint);
  for (const note of document.querySelectorAll(".needs-model")) note.hidden = Boolean(about.checkpoint);
  document.title = `wit browse ${about.corpus}`;
  $("corpus").textContent = about.corpus;
  $("counts").textContent = `· ${number(about.kept)} of ${plural(about.rows, "row")} kept`;
  if (about.checkpoint) $("checkpoint").textContent = `Model: ${about.checkpoint.name}${about.checkpoint.step ? `, ${number(about.checkpoint.step)} steps` : ""}.`;
  showFlags(about);
  setUpSearch();
  setUpPanels();
  route();
  document.body.dataset.ready = "yes";
}));
