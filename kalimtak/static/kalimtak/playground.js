/* The playground: ask, look at the answer, rate or correct it. Everything goes through the public API.
   Text is only ever set as textContent; what the page says comes from the <dl id="wording">. */
"use strict";

const byId = (id) => document.getElementById(id);
const RECENT_KEY = "kalimtak.recent";
const RECENT_LIMIT = 20;
const MAX_CHARACTERS = 20000;
const LOOK_AGAIN_MS = 3000;
const REFUSED_MS = 30_000;

const wording = Object.fromEntries(
  [...byId("wording").querySelectorAll("dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]),
);
const locale = document.documentElement.lang;
const percent = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });
const decimal = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });

let classifiers = [];
let shown = null; // the entry on display: {classifier, fields, result, given}

/* Words ------------------------------------------------------------------------------------------------------- */

function say(key, values = {}) {
  return (wording[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function fieldName(field) {
  return wording[field] ?? field.replaceAll("_", " ");
}

function flagName(flag) {
  return wording[`flag_${flag}`] ?? flag.replaceAll("_", " ");
}

/** The emoji that ends a label's description, or nothing. */
function emojiOf(classifier, label) {
  const description = classifier?.descriptions?.[label] ?? "";
  return description.match(/\p{Extended_Pictographic}[\p{Emoji_Modifier}\uFE0F]*$/u)?.[0] ?? "";
}

/* Talking to the API -------------------------------------------------------------------------------------------- */

class Refusal extends Error {
  constructor(message, fields = {}, status = 0) {
    super(message);
    this.fields = fields;
    this.status = status;
  }
}

/** The JSON answer of `path`; throws a Refusal that carries the API's own words. */
async function call(path, body) {
  const headers = { Accept: "application/json" };
  if (body) {
    headers["Content-Type"] = "application/json";
    headers["X-CSRFToken"] = document.querySelector("meta[name=csrf-token]").content;
  }
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new Refusal(say("unreachable"));
  }
  const data = await response.json().catch(() => ({}));
  if (response.ok) return data;
  const wait = response.headers.get("Retry-After");
  const message = data.error?.message ?? `${response.status} ${response.statusText}`;
  const words = wait ? `${message} ${say("wait", { seconds: wait })}` : message;
  throw new Refusal(words, data.error?.fields, response.status);
}

function showRefusal(box, refusal) {
  const lines = Object.entries(refusal.fields ?? {}).map(([field, problems]) => {
    const line = document.createElement("li");
    line.textContent = `${fieldName(field)}: ${problems.join(" ")}`;
    return line;
  });
  const message = document.createElement("p");
  message.textContent = refusal.message;
  const list = document.createElement("ul");
  list.replaceChildren(...lines);
  box.replaceChildren(message, ...(lines.length ? [list] : []));
  box.hidden = false;
}

/** Run `work` with the form's button disabled; a Refusal goes into `box`, anything else is a fault and stays loud. */
async function submitting(form, box, work) {
  const button = form.querySelector("button[type=submit]");
  box.hidden = true;
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showRefusal(box, error);
  } finally {
    button.disabled = false;
  }
}

/* Asking ---------------------------------------------------------------------------------------------------------- */

function classifierNamed(slug) {
  return classifiers.find((each) => each.classifier === slug);
}

function chosen() {
  return classifierNamed(byId("ask").elements.classifier.value);
}

function drawClassifiers() {
  const first = classifiers.find((each) => each.default) ?? classifiers[0];
  const tabs = classifiers.map((classifier) => {
    const tab = document.createElement("label");
    const radio = document.createElement("input");
    const name = document.createElement("span");
    Object.assign(radio, { type: "radio", name: "classifier", value: classifier.classifier });
    radio.checked = classifier === first;
    name.textContent = classifier.name;
    name.dir = "auto";
    tab.append(radio, name);
    return tab;
  });
  byId("classifiers").replaceChildren(...tabs);
}

/** One text area per input field; what was typed stays where the next classifier has a field of the same name. */
function drawFields() {
  const classifier = chosen();
  const form = byId("ask");
  const typed = Object.fromEntries([...form.querySelectorAll("textarea")].map((area) => [area.name, area.value]));
  const areas = classifier.input_fields.map((field) => {
    const label = document.createElement("label");
    const area = document.createElement("textarea");
    label.className = "field";
    Object.assign(area, { name: field, required: true, dir: "auto", maxLength: MAX_CHARACTERS });
    area.rows = classifier.input_fields.length > 1 ? 3 : 5;
    area.value = typed[field] ?? "";
    label.append(fieldName(field), area);
    return label;
  });
  byId("description").textContent = classifier.description;
  byId("fields").replaceChildren(...areas);
}

async function ask(event) {
  event.preventDefault();
  const form = byId("ask");
  const classifier = chosen();
  const fields = Object.fromEntries(classifier.input_fields.map((field) => [field, form.elements[field].value]));
  await submitting(form, byId("ask-error"), async () => {
    const result = await call("/api/predict", { ...fields, classifier: classifier.classifier });
    const entry = { classifier: classifier.classifier, fields, result, given: null };
    remember(entry);
    drawAnswer(entry);
    announce(entry.result);
    byId("answer").scrollIntoView({ block: "nearest" });
  });
}

/* The answer -------------------------------------------------------------------------------------------------------- */

function drawAnswer(entry) {
  shown = entry;
  const { result } = entry;
  const classifier = classifierNamed(entry.classifier);
  byId("nothing-yet").hidden = true;
  byId("result").hidden = false;
  byId("asked").textContent = Object.values(entry.fields).join("\n");
  drawVerdict(classifier, result);
  drawUnsure(result);
  drawFlags(result.flags);
  drawScores(classifier, result);
  drawFacts(result);
  drawFeedback(classifier, entry);
  drawRecent();
}

/** All labels that were given: one, or of a multi-label classifier any number. */
function given(result) {
  return result.labels ?? [result.label];
}

function listed(labels) {
  return labels.join(", ") || say("none_given");
}

function drawVerdict(classifier, result) {
  const several = result.labels !== undefined;
  const names = given(result).map((label) => {
    const name = document.createElement("bdi");
    name.textContent = several ? `${emojiOf(classifier, label)} ${label}`.trim() : label;
    return name;
  });
  byId("emoji").textContent = several ? "" : emojiOf(classifier, result.label);
  byId("label").classList.toggle("several", several);
  byId("label").replaceChildren(...(names.length ? names : [say("none_given")]));
  byId("confidence").textContent = several ? "" : percent.format(result.confidence);
}

/** Tell a screen reader the gist; the rest of the answer is there to be explored. */
function announce(result) {
  const gist = result.labels
    ? say("announced_labels", { labels: listed(result.labels) })
    : say("announced", { label: result.label, confidence: percent.format(result.confidence) });
  byId("announcement").textContent = `${gist} ${doubtsAbout(result)}`;
}

function doubtsAbout(result) {
  if (!result.abstained) return "";
  const sentences = [say(result.labels ? "unsure_labels" : "unsure", { threshold: percent.format(result.threshold) })];
  if (result.alternatives?.length) sentences.push(say("alternatives", { labels: result.alternatives.join(", ") }));
  return sentences.join(" ");
}

function drawUnsure(result) {
  byId("unsure").hidden = !result.abstained;
  byId("unsure").textContent = doubtsAbout(result);
}

function drawFlags(flags) {
  byId("flags").hidden = flags.length === 0;
  byId("flags").replaceChildren(
    ...flags.map((flag) => {
      const chip = document.createElement("li");
      chip.textContent = flagName(flag);
      return chip;
    }),
  );
}

function drawScores(classifier, result) {
  const sorted = Object.entries(result.scores).sort(([, one], [, other]) => other - one);
  byId("scores").replaceChildren(
    ...sorted.map(([label, score]) => {
      const row = document.createElement("li");
      const name = document.createElement("span");
      const track = document.createElement("span");
      const figure = document.createElement("span");
      row.classList.toggle("top", given(result).includes(label));
      name.textContent = `${emojiOf(classifier, label)} ${label}`.trim();
      name.dir = "auto";
      track.className = "track";
      track.style.setProperty("--share", score);
      figure.className = "figure";
      figure.textContent = percent.format(score);
      row.append(name, track, figure);
      return row;
    }),
  );
}

function drawFacts(result) {
  const facts = [say("facts", { version: result.model_version, latency: decimal.format(result.latency_ms) })];
  if (result.deployment && result.deployment !== "production") facts.push(result.deployment);
  if (wording[`source_${result.source}`]) facts.push(say(`source_${result.source}`));
  byId("facts").textContent = facts.join(" · ");
}

/* Feedback ------------------------------------------------------------------------------------------------------------ */

function drawFeedback(classifier, entry) {
  const form = byId("feedback");
  const select = form.elements.correct_label;
  const labels = classifier?.labels ?? Object.keys(entry.result.scores);
  form.reset();
  select.replaceChildren(
    select.options[0],
    ...labels
      .filter((label) => label !== entry.result.label)
      .map((label) => new Option(`${emojiOf(classifier, label)} ${label}`.trim(), label)),
  );
  select.value = entry.given?.correct_label ?? "";
  select.closest("label").hidden = entry.result.labels !== undefined;
  drawCorrections(classifier, labels, entry);
  form.elements.rating.value = entry.given?.rating ?? "";
  form.elements.comment.value = entry.given?.comment ?? "";
  byId("feedback-error").hidden = true;
  byId("thanks").hidden = true;
}

/** A box per label where a text may have several. What was answered is ticked; they count once `corrects` is ticked. */
function drawCorrections(classifier, labels, entry) {
  const box = byId("corrections");
  box.hidden = entry.result.labels === undefined;
  const right = entry.given?.correct_labels ?? given(entry.result);
  const choices = (box.hidden ? [] : labels).map((label) => {
    const choice = document.createElement("label");
    const tick = document.createElement("input");
    const name = document.createElement("bdi");
    Object.assign(tick, { type: "checkbox", name: "correct_labels", value: label, defaultChecked: right.includes(label) });
    name.textContent = `${emojiOf(classifier, label)} ${label}`.trim();
    choice.append(tick, name);
    return choice;
  });
  byId("correct-labels").replaceChildren(...choices);
  byId("feedback").elements.corrects.checked = entry.given?.correct_labels !== undefined;
}

function readFeedback(form) {
  const said = {};
  if (form.elements.rating.value) said.rating = Number(form.elements.rating.value);
  if (form.elements.correct_label.value) said.correct_label = form.elements.correct_label.value;
  if (form.elements.corrects.checked && !byId("corrections").hidden) {
    said.correct_labels = [...byId("correct-labels").querySelectorAll("input:checked")].map((tick) => tick.value);
  }
  if (form.elements.comment.value.trim()) said.comment = form.elements.comment.value.trim();
  return said;
}

function corrects(said) {
  return Boolean(said?.correct_label || said?.correct_labels);
}

async function sendFeedback(event) {
  event.preventDefault();
  const entry = shown;
  const form = byId("feedback");
  byId("thanks").hidden = true;
  await submitting(form, byId("feedback-error"), async () => {
    const said = readFeedback(form);
    if (!said.rating && !corrects(said)) throw new Refusal(say("nothing_given"));
    const answer = await call("/api/feedback", { interaction_id: entry.result.interaction_id, ...said });
    entry.given = said;
    remember(entry);
    drawRecent();
    if (entry === shown) thank(answer.status, said);
  });
}

function thank(status, said) {
  const next = corrects(said) ? "next_corrected" : said.rating >= 4 ? "next_confirmed" : "next_rated";
  byId("thanks").textContent = `${say(status)} ${say(next)}`;
  byId("thanks").hidden = false;
}

/* What was asked in this visit ------------------------------------------------------------------------------------------- */

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(RECENT_KEY)) ?? [];
  } catch {
    return []; // storage is off, or holds what an older page wrote
  }
}

