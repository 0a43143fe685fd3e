"use strict";
// One question after the other; the server keeps every answer before it gives the next.
const $ = (id) => document.getElementById(id);
let person = "", question = null, shown = 0, busy = false;

async function post(action, body) {
  const reply = await fetch("/" + action, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

async function step(action, body) {
  if (busy) return;
  busy = true;
  $("error").textContent = "";
  try {
    show(await post(action, body));
  } catch (error) {
    $("error").textContent = "Not saved: " + error.message;
  }
  busy = false;
}

function show(next) {
  question = next;
  document.body.dataset.question = next.done ? "done" : next.id;
  $("start").hidden = true;
  $("question").hidden = Boolean(next.done);
  $("end").hidden = !next.done;
  if (next.done) return;
  $("progress").textContent = `${next.shots} sample pictures of each class; ${next.left} to go`;
  $("check").hidden = next.check === null;
  $("check").textContent = next.check === null ? "" : `No picture this time: choose "${next.check}".`;
  $("picture").hidden = next.picture === null;
  if (next.picture !== null) $("picture").src = "/picture/" + next.picture;
  $("choices").replaceChildren(...next.classes.map((name, i) => {
    const button = document.createElement("button");
    for (const sample of next.samples[i]) {
      const image = document.createElement("img");
      image.src = "/picture/" + sample;
      image.alt = "";
      button.append(image);
    }
    button.append(name);
    button.addEventListener("click", () => answer(next.order[i]));
    return button;
  }));
  shown = performance.now();
  window.scrollTo(0, 0);
}

function answer(said) {
  step("answer", {person, id: question.id, said, seconds: (performance.now() - shown) / 1000});
}

$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  person = $("person").value.trim();
  if (person) step("next", {person});
});
$("unknown").addEventListener("click", () => answer(null));
