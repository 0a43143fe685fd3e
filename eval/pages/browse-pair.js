"use strict";
// One pair with all that is known of it, and why it was kept or dropped.

function link(url) {
  let safe = null;
  try {
    const parsed = new URL(url);
    if (parsed.protocol === "http:" || parsed.protocol === "https:") safe = parsed.href;
  } catch { /* no address */ }
  return safe ? make("a", {href: safe, target: "_blank", rel: "noreferrer noopener", dir: "ltr"}, theirs(url)) : visible(url);
}

/** Stage, reason, threshold, what was measured, and what stayed instead. */
function verdict(why, kept, queries, lead = "Dropped by ", gone = []) {
  const box = make("div", {class: why.reason ? "verdict bad" : "verdict"});
  if (!why.reason) {
    box.append(make("p", {}, make("strong", {}, "Kept"), ": it passed every stage."));
    if (gone.length) box.append(make("p", {}, `It stayed in place of ${plural(gone.length, "row")}, for it has ${gone[0].rule}.`));
    return box;
  }
  box.append(make("p", {}, make("strong", {}, lead), make("code", {}, why.stage), ": ", make("code", {}, why.reason)),
    make("p", {}, why.meaning + "."));
  for (const [key, value] of Object.entries(why.limits || {})) {
    box.append(make("p", {}, "Setting ", make("code", {}, key), " = ", theirs(value)));
  }
  if (why.measured) box.append(make("p", {}, "Here: ", theirs(why.measured)));
  if (why.reason === "over_cap" && queries && queries.length) {
    box.append(make("p", {}, "Queries in the caption: ",
      queries.map((one) => `${one.query} (${number(one.matched)} rows)`).join(", ")));
  }
  if (kept) {
    box.append(make("p", {}, "Kept instead, for it has ", why.rule || "precedence",
      kept.distance === undefined ? "" : ` (the hashes differ in ${plural(kept.distance, "bit")})`, ":"), twin(kept));
  }
  return box;
}

function twin(pair) {
  const picture = pair.key ? make("img", {src: "/picture/" + encodeURIComponent(pair.key), alt: ""}) : make("span", {class: "none"}, "no picture");
  return make("div", {class: "twin"}, picture, make("div", {},
    make("div", {}, theirs((pair.text || "").slice(0, 400))), make("div", {}, link(pair.url)),
    make("button", {type: "button", onclick: () => openPair(pair.row)}, "Open it")));
}

const UNITS = {width: "pixels", height: "pixels", original_width: "pixels", original_height: "pixels", bytes: "bytes"};

function facts(rows, meanings) {
  const list = make("dl", {class: "facts"});
  for (const [name, value] of rows) {
    if (value === null || value === undefined || value === "") continue;
    const shown = name === "url" || name === "final_url" ? link(value)
      : typeof value === "number" && UNITS[name] ? `${number(value)} ${UNITS[name]}` : visible(value);
    list.append(make("dt", {title: meanings[name]}, name.replaceAll("_", " ")), make("dd", {}, shown));
  }
  return list;
}

async function openPair(row) {
  const found = await run(() => post("pair", {row}));
  if (!found) return;
  flagged = new Set(found.flagged);
  const {pair} = found;
  const meanings = Object.fromEntries(about.columns.map((one) => [one.column_name, one.meaning]));
  const picture = make("div", {class: "big"}, pair.key
    ? make("img", {src: "/picture/" + encodeURIComponent(pair.key), alt: "picture of the pair"})
    : make("p", {class: "none"}, "The corpus holds no picture of this row."));
  const left = make("div", {}, picture, alike(pair), flags(pair));
  const right = make("div", {},
    make("p", {class: "caption"}, theirs(pair.text ?? "(no caption)")),
    pair.raw_text !== pair.text ? make("p", {}, "As given: ", visible(pair.raw_text)) : null,
    verdict(found.why, found.kept, found.queries, undefined, found.gone));
  if (found.queries.length) {
    right.append(make("h2", {}, "Queries in the caption"), make("ul", {class: "chips"}, ...found.queries.map((one) =>
      make("li", {}, make("a", {class: "chip", href: address("search", {f: `query|is|${one.query}`}), title: `${number(one.kept)} pairs kept of ${number(one.matched)}`}, theirs(one.query))))));
  }
  if (found.gone.length) {
    right.append(make("h2", {}, "Gave way to it"), make("ul", {}, ...found.gone.map((one) => make("li", {},
      make("code", {}, one.reason), " ", theirs((one.text || "").slice(0, 200)), " ", link(one.url), " ",
      make("button", {type: "button", onclick: () => openPair(one.row)}, "Open")))));
  }
  if (found.overlaps.length) {
    right.append(make("h2", {}, "Shows a picture of an evaluation set"), make("ul", {}, ...found.overlaps.map((one) =>
      make("li", {}, `${one.set} ${one.key}: ${one.words}`))));
  }
  const hidden = ["text", "raw_text", "verdict", "reason", "stage"];
  right.append(make("h2", {}, "Provenance"),
    facts(Object.entries(pair).filter(([name]) => !hidden.includes(name)), meanings));
  if (found.fetched) {
    const seen = ["url", "sha256", "reason"];
    right.append(make("h2", {}, "What the server said"), facts(Object.entries(found.fetched).filter(([name]) => !seen.includes(name)), {}));
  }
  const close = make("button", {type: "button", class: "end", onclick: () => $("detail").close()}, "Close");
  $("detail-body").replaceChildren(make("div", {class: "row"}, make("h1", {id: "detail-title"}, `Row ${number(pair.row)}`), close),
    make("div", {class: "two"}, left, right));
  if (!$("detail").open) $("detail").showModal();
  $("detail").scrollTop = 0;
}

function alike(pair) {
  if (!about.checkpoint || !pair.key) return "";
  const to = (text, values) => make("a", {class: "button", href: address("search", {mode: "like", key: pair.key, ...values})}, text);
  return make("div", {}, make("h2", {}, "More like this"), make("div", {class: "row"},
    to("Pictures like it", {}), to("Captions that fit it", {target: "captions"}),
    to("Pictures for its caption", {by: "caption"})));
}

function flags(pair) {
  const list = make("div", {}, make("h2", {}, "Flag for removal"));
  const kinds = [["this pair", pair.uid], ["this picture, wherever it is", pair.sha256],
    [`all of ${pair.domain}`, pair.domain]];
  for (const [name, value] of kinds) {
    if (value) list.append(make("div", {class: "row"}, flagButton(value), theirs(name)));
  }
  return list;
}

$("detail").addEventListener("click", (event) => {
  if (event.target === $("detail")) $("detail").close();
});
