"use strict";
const $ = (id) => document.getElementById(id);
let question = null, busy = false;

async function step(action, body) {
  if (busy) return;
  busy = true;
  $("error").textContent = "";
  try {
    const reply = await fetch("/" + action, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
    });
    const next = await reply.json();
    if (!reply.ok) throw new Error(next.error);
    show(next);
  } catch (error) {
    $("error").textContent = "Not saved: " + error.message;
  }
  busy = false;
}

function show(next) {
  question = next;
  document.body.dataset.question = next.done ? "done" : next.id;
  $("question").hidden = Boolean(next.done);
  $("end").hidden = !next.done;
  if (next.done) {
    $("result").textContent = next.result;
    return;
  }
  $("progress").textContent = `${next.left} to go`;
  $("test").src = "/picture/test-" + next.id;
  $("match").src = "/picture/match-" + next.id;
}

function answer(same) {
  if (question && !question.done) step("answer", {id: question.id, same});
}

$("same").addEventListener("click", () => answer(true));
$("different").addEventListener("click", () => answer(false));
$("skip").addEventListener("click", () => answer(null));
document.addEventListener("keydown", (event) => {
  const said = {s: true, d: false, " ": null};
  if (event.key in said) {
    event.preventDefault();
    answer(said[event.key]);
  }
});
step("next", {});
