// One row in full: pictures, masks, rejected image, answers. Texts only ever become text nodes.

const element = mfpo.element;

mfpo.colourOf = (rank) => {
  const { colours } = mfpo;
  return colours[rank % colours.length];
};
const colourClass = (rank) => `k${rank % mfpo.colours.length}`;

mfpo.percent = (share) => {
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
};

// An answer with its marks; `kind` says what differs: only in the chosen, or only in the rejected answer.
mfpo.markedText = (pieces, kind) => pieces.map((piece) => {
  if (typeof piece === "string") return piece;
  const [text, keyword, changed] = piece;
  const mark = element("mark", { textContent: text });
  if (keyword >= 0) {
    mark.classList.add("kw", colourClass(keyword));
    mark.title = `keyword ${keyword + 1}`;
  }
  if (changed) {
    mark.classList.add(`only-${kind}`);
    mark.title = [mark.title, `only in the ${kind} answer`].filter(Boolean).join(", ");
  }
  return mark;
});

const image = (picture, alt) => element("img", { src: picture.src, alt, decoding: "async" });

const broken = (text) => element("div", { className: "broken", textContent: text, aria: { role: "img", label: text } });

const figure = (title, detail, ...content) => element(
  "figure", {}, element("figcaption", {}, element("b", { textContent: title }), element("span", { textContent: detail })),
  ...content,
);

const masksOf = (pictures) => pictures.masks.map((rle) => (rle ? mfpo.decodeMask(rle, pictures.mask_size) : null));

// The picture with a canvas per keyword over it.
const stackOf = (picture, masks, pictures, alt) => {
  const stack = element("div", { className: "stack" }, image(picture, alt));
  masks.forEach((mask, rank) => {
    if (!mask) return;
    const canvas = element("canvas", { className: "mask", data: { rank } });
    stack.append(mfpo.drawMask(canvas, mask, pictures.mask_size, mfpo.colourOf(rank)));
  });
  return stack;
};

// For the list and the contact sheet: the perturbed image with all its masks.
mfpo.thumbnail = (row, pictures, withMasks) => {
  const picture = pictures.images[row.noise.image];
  if (!picture) return broken("no picture");
  return stackOf(picture, withMasks ? masksOf(pictures) : [], pictures, "");
};

const legendOf = (row, masks, toggle) => element(
  "ul", { className: "legend", aria: { label: "Keywords by rank; a click shows or hides a mask" } },
  ...row.keywords.map((keyword, rank) => {
    const button = element(
      "button", { type: "button", className: `chip ${colourClass(rank)}`, data: { rank }, disabled: !masks[rank] },
      element("i", { textContent: rank + 1 }), element("span", { textContent: keyword.text, dir: "auto" }),
      element("small", { textContent: keyword.words }),
    );
    if (masks[rank]) {
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => toggle(rank));
    }
    return element("li", {}, button);
  }),
);

const regionsFigure = (row, pictures, picture, masks) => {
  const stack = stackOf(picture, masks, pictures, "the picture with the regions of its keywords");
  const taken = [];
  masks.forEach((mask, rank) => {
    const anchor = mask && mfpo.anchorOf(mask, pictures.mask_size);
    if (!anchor) return;
    // A label that another one would hide goes below it.
    while (taken.some(([x, y]) => Math.abs(x - anchor[0]) < 0.25 && Math.abs(y - anchor[1]) < 0.07)) anchor[1] += 0.07;
    taken.push(anchor);
    const tag = element("span", { className: `tag ${colourClass(rank)}`, data: { rank }, textContent: `${rank + 1} ${row.keywords[rank].text}` });
    // Labels grow away from the nearer edge.
    tag.style[anchor[0] < 0.5 ? "left" : "right"] = `${100 * Math.min(anchor[0], 1 - anchor[0]) * 0.8}%`;
    tag.style.top = `${100 * Math.min(0.93, anchor[1])}%`;
    stack.append(tag);
  });
  const toggle = (rank, on) => {
    const button = legend.querySelector(`[data-rank="${rank}"]`);
    if (!button || button.disabled) return;
    const shown = on ?? button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const part of stack.querySelectorAll(`[data-rank="${rank}"]`)) part.hidden = !shown;
  };
  const legend = legendOf(row, masks, toggle);
  const detail = row.share ? `${mfpo.percent(row.share)} of the picture` : "no region";
  return { node: figure("Key regions", detail, stack, legend), toggle };
};

