"use strict";
(function () {
  const box = document.getElementById("filter");
  if (!box) return;
  const rows = Array.from(document.querySelectorAll(".worklist tbody tr"));
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const status = document.getElementById("shown");

  function apply() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach(function (row, i) {
      row.hidden = !words.every((word) => texts[i].includes(word));
      if (!row.hidden) shown += 1;
    });
    status.textContent = shown + " of " + rows.length + " shown";
  }

  document.getElementById("filter-box").hidden = false;
  box.addEventListener("input", apply);
  apply(); // a browser may have kept the words
})();
