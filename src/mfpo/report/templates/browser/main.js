// The page: state, list, contact sheet, one row, keyboard.

{
  document.documentElement.classList.add("scripted");
  const { colours } = mfpo;
  const byId = (id) => document.getElementById(id);
  const form = byId("filters"), fields = form.elements;
  const rows = [], positions = new Map();
  let state = mfpo.parseState(location.hash), found = [], current = null, view = null, masksShown = true;

  const stateToPage = () => {
    for (const field of fields) {
      if (Object.hasOwn(mfpo.defaults, field.name)) field.value = state[field.name];
    }
    byId("down").setAttribute("aria-pressed", state.down !== "");
    document.body.dataset.view = state.view;
    for (const button of document.querySelectorAll("[data-to]")) {
      if (button.dataset.to === state.view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    const active = ["keyword", "scope", "status", "min", "max", "difficulty", "emin", "emax", "value", "verdict"].filter((name) => state[name]);
    byId("active").textContent = active.length ? `${active.length} on` : "";
    byId("clear").hidden = !active.length && !state.q;
  };
  const stateToAddress = () => history.replaceState(null, "", `#${mfpo.formatState(state)}`);
  const change = (changes) => {
    state = { ...state, ...changes };
    stateToAddress();
    stateToPage();
  };

  // List and contact sheet.
  const chips = (row) => mfpo.element(
    "span", { className: "dots" },
    ...row.keywords.slice(0, 8).map((keyword, rank) => mfpo.element("i", { className: `k${rank % colours.length} ${keyword.status}` })),
  );
  const decorate = (node, row) => {
    node.classList.toggle("current", row === current);
    node.setAttribute("aria-selected", row === current);
    node.dataset.verdict = mfpo.verdicts.of(row.id)?.verdict ?? "";
  };
  const renderItem = (row, index) => {
    const question = row.turns.findLast((turn) => turn.role === "user")?.text ?? "";
    const node = mfpo.element(
      "div", { className: "item", id: `item-${state.view}-${index}`, aria: { role: "option" } },
      mfpo.element("div", { className: "thumb" }),
      mfpo.element(
        "div", { className: "words" },
        mfpo.element("p", { className: "line" }, mfpo.element("b", { textContent: row.number }), chips(row), mfpo.element("span", { className: "flag", textContent: row.noise.fallback ? "fallback" : row.problem ? "broken" : row.noise.scope === "region" ? "" : row.noise.scope })),
        mfpo.element("p", { className: "answer", textContent: mfpo.textOf(row.chosen).slice(0, 200), dir: "auto" }),
        mfpo.element("p", { className: "question", textContent: question.slice(0, 120), dir: "auto" }),
      ),
    );
    decorate(node, row);
    node.addEventListener("click", () => {
      open(row);
      if (state.view === "grid") toView("rows");
    });
    return node;
  };
  const fillItem = async (node, row) => {
    const pictures = await mfpo.loadPictures(positions.get(row));
    if (node.isConnected) node.firstChild.replaceChildren(mfpo.thumbnail(row, pictures, masksShown && state.view === "grid"));
  };
  const list = mfpo.virtualList(byId("list"), { height: 84, render: renderItem, fill: fillItem });
  const grid = mfpo.virtualList(byId("grid"), { height: 276, width: 230, render: renderItem, fill: fillItem });
  mfpo.lists = { list, grid };

  const showFound = () => {
    found = mfpo.select(rows, state, mfpo.verdicts.of);
    list.set(found);
    grid.set(found);
    byId("count").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    byId("nothing").hidden = found.length > 0;
  };

  // One row.
  const showVerdict = () => {
    const entry = mfpo.verdicts.of(current?.id) ?? { verdict: "", note: "" };
    for (const button of document.querySelectorAll("[data-verdict-of]")) button.setAttribute("aria-pressed", button.dataset.verdictOf === entry.verdict);
    byId("note").value = entry.note;
    byId("verdicts").textContent = mfpo.verdicts.count().toLocaleString("en");
    for (const one of [list, grid]) one.refresh(decorate);
  };
  const judge = (verdict) => {
    if (!current) return;
    mfpo.verdicts.put(current.id, { verdict });
    showVerdict();
  };
  const reveal = () => {
    const place = found.indexOf(current);
    if (place >= 0) (state.view === "grid" ? grid : list).reveal(place);
  };
  const open = async (row) => {
    current = row;
    reveal();
    change({ row: row.id });
    for (const one of [list, grid]) one.refresh(decorate);
    for (const name of ["list", "grid"]) byId(name).setAttribute("aria-activedescendant", `item-${name === "list" ? "rows" : name}-${found.indexOf(row)}`);
    const pictures = await mfpo.loadPictures(positions.get(row));
    if (row !== current) return;
    view = mfpo.rowView(row, pictures);
    const place = found.indexOf(row);
    byId("place").textContent = `Row ${row.number.toLocaleString("en")}`;
    byId("name").textContent = row.images.filter(Boolean).map((name) => name.split(/[\\/]/).pop()).join(", ");
    byId("identifier").textContent = row.id;
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place >= found.length - 1;
    byId("content").replaceChildren(view.node);
    byId("row").hidden = false;
    performance.mark("row");
    byId("row").scrollTop = 0;
    showVerdict();
  };
  const move = (by) => {
    const place = found.indexOf(current);
    const next = found[Math.min(found.length - 1, Math.max(0, place + by))];
    if (!next || next === current) return;
    open(next);
  };

  // Choices that depend on the rows.
  const showChoices = () => {
    const count = (values) => [...values.reduce((counts, value) => counts.set(value, (counts.get(value) ?? 0) + 1), new Map())].sort((a, b) => b[1] - a[1]);
    mfpo.setOptions(fields.scope, count(rows.map((row) => row.noise.scope)).map(([name, number]) => [name, `${name} (${number})`]));
    const frequent = count(rows.flatMap((row) => row.keywords.map((keyword) => keyword.text.toLowerCase()))).slice(0, 200);
    byId("keywords").replaceChildren(...frequent.map(([name]) => mfpo.element("option", { value: name })));
    const facets = mfpo.facets(rows);
    mfpo.setOptions(fields.column, [...facets.keys()].map((name) => [name, name]));
    fields.column.value = state.column;
    const values = facets.get(state.column) ?? new Map();
    mfpo.setOptions(fields.value, [...values].sort((a, b) => b[1] - a[1]).map(([name, number]) => [name, `${name} (${number})`]));
    for (const name of ["scope", "value"]) fields[name].value = state[name];
    byId("facets").hidden = !facets.size;
    for (const part of document.querySelectorAll(".ranked")) part.hidden = !rows.some((row) => row.entropy !== null);
    const broken = rows.filter((row) => row.problem).length;
    byId("broken").textContent = broken ? `, ${broken.toLocaleString("en")} with pictures that cannot be read` : "";
  };

  const readForm = () => {
    const changes = {};
    for (const field of fields) if (Object.hasOwn(mfpo.defaults, field.name)) changes[field.name] = field.value;
    if (changes.column !== state.column) changes.value = "";
    const other = changes.column !== state.column;
    change(changes);
    if (other) showChoices();
    showFound();
  };
  const toView = (name) => {
    change({ view: name });
    // Beside the contact sheet there is room for them.
    if (name === "grid" && window.innerWidth > 740) byId("more").open = true;
    if (name !== "statistics") showFound();
    reveal();
  };

  form.addEventListener("input", readForm);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("down").addEventListener("click", () => {
    change({ down: state.down ? "" : "1" });
    showFound();
  });
  byId("clear").addEventListener("click", () => {
    change({ ...mfpo.defaults, view: state.view, row: state.row, sort: state.sort, down: state.down });
    showFound();
  });
  for (const button of document.querySelectorAll("[data-to]")) button.addEventListener("click", () => toView(button.dataset.to));
  for (const button of document.querySelectorAll("[data-verdict-of]")) button.addEventListener("click", () => judge(button.dataset.verdictOf));
  byId("note").addEventListener("input", (event) => {
    if (current) mfpo.verdicts.put(current.id, { note: event.target.value });
    byId("verdicts").textContent = mfpo.verdicts.count().toLocaleString("en");
  });
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("keys").addEventListener("click", () => byId("help").showModal());
  byId("help").addEventListener("click", (event) => event.target === byId("help") && byId("help").close());
  byId("export").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([mfpo.verdicts.toLines()], { type: "application/jsonl" }));
    mfpo.element("a", { href: url, download: "verdicts.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const { taken, refused } = mfpo.verdicts.fromLines(await file.text());
    byId("said").textContent = `${taken} verdicts taken over${refused ? `, ${refused} lines are no verdicts` : ""}`;
    event.target.value = "";
    showVerdict();
  });
  window.addEventListener("hashchange", () => {
    state = mfpo.parseState(location.hash);
    stateToPage();
    showChoices();
    showFound();
    const wanted = rows.find((row) => row.id === state.row);
    if (wanted && wanted !== current) open(wanted);
  });

  const toggleMasks = () => {
    if (state.view === "rows") return view?.toggleMasks();
    masksShown = !masksShown;
    grid.set(found);
  };
  const actions = {
    j: () => move(1), ArrowDown: () => move(state.view === "grid" ? grid.columns() : 1),
    k: () => move(-1), ArrowUp: () => move(state.view === "grid" ? -grid.columns() : -1),
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), Home: () => move(-Infinity), End: () => move(Infinity),
    "/": () => fields.q.focus(), "?": () => byId("help").showModal(), m: toggleMasks, n: () => view?.nextRejected(),
    g: () => judge("good"), b: () => judge("bad"), u: () => judge(""),
    v: () => toView(state.view === "rows" ? "grid" : "rows"), s: () => toView(state.view === "statistics" ? "rows" : "statistics"),
    Enter: () => state.view === "grid" && current && toView("rows"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const target = event.target;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.key === "Enter" && /^(BUTTON|SUMMARY)$/.test(target.tagName)) return;
    const action = /^[1-9]$/.test(event.key) ? () => view?.toggleMask(Number(event.key) - 1) : actions[event.key];
    if (!action || (state.view === "statistics" && !["s", "?", "v"].includes(event.key))) return;
    event.preventDefault();
    action();
  });

  stateToPage();
  const receive = (batch) => {
    for (const row of batch) {
      positions.set(row, rows.length);
      rows.push(row);
    }
    showFound();
    if (!current && found.length) {
      const wanted = rows.find((row) => row.id === state.row);
      if (wanted || !state.row || rows.length === mfpo.settings.rows) open(wanted ?? found[0]);
    }
  };
  mfpo.ready = mfpo.loadRows(receive).then(
    () => {
      showChoices();
      if (!current && found.length) open(found[0]);
      reveal();
      for (const one of [list, grid]) one.settle();
      document.body.dataset.ready = "yes";
      performance.mark("all-rows");
    },
    (error) => {
      byId("said").textContent = `The page is incomplete: ${error.message}. Keep the folder together.`;
    },
  );
  mfpo.state = () => ({ ...state, found: found.map((row) => row.id), current: current?.id });
}