// What the preview's noise covers: null for the whole picture.
const stencilOf = (row, pictures, masks) => {
  if (row.noise.scope === "global") return null;
  const parts = pictures.place ? [mfpo.decodeMask(pictures.place, pictures.mask_size)] : masks.filter(Boolean);
  const union = mfpo.unionOf(parts, pictures.mask_size);
  const fade = row.noise.feather * Math.min(...pictures.mask_size);
  if (fade > 0 && union.includes(1)) return mfpo.drawStrength(mfpo.fadedMask(union, pictures.mask_size, fade), pictures.mask_size);
  return mfpo.drawMask(mfpo.newCanvas(1, 1), union, pictures.mask_size, "#000000", true);
};

const MOST_PREVIEW_PIXELS = 1024;

// The live preview: a canvas and a slider over the noise steps.
const previewOf = (row, pictures, picture, masks) => {
  const scale = Math.min(1, MOST_PREVIEW_PIXELS / Math.max(...pictures.view));
  const [width, height] = pictures.view.map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = mfpo.newCanvas(width, height);
  const slider = element("input", { type: "range", min: 0, max: 999, value: row.noise.step, aria: { label: "Noise step" } });
  const output = element("output", {});
  const source = image(picture, "");
  const { signal, mean, spread } = mfpo.settings;
  const levels = signal[row.noise.schedule];
  let parts = null;
  const draw = () => {
    const step = Number(slider.value), level = levels[step];
    output.textContent = `step ${step}: signal × ${level.toFixed(2)}, noise σ ${Math.sqrt(1 - level * level).toFixed(2)}`;
    canvas.setAttribute("aria-label", `preview of the rejected image at ${output.textContent}`);
    if (!source.naturalWidth) return;
    parts ??= { layers: mfpo.noiseLayers(row.noise.seed, width, height, spread), stencil: stencilOf(row, pictures, masks) };
    mfpo.drawPreview(canvas, source, parts.layers, parts.stencil, level, mean);
  };
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "preview of the rejected image");
  canvas.classList.toggle("pixelated", Math.max(width, height) <= 160);
  slider.addEventListener("input", () => requestAnimationFrame(draw));
  const own = element("button", { type: "button", className: "quiet", textContent: `back to ${row.noise.step}`, title: "the step of this row" });
  own.addEventListener("click", () => {
    slider.value = row.noise.step;
    draw();
  });
  const start = () => source.decode().then(draw, () => canvas.replaceWith(broken("the picture cannot be shown")));
  const controls = element("div", { className: "slider" }, slider, element("div", {}, output, own));
  const note = "Preview, drawn by this page after the resize: noise of the right strength, but not the very bits of training, and without the model's crop.";
  return { node: element("div", {}, canvas, controls, element("p", { className: "note", textContent: note })), start };
};

const exactOf = (row, pictures) => {
  const picture = pictures.exact;
  const [width, height] = [picture.width, picture.height];
  const step = row.noise.step < 0 ? row.noise.scope : `step ${row.noise.step}`;
  const shown = image(picture, `rejected image as the model gets it, ${step}`);
  shown.classList.toggle("pixelated", Math.max(width, height) <= 160);
  const crop = pictures.seen_words ? ` Cropped by the model's processor to ${pictures.seen_words}.` : "";
  const note = `What the model gets in training, at ${width} × ${height}: ${step}, seed ${row.noise.seed}.${crop}`;
  return element("div", {}, shown, element("p", { className: "note", textContent: note }));
};

const rejectedFigure = (row, pictures, picture, masks) => {
  const views = [];
  if (pictures.exact) views.push(["Exact", exactOf(row, pictures), null]);
  if (row.noise.step >= 0) {
    const preview = previewOf(row, pictures, picture, masks);
    views.push(["Noise slider", preview.node, preview.start]);
  }
  if (pictures.stored) {
    const note = `The rejected image that the dataset stores, ${pictures.stored.width} × ${pictures.stored.height}.`;
    views.push(["Stored", element("div", {}, image(pictures.stored, "stored rejected image"), element("p", { className: "note", textContent: note })), null]);
  }
  const buttons = views.map(([name], number) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => show(number));
    return button;
  });
  let current = -1;
  const show = (number) => {
    current = number;
    views.forEach(([, node, start], other) => {
      node.hidden = other !== number;
      buttons[other].setAttribute("aria-pressed", other === number);
      if (other === number) start?.();
    });
  };
  const switcher = element("div", { className: "segmented", aria: { role: "group", label: "Which rejected image" } }, ...buttons);
  const node = figure("Rejected image", row.noise.scope, ...views.map((view) => view[1]), switcher);
  if (views.length) show(0);
  else node.append(broken("not rendered"));
  return { node, next: () => views.length && show((current + 1) % views.length) };
};

