// A list of any length of which only what is in view exists; one column, or as many as fit.

mfpo.virtualList = (container, { height, width = Infinity, render, fill }) => {
  const space = document.createElement("div");
  space.className = "space";
  space.setAttribute("role", "presentation");
  container.append(space);
  const shown = new Map();
  let items = [], columns = 0, timer = 0, frame = 0;

  const settle = () => {
    for (const [index, element] of shown) {
      if (!element.dataset.filled) {
        element.dataset.filled = "yes";
        fill(element, items[index]);
      }
    }
  };

  const draw = () => {
    frame = 0;
    if (!container.clientHeight) return;
    const first = Math.max(0, Math.floor(container.scrollTop / height) - 2) * columns;
    const last = Math.min(items.length, (Math.ceil((container.scrollTop + container.clientHeight) / height) + 2) * columns);
    for (const [index, element] of shown) {
      if (index < first || index >= last) {
        element.remove();
        shown.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (shown.has(index)) continue;
      const element = render(items[index], index);
      element.style.transform = `translate(${(index % columns) * 100}%, ${Math.floor(index / columns) * height}px)`;
      element.style.width = `${100 / columns}%`;
      element.style.height = `${height}px`;
      shown.set(index, element);
      space.append(element);
    }
    clearTimeout(timer);
    // Pictures wait until scrolling has come to rest.
    timer = setTimeout(settle, 60);
  };
  const later = () => {
    frame ||= requestAnimationFrame(draw);
  };

  const columnsThatFit = () => Math.max(1, Math.floor(container.clientWidth / width));
  const layout = () => {
    columns = columnsThatFit();
    space.style.height = `${Math.ceil(items.length / columns) * height}px`;
    for (const element of shown.values()) element.remove();
    shown.clear();
    draw();
  };

  container.addEventListener("scroll", later, { passive: true });
  // It is told of the first size too: what is drawn and filled by then must stay.
  new ResizeObserver(() => (columns === columnsThatFit() ? draw() : layout())).observe(container);
  return {
    set: (found) => {
      items = found;
      layout();
    },
    // Draw again what is in view, without filling it anew.
    refresh: (change) => shown.forEach((element, index) => change(element, items[index])),
    reveal: (index) => {
      const top = Math.floor(index / columns) * height;
      const { scrollTop, clientHeight } = container;
      if (top < scrollTop) container.scrollTop = top;
      else if (top + height > scrollTop + clientHeight) container.scrollTop = top + height - clientHeight;
    },
    columns: () => columns,
    // Fill at once what is in view, without waiting for scrolling to end.
    settle,
    elements: () => shown.size,
  };
};
