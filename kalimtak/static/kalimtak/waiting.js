// One box ticks and unticks all of the page.
"use strict";

const all = document.getElementById("k-all");
const boxes = [...document.querySelectorAll("#k-waiting tbody input[type=checkbox]")];

function tell() {
  const ticked = boxes.filter((box) => box.checked).length;
  all.checked = ticked === boxes.length;
  all.indeterminate = ticked > 0 && ticked < boxes.length;
}

all?.addEventListener("change", () => {
  for (const box of boxes) box.checked = all.checked;
});
for (const box of boxes) box.addEventListener("change", tell);
