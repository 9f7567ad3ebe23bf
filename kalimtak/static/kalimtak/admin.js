// Small helpers of the admin: a copy button, the browser's time zone for the server, names for screen readers, and the
// keyboard's place when a page that was watched loads itself again.
"use strict";

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.querySelector(button.dataset.copy).textContent;
  navigator.clipboard?.writeText(text).then(() => button.classList.add("k-copied"));
});

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) document.cookie = `tz=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax`;

/* The icon font writes icons as words such as “arrow_back”: nobody should hear those where there is a name beside it. */
function hushIcons() {
  for (const icon of document.querySelectorAll(".material-symbols-outlined:not([aria-hidden])")) {
    const holder = icon.closest("a, button, label");
    const isOnlyName = holder && holder.textContent.trim() === icon.textContent.trim();
    if (!isOnlyName || holder.title || holder.ariaLabel) icon.ariaHidden = "true";
  }
}
document.addEventListener("DOMContentLoaded", hushIcons);
document.addEventListener("htmx:afterSwap", hushIcons);

/* What is scrolled inside a live panel stays where it is when the panel is drawn again. */
let scrolled = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  scrolled = [...event.detail.target.querySelectorAll(".k-scroll[id]")].map((box) => [box.id, box.scrollLeft, box.scrollTop]);
});
document.addEventListener("htmx:afterSwap", () => {
  for (const [id, left, top] of scrolled) document.getElementById(id)?.scrollTo(left, top);
});

/* A live panel that is done asks for the whole page again. Who was on a link or button is put back there, or on the
   panels where it is gone; who was nowhere stays there. */
const PLACE_KEY = "kalimtak.place";

document.addEventListener("htmx:beforeOnLoad", (event) => {
  const focused = document.activeElement;
  if (!event.detail.xhr.getResponseHeader("HX-Refresh") || focused === document.body) return;
  const place = { path: location.pathname, href: focused.getAttribute("href"), id: focused.id };
  sessionStorage.setItem(PLACE_KEY, JSON.stringify(place));
});

document.addEventListener("DOMContentLoaded", () => {
  const place = JSON.parse(sessionStorage.getItem(PLACE_KEY));
  sessionStorage.removeItem(PLACE_KEY);
  if (place?.path !== location.pathname) return;
  const again = place.id ? `#${CSS.escape(place.id)}` : `[href="${CSS.escape(place.href ?? "")}"]`;
  (document.querySelector(again) ?? document.querySelector(".k-panel"))?.focus({ preventScroll: true });
});
