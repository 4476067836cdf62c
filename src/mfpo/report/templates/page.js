"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const form = document.querySelector(".tools form");
  if (!form) return;
  const rows = Array.from(document.querySelectorAll(".row"), (row) => ({
    element: row,
    scope: row.dataset.scope,
    text: row.textContent.toLowerCase(),
  }));
  const { search, scope, step } = form.elements;
  const count = form.querySelector("output");
  const nothing = document.querySelector(".nothing");

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = (!scope.value || row.scope === scope.value) && words.every((word) => row.text.includes(word));
      row.element.hidden = !fits;
      shown += fits;
    }
    count.value = `${shown} of ${rows.length}`;
    nothing.hidden = shown > 0;
  };
  const setStep = () => {
    for (const input of document.querySelectorAll(".switch input")) {
      if (step.value ? input.value === step.value : input.parentElement.classList.contains("own")) input.checked = true;
    }
  };
  search.addEventListener("input", filter);
  scope.addEventListener("change", filter);
  step.addEventListener("change", setStep);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });
  filter();
})();