// The first figure; of several images one can choose which is large.
const pictureFigure = (row, pictures) => {
  const target = row.noise.image;
  const name = (index) => (pictures.images.length > 1 ? `Image ${index + 1} of ${pictures.images.length}` : "Picture");
  const node = figure("", "");
  const [title, detail] = node.querySelector("figcaption").children;
  const holder = element("div", {}), note = element("p", { className: "note" });
  // The picture, and what the model sees of it if that is not all.
  const framed = (picture, index) => {
    const shown = image(picture, `${name(index)} of the prompt`);
    const cropped = index === target && pictures.seen !== null;
    note.textContent = cropped ? `Framed: what the model sees, ${pictures.seen_words}.` : "";
    if (!cropped) return shown;
    const frame = element("div", { className: "seen" }), [left, top, right, bottom] = pictures.seen;
    Object.assign(frame.style, { left: `${100 * left}%`, top: `${100 * top}%`, right: `${100 * (1 - right)}%`, bottom: `${100 * (1 - bottom)}%` });
    return element("div", { className: "stack" }, shown, frame);
  };
  const show = (index) => {
    const picture = pictures.images[index];
    title.textContent = name(index);
    detail.textContent = [index === target && pictures.images.length > 1 ? "the one perturbed" : "", picture ? `${picture.width} × ${picture.height}` : ""].filter(Boolean).join(", ");
    holder.replaceChildren(picture ? framed(picture, index) : broken("this image cannot be read"));
  };
  const strip = element("div", { className: "strip" }, ...pictures.images.map((picture, index) => {
    const button = element(
      "button", { type: "button", className: index === target ? "perturbed" : "" },
      picture ? image(picture, `image ${index + 1}`) : broken("?"),
      element("span", { textContent: index === target ? `${index + 1}, perturbed` : index + 1 }),
    );
    button.addEventListener("click", () => show(index));
    return button;
  }));
  node.append(holder, note);
  if (pictures.images.length > 1) node.append(strip);
  show(target < pictures.images.length ? target : 0);
  return node;
};

const ROLES = { user: "User", assistant: "Model", system: "System" };

const conversation = (row) => element(
  "div", { className: "turns" },
  ...row.turns.map((turn) => element(
    "p", { className: "turn", dir: "auto" },
    row.turns.length > 1 ? element("b", { textContent: `${ROLES[turn.role] ?? turn.role} ` }) : null, turn.text,
  )),
);

const answers = (row) => element(
  "div", { className: "answers" },
  element("section", {}, element("h3", { textContent: "Chosen" }), element("p", { dir: "auto" }, ...mfpo.markedText(row.chosen, "chosen"))),
  element("section", {}, element("h3", { textContent: "Rejected" }), element("p", { dir: "auto" }, ...mfpo.markedText(row.rejected, "rejected"))),
);

const facts = (row) => {
  const entries = [["Noise", row.noise.words]];
  if (row.noise.fallback) entries.push(["Why not the regions", row.noise.fallback]);
  if (row.difficulty) entries.push(["Difficulty", `${row.difficulty}${row.entropy === null ? "" : `, entropy ${row.entropy.toPrecision(4)}`}`]);
  if (row.noise.step >= 0) entries.push(["Seed", row.noise.seed]);
  return element(
    "dl", { className: "facts" },
    ...[...entries, ...row.extra].map(([name, value]) => element("div", {}, element("dt", { textContent: name, dir: "auto" }), element("dd", { textContent: value, dir: "auto" }))),
  );
};

// The whole row; returns its node and what the keyboard does with it.
mfpo.rowView = (row, pictures) => {
  const picture = pictures.images[row.noise.image];
  const node = element("div", {});
  const view = { node, toggleMask: () => {}, toggleMasks: () => {}, nextRejected: () => {} };
  if (row.problem) node.append(element("p", { className: "problem", textContent: `Pictures are missing: ${row.problem}` }));
  const figures = element("div", { className: "figures" });
  if (pictures.images.length) figures.append(pictureFigure(row, pictures));
  if (picture && pictures.mask_size[0]) {
    const masks = masksOf(pictures);
    const regions = regionsFigure(row, pictures, picture, masks);
    const rejected = rejectedFigure(row, pictures, picture, masks);
    figures.append(regions.node, rejected.node);
    let all = true;
    view.toggleMask = (rank) => regions.toggle(rank);
    view.toggleMasks = () => {
      all = !all;
      masks.forEach((_, rank) => regions.toggle(rank, all));
    };
    view.nextRejected = rejected.next;
  }
  node.append(figures, conversation(row), answers(row), facts(row));
  return view;
};
