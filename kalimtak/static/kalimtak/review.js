// The desk's keys: 1-9 choose a label, a approves, r rejects, s skips, u undoes, g gives the labels chosen.
// They press what is on the page.
"use strict";

const TWICE_MS = 200; // the same key again so soon was meant once
let last = { key: "", at: 0 };

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const target = document.querySelector(`#k-desk [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target) return;
  event.preventDefault();
  const isTwice = event.key === last.key && event.timeStamp - last.at < TWICE_MS;
  last = { key: event.key, at: event.timeStamp };
  if (!isTwice) target.click();
});

// The item after the one on the screen lies in `ahead`. A verdict shows it at once, and the server's answer to the
// verdict brings the one after that. Without an answer, or without this script, the forms lead from page to page.
const desk = document.getElementById("k-desk");
const ahead = document.getElementById("k-ahead");
const HOLD_SECONDS = 120;
let sent = Promise.resolve(); // what is pressed goes out one after the other

document.addEventListener("submit", (event) => {
  if (!desk.contains(event.target)) return;
  event.preventDefault();
  const [form, submitter] = [event.target, event.submitter];
  sent = sent.then(() => desk.contains(form) && press(form, submitter));
});

async function press(form, submitter) {
  const body = new FormData(form, submitter);
  const before = desk.firstElementChild;
  const next = form.id === "k-undo" ? null : ahead.content.firstElementChild;
  if (next) {
    body.append("ahead", next.dataset.item);
    show(next);
  }
  try {
    await send(form.action, body);
  } catch {
    if (next) {
      ahead.content.replaceChildren(next);
      show(before);
    }
    say(desk.dataset.lost, "k-error");
  }
}

async function send(address, body) {
  const response = await fetch(address, { method: "POST", body, headers: { "X-Desk": "1" } });
  const parts = parse(await response.text());
  if (!parts.progress) throw new Error(`${response.status}`); // signed out, or a page that tells of a fault
  document.getElementById("k-progress").replaceChildren(...parts.progress.childNodes);
  if (parts.said) document.getElementById("k-said").replaceChildren(...parts.said.childNodes);
  if (parts.now) show(parts.now.firstElementChild);
  if (parts.ahead) ahead.content.replaceChildren(parts.ahead.firstElementChild);
  if (parts.done) location.assign(desk.dataset.empty);
}

function parse(text) {
  const found = new DOMParser().parseFromString(text, "text/html").querySelectorAll("[data-part]");
  return Object.fromEntries([...found].map((part) => [part.dataset.part, part]));
}

function show(item) {
  if (item.parentNode === ahead.content) item.remove();
  desk.replaceChildren(item);
  history.replaceState(null, "", item.dataset.url);
  item.querySelector("h1").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

function say(text, tone) {
  const line = document.createElement("p");
  line.className = tone;
  line.textContent = text;
  document.getElementById("k-said").replaceChildren(line);
}

// Who looks at an item holds it, and the one ahead, a few minutes at a time.
async function hold() {
  const item = desk.firstElementChild;
  if (!item || document.hidden) return;
  const body = new FormData(item.querySelector("#k-undo"));
  const next = ahead.content.firstElementChild;
  if (next) body.append("ahead", next.dataset.item);
  await send(item.dataset.hold, body).catch(() => {});
}
sent = hold();
setInterval(() => { sent = sent.then(hold); }, HOLD_SECONDS * 1000);
