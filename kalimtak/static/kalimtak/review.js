// The desk's keys: 1-9 choose a label, a approves, r rejects, s skips, u undoes, g gives the labels chosen.
// They press what is on the page, whatever script the keyboard writes.
"use strict";

const TWICE_MS = 200; // the same key again so soon was meant once
let last = { key: "", at: 0 };

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = keyOf(event);
  const target = document.querySelector(`#k-desk [data-key="${CSS.escape(key)}"]`);
  if (!target) return;
  event.preventDefault();
  const isTwice = key === last.key && event.timeStamp - last.at < TWICE_MS;
  last = { key, at: event.timeStamp };
  if (!isTwice) target.click();
});

// What the key writes, where that is a Latin letter or a digit of any script: so AZERTY and Dvorak keep their own
// places. An Arabic or Cyrillic letter, or a sign in the row of digits, counts for what a Latin keyboard has there.
function keyOf(event) {
  const key = event.key.toLowerCase();
  if (/^\p{Nd}$/u.test(key)) return digitOf(key);
  const isNamed = /^[a-z]\w*$/.test(key) && key !== "process"; // "a", "enter", "end"; not what an input method takes
  const [, letter, digit] = /^(?:Key([A-Z])|(?:Digit|Numpad)([1-9]))$/.exec(event.code) ?? [];
  if (isNamed || (digit && event.shiftKey)) return key; // "!" is no 1
  return letter?.toLowerCase() ?? digit ?? key;
}

// Each script has its digits in one row from 0 to 9, and rows that touch are whole ones.
function digitOf(key) {
  const point = key.codePointAt(0);
  let first = point;
  while (/\p{Nd}/u.test(String.fromCodePoint(first - 1))) first -= 1;
  return String((point - first) % 10);
}

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
