// The desk's keys: 1-9 choose a label, a approves, r rejects, s skips, g gives the labels chosen.
// They press what is on the page.
"use strict";

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target) return;
  event.preventDefault();
  target.click();
});

// One verdict per page: a second key or click while the first is on its way does nothing.
document.addEventListener("submit", (event) => {
  if (document.body.dataset.sent) event.preventDefault();
  document.body.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => delete document.body.dataset.sent);
