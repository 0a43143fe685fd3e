"use strict";
// Search by words, filters, texts, pictures and pairs; the address holds what was asked.
let asked = null, dropped = null, turn = 0;
const NEEDS_NO_VALUE = ["is empty", "is not empty"];

function current() {
  const params = new URLSearchParams(location.hash.slice(1));
  return {
    q: params.get("q") || "", mode: params.get("mode") || "words", key: params.get("key") || "",
    by: params.get("by") || "", target: params.get("target") || "", order: params.get("order") || "",
    verdict: params.get("verdict") ?? "kept", f: params.getAll("f"),
  };
}

function change(values) {
  go("search", {...current(), ...values});
}

function parts(filter) {
  const [column, op, ...value] = filter.split("|");
  return {column, op, value: value.join("|")};
}

function filtersOf(state) {
  const all = state.f.map(parts);
  if (state.verdict !== "all") all.push({column: "verdict", op: "is", value: state.verdict});
  return all;
}

function setUpSearch() {
  const columns = [...about.columns.map((one) => one.column_name), "query", "eval_overlap"];
  $("column").replaceChildren(...columns.map((name) => make("option", {value: name}, name.replaceAll("_", " "))));
  $("column").value = "reason";
  const ops = ["is", "is not", "contains", "at least", "at most", ...NEEDS_NO_VALUE];
  $("op").replaceChildren(...ops.map((name) => make("option", {}, name)));
  const orders = [["", "best first"], ["row", "input order"], ["-similarity", "most similar first"], ["-original_width", "widest first"], ["language_probability", "least sure language first"]];
  $("order").replaceChildren(...orders.map(([value, name]) => make("option", {value}, name)));
  if (!about.checkpoint) for (const option of document.querySelectorAll("option.model")) option.disabled = true;
  const most = Math.max(1, ...about.reasons.map((one) => one.rows));
  $("reasons").replaceChildren(...about.reasons.map((one) => make("li", {}, make("button", {
    type: "button", title: one.meaning, "data-reason": one.reason,
    onclick: (event) => pickReason(one.reason, event.currentTarget.getAttribute("aria-pressed") === "true"),
  }, make("span", {}, one.reason.replaceAll("_", " ")), make("span", {class: "n"}, number(one.rows)),
  make("progress", {max: most, value: one.rows, "aria-hidden": "true"})))));
  if (matchMedia("(max-width: 48rem)").matches) $("dropped").open = false;
  suggest();
  $("column").addEventListener("change", suggest);
  $("op").addEventListener("change", suggest);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    change({q: $("q").value.trim(), mode: $("mode").value, key: "", by: "", target: ""});
  });
  $("verdict").addEventListener("change", () => change({verdict: $("verdict").value || "all"}));
  $("order").addEventListener("change", () => change({order: $("order").value}));
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    addFilter(`${$("column").value}|${$("op").value}|${$("value").value}`);
  });
  $("more").addEventListener("click", () => find(asked, $("results").children.length));
  $("picture").addEventListener("change", () => byPicture($("picture").files[0]));
  droppable($("search"), byPicture);
  $("target").addEventListener("change", () => change({target: $("target").value}));
  $("no-picture").addEventListener("click", () => { dropped = null; change({mode: "words", target: ""}); });
}

function pickReason(reason, off) {
  const state = current();
  const rest = state.f.filter((one) => !one.startsWith("reason|"));
  if (off) change({f: rest, verdict: "kept"});
  else change({f: [...rest, `reason|is|${reason}`], verdict: "dropped", mode: "words", key: "", q: ""});
}

function addFilter(filter) {
  const {f} = current();
  $("add").open = false;
  $("value").value = "";
  change({f: [...f.filter((one) => one !== filter), filter]});
}

function suggest() {
  const name = $("column").value;
  const related = {query: "a query that occurs in the caption", eval_overlap: "an evaluation set that holds the same picture"};
  const column = about.columns.find((one) => one.column_name === name);
  $("meaning").textContent = column ? column.meaning : related[name];
  $("values").replaceChildren(...(about.suggestions[name] || []).map((value) => make("option", {value})));
  $("value").disabled = NEEDS_NO_VALUE.includes($("op").value);
  $("op").disabled = name in related;
  if (name in related) $("op").value = "is";
}

async function byPicture(file) {
  if (!file || !about.checkpoint) return;
  $("picture").value = "";
  dropped = {data: await base64(file), file};
  change({mode: "image", key: "", by: "", q: "", order: ""});
}

views.search = (params) => {
  const state = current();
  if (state.mode === "image" && !dropped) return change({mode: "words"});
  asked = state;
  $("q").value = state.q;
  $("mode").value = state.mode === "text" ? "text" : "words";
  $("verdict").value = state.verdict === "all" ? "" : state.verdict;
  $("order").value = state.order;
  $("order").disabled = state.mode !== "words";
  $("target").value = state.target || "images";
  $("asked-picture").hidden = state.mode !== "image";
  if (state.mode === "image") draw(dropped.file, $("asked-picture").querySelector("canvas"));
  $("chips").replaceChildren(...state.f.map((filter) => {
    const {column, op, value} = parts(filter);
    return make("button", {type: "button", class: "chip", "aria-label": `remove filter ${column} ${op} ${value}`,
      onclick: () => change({f: state.f.filter((one) => one !== filter)})}, `${column.replaceAll("_", " ")} ${op} `, theirs(value), " ×");
  }));
  for (const button of document.querySelectorAll("#reasons button")) {
    button.setAttribute("aria-pressed", state.f.includes(`reason|is|${button.dataset.reason}`));
  }
  return find(state, 0);
};

async function find(state, offset) {
  const mine = ++turn;
  const request = {mode: state.mode, text: state.q, filters: filtersOf(state), offset, order: state.order ? [state.order] : []};
  if (state.mode === "words" || state.mode === "text") request.text = state.q;
  if (state.mode === "text" && !state.q) return;
  if (state.mode === "like") Object.assign(request, {key: state.key, by: state.by, target: state.target});
  if (state.mode === "image") Object.assign(request, {picture: dropped.data, target: state.target});
  const answer = await run(() => post("search", request));
  if (mine !== turn) return;  // a later search was faster
  if (!answer) {
    if (!offset) { $("results").replaceChildren(); $("status").textContent = ""; $("more").hidden = true; }
    return;
  }
  flagged = new Set(answer.flagged);
  if (!offset) $("results").replaceChildren();
  $("results").append(...answer.pairs.map(card));
  const shown = $("results").children.length;
  const kinds = {words: "", text: "nearest to the text", image: "nearest to the picture", like: state.by ? "nearest to the caption" : "nearest to the pair"};
  $("status").textContent = answer.total === null ? `The ${plural(shown, "pair")} ${kinds[state.mode]}, ${took(answer.seconds)}`
    : `${plural(answer.total, "pair")}, ${took(answer.seconds)}`;
  if (!shown) $("status").textContent = "Nothing found. Fewer words or filters find more.";
  $("more").hidden = answer.total === null ? answer.pairs.length < about.page : shown >= answer.total;
  document.body.dataset.found = `${mine}`;
}