/** Put `entry` first, or in the place of what is known under the same interaction. */
function remember(entry) {
  const entries = recall();
  const place = entries.findIndex((each) => each.result.interaction_id === entry.result.interaction_id);
  if (place >= 0) entries[place] = entry;
  else entries.unshift(entry);
  try {
    sessionStorage.setItem(RECENT_KEY, JSON.stringify(entries.slice(0, RECENT_LIMIT)));
  } catch {
    // storage is off or full: the list is a convenience
  }
}

function describeGiven(said) {
  const parts = [];
  if (said?.rating) parts.push(say("given_rating", { rating: said.rating }));
  if (corrects(said)) {
    parts.push(say("given_correction", { label: said.correct_label ?? listed(said.correct_labels) }));
  }
  return parts.join(", ");
}

function drawRecent() {
  const entries = recall();
  byId("recent").hidden = entries.length === 0;
  byId("recent-list").replaceChildren(
    ...entries.map((entry) => {
      const item = byId("recent-item").content.cloneNode(true);
      item.querySelector(".asked").textContent = Object.values(entry.fields).join(" · ");
      item.querySelector(".label").textContent = listed(given(entry.result));
      item.querySelector(".given").textContent = describeGiven(entry.given);
      item.querySelector("button").addEventListener("click", () => {
        drawAnswer(entry);
        byId("answer").scrollIntoView({ block: "nearest" });
        byId("feedback").querySelector("input").focus({ preventScroll: true });
      });
      return item;
    }),
  );
}

/* Start -------------------------------------------------------------------------------------------------------------------- */

async function start() {
  let wait = LOOK_AGAIN_MS;
  try {
    const { models } = await call("/api/models");
    classifiers = models.filter((each) => each.live.length > 0);
    byId("ask-error").hidden = true;
    byId("empty").hidden = classifiers.length > 0;
    byId("ask").hidden = classifiers.length === 0;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const isNew = byId("ask-error").hidden || !byId("ask-error").textContent.includes(error.message);
    if (isNew) showRefusal(byId("ask-error"), error); // a screen reader says it once
    wait = error.status === 401 || error.status === 403 ? 0 : REFUSED_MS;
  } finally {
    byId("loading").hidden = true;
  }
  if (classifiers.length) {
    drawClassifiers();
    drawFields();
  } else if (wait) {
    setTimeout(start, wait); // somebody may just be deploying the first version
  }
}

byId("classifiers").addEventListener("change", drawFields);
byId("ask").addEventListener("submit", ask);
byId("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
});
byId("feedback").addEventListener("submit", sendFeedback);
byId("correct-labels").addEventListener("change", () => {
  byId("feedback").elements.corrects.checked = true;
});
drawRecent();
start();
