"use strict";
// Why not, SQL, the model tried on one's own picture, and the removal list.
let table = null, tried = null;

function setUpPanels() {
  $("query").value = about.example.replace(/^--.*\n/gm, "");
  $("tables").replaceChildren(...about.tables.flatMap((one) => [
    make("dt", {}, make("code", {}, one.table_name)), make("dd", {}, one.columns.join(", "))]));
  $("why-form").addEventListener("submit", (event) => {
    event.preventDefault();
    go("why", {url: $("why-url").value.trim(), text: $("why-text").value});
  });
  $("sql-form").addEventListener("submit", (event) => { event.preventDefault(); askSql(); });
  $("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); askSql(); }
  });
  $("csv").addEventListener("click", saveCsv);
  $("tried-file").addEventListener("change", () => take($("tried-file").files[0]));
  droppable($("drop"), take);
  $("try-form").addEventListener("submit", (event) => { event.preventDefault(); classify(); });
}

views.why = (params) => {
  const url = params.get("url") || "", text = params.get("text") || "";
  $("why-url").value = url;
  $("why-text").value = text;
  $("answer").replaceChildren();
  if (!url && !text) return null;
  $("answer").textContent = "Looking it up…";
  return run(async () => {
    try {
      const answer = await post("why", {url, text});
      $("answer").replaceChildren(...whyAnswer(answer, url, text));
    } catch (error) {
      $("answer").replaceChildren();
      throw error;
    }
  });
};

function whyAnswer(answer, url, text) {
  const out = [];
  if (answer.cleaned && answer.cleaned !== text) out.push(make("p", {}, "Cleaned as the pipeline does: ", theirs(answer.cleaned)));
  if (answer.found.length) {
    const kept = answer.found.filter((one) => one.pair.verdict === "kept").length;
    const lead = kept ? "It is in the corpus." : "It was in the input, and was dropped.";
    out.push(make("h2", {}, lead), make("p", {}, `${plural(answer.total, "row")} of the input ${answer.total === 1 ? "has" : "have"} it.`));
    for (const one of answer.found) {
      out.push(make("div", {class: "found"}, make("p", {}, theirs((one.pair.text || one.pair.raw_text || "(no caption)").slice(0, 400)), " ", link(one.pair.url)),
        verdict(one.why, one.kept, one.queries), make("button", {type: "button", onclick: () => openPair(one.pair.row)}, `Open row ${number(one.pair.row)}`)));
    }
    return out;
  }
  const {reason, queries, notes, cap} = answer.verdict;
  out.push(make("h2", {}, "It was not in the input."));
  if (reason) {
    out.push(verdict(answer.verdict, null, null, "It would have been dropped by "));
  } else {
    const rest = text ? `the cap of ${number(cap)} pairs per query, the download and the rules on pictures` : "the rules on its caption, the download and the rules on pictures";
    out.push(make("div", {class: "verdict"}, make("p", {}, `Had it been, it would have passed every rule on ${url && text ? "addresses and captions" : url ? "addresses" : "captions"}; then come ${rest}.`)));
  }
  if (queries.length) out.push(make("p", {}, "Queries in the caption: ", theirs(queries.join(", "))));
  for (const note of notes) out.push(make("p", {}, `Note: ${note}.`));
  if (text) out.push(make("p", {}, make("a", {href: address("search", {q: answer.cleaned.slice(0, 200), verdict: "all"})}, "Search for its words")));
  return out;
}

views.sql = (params) => {
  const query = params.get("query");
  if (query === null) return null;
  $("query").value = query;
  return run(async () => {
    $("sql-status").textContent = "asking…";
    $("sql-result").replaceChildren();
    $("csv").hidden = true;
    try {
      table = await post("sql", {query});
    } catch (error) {
      $("sql-status").textContent = "";
      throw error;
    }
    $("sql-status").textContent = `${plural(table.rows.length, "row")}${table.more ? ", and more that are not shown" : ""}, ${took(table.seconds)}`;
    $("csv").hidden = false;
    const cell = (value) => typeof value === "number" ? make("td", {class: "n"}, number(value)) : make("td", {}, value === null ? "" : theirs(value));
    $("sql-result").replaceChildren(make("table", {},
      make("thead", {}, make("tr", {}, ...table.columns.map((name) => make("th", {scope: "col"}, theirs(name))))),
      make("tbody", {}, ...table.rows.map((row) => make("tr", {}, ...row.map(cell))))));
  });
};

function askSql() {
  go("sql", {query: $("query").value});
}

/** Quoted, and a cell that a spreadsheet would take for a formula is made text. */
function saveCsv() {
  const quote = (value) => {
    const text = value === null ? "" : String(value);
    return `"${(typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;
  };
  const lines = [table.columns, ...table.rows].map((row) => row.map(quote).join(","));
  const saved = make("a", {download: "answer.csv", href: URL.createObjectURL(new Blob([lines.join("\r\n")], {type: "text/csv"}))});
  saved.click();
  URL.revokeObjectURL(saved.href);
}

views.try = () => null;

async function take(file) {
  if (!file) return;
  tried = file;
  $("tried").hidden = false;
  $("drop-text").textContent = file.name;
  await draw(file, $("tried"));
  if ($("labels").value.trim()) classify();
}

function classify() {
  return run(async () => {
    $("shares").replaceChildren();
    if (!tried) throw new Error("drop a picture first");
    const labels = $("labels").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const answer = await post("classify", {picture: await base64(tried), labels, template: $("template").value});
    $("shares").replaceChildren(...answer.labels.map((one) => make("div", {class: "share"},
      theirs(one.label), make("span", {class: "n", title: `cosine ${one.cosine.toFixed(3)}`}, `${(100 * one.probability).toFixed(1)}%`),
      make("progress", {max: 1, value: one.probability, "aria-label": one.label}))));
  });
}

views.flagged = () => run(async () => {
  const answer = await post("flagged");
  flagged = new Set(answer.flagged);
  showFlags(answer);
  $("flagged-none").hidden = answer.flags > 0;
  $("flagged-how").hidden = answer.flags === 0;
  $("flagged-pairs").replaceChildren(...answer.pairs.map(card));
  $("flagged-others").replaceChildren(...answer.others.map((value) => make("li", {class: "chip"}, theirs(value), " ",
    make("button", {type: "button", onclick: async () => { if (await run(() => post("flag", {value, on: false}))) views.flagged(); }}, "take off"))));
});
