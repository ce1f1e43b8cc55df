"use strict";
(function () {
  const form = document.getElementById("filters");
  const rows = Array.from(document.querySelectorAll("#figures-body tr"));
  const status = document.getElementById("shown");
  if (!form || !status) return;
  const columns = ["role", "site", "model", "task"]; // the first cells of a row
  const selects = Array.from(form.querySelectorAll("select"));

  function apply() {
    let shown = 0;
    for (const row of rows) {
      const keep = selects.every((s) => s.value === "" || row.cells[columns.indexOf(s.name)].textContent === s.value);
      row.hidden = !keep;
      if (keep) shown += 1;
    }
    status.textContent = shown + " of " + rows.length + " figures shown";
  }

  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("reset", function () { setTimeout(apply, 0); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  apply();
})();
