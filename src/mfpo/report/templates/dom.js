"use strict";
// What the pages share. All functions of a page hang on one object, so that tests can call them one by one.
const mfpo = {};

// A new element; texts only ever become text nodes.
mfpo.element = (name, properties = {}, ...children) => {
  const { data = {}, aria = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  Object.assign(element.dataset, data);
  for (const [key, value] of Object.entries(aria)) element.setAttribute(key === "role" ? key : `aria-${key}`, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

// Whether a text in small letters has every word of a query.
mfpo.hasWords = (text, query) => query.toLowerCase().split(/\s+/).every((word) => text.includes(word));

// Options after the first one, which stands for all; the choice is kept where it still exists.
mfpo.setOptions = (select, entries) => {
  const chosen = select.value;
  select.replaceChildren(select.firstElementChild, ...entries.map(([value, label]) => mfpo.element("option", { value, textContent: label })));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
};
