// Which rows are shown, in which order, and how that is written into the page's address.

mfpo.defaults = {
  view: "rows", row: "", q: "", keyword: "", scope: "", status: "", min: "", max: "", difficulty: "", emin: "",
  emax: "", column: "", value: "", verdict: "", sort: "number", down: "",
};

mfpo.parseState = (hash) => {
  const state = { ...mfpo.defaults };
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (Object.hasOwn(mfpo.defaults, name)) state[name] = value;
  }
  if (!["rows", "grid", "statistics"].includes(state.view)) state.view = mfpo.defaults.view;
  if (!Object.hasOwn(mfpo.sorts, state.sort)) state.sort = mfpo.defaults.sort;
  return state;
};

mfpo.formatState = (state) => {
  const changed = Object.keys(mfpo.defaults).filter((name) => state[name] !== mfpo.defaults[name]);
  return new URLSearchParams(changed.map((name) => [name, state[name]])).toString();
};

mfpo.textOf = (pieces) => pieces.map((piece) => (typeof piece === "string" ? piece : piece[0])).join("");

// Everything that can be searched in a row, in small letters; made once.
mfpo.searchText = (row) => {
  row.searched ??= [
    row.id, ...row.images, ...row.turns.map((turn) => turn.text), mfpo.textOf(row.chosen), mfpo.textOf(row.rejected),
    ...row.keywords.map((keyword) => keyword.text), ...row.extra.map((entry) => entry[1]),
  ].join("\n").toLowerCase();
  return row.searched;
};

const confidence = (row) => {
  const known = row.keywords.filter((keyword) => keyword.status === "found").map((keyword) => keyword.confidence);
  return known.length ? Math.min(...known) : null;
};

mfpo.sorts = {
  number: (row) => row.number,
  area: (row) => row.share,
  difficulty: (row) => row.entropy,
  score: (row) => row.keywords[0]?.score ?? null,
  confidence,
};

// A number from a field; `otherwise` where the field is empty or holds none.
mfpo.numberOr = (text, otherwise) => (text.trim() && Number.isFinite(Number(text)) ? Number(text) : otherwise);

const hasStatus = (row, status) => {
  if (status === "fallback") return row.noise.fallback !== "";
  if (status === "broken") return row.problem !== "";
  return row.keywords.some((keyword) => keyword.status === status);
};

// A function that says whether a row fits the state.
mfpo.matcher = (state, verdictOf) => {
  const tests = [];
  if (state.q.trim()) tests.push((row) => mfpo.hasWords(mfpo.searchText(row), state.q));
  const keyword = state.keyword.toLowerCase().trim();
  if (keyword) tests.push((row) => row.keywords.some((entry) => entry.text.toLowerCase().includes(keyword)));
  if (state.scope) tests.push((row) => row.noise.scope === state.scope);
  if (state.status) tests.push((row) => hasStatus(row, state.status));
  if (state.difficulty) tests.push((row) => row.difficulty === state.difficulty);
  const ranges = [
    [state.min, state.max, (row) => 100 * row.share],
    [state.emin, state.emax, (row) => row.entropy],
  ];
  for (const [low, high, value] of ranges) {
    const from = mfpo.numberOr(low, -Infinity), to = mfpo.numberOr(high, Infinity);
    if (from === -Infinity && to === Infinity) continue;
    tests.push((row) => value(row) !== null && value(row) >= from && value(row) <= to);
  }
  if (state.column && state.value) {
    tests.push((row) => row.extra.some(([name, value]) => name === state.column && value === state.value));
  }
  if (state.verdict) tests.push((row) => (verdictOf(row.id)?.verdict || "none") === state.verdict);
  return (row) => tests.every((test) => test(row));
};

// Rows that fit, in the order asked for; rows without a value come last, equal ones in the dataset's order.
mfpo.select = (rows, state, verdictOf = () => undefined) => {
  const found = rows.filter(mfpo.matcher(state, verdictOf));
  const value = mfpo.sorts[state.sort], sign = state.down ? -1 : 1;
  if (state.sort === "number" && !state.down) return found;
  const keys = new Map(found.map((row) => [row, value(row)]));
  return found.sort((a, b) => {
    const [left, right] = [keys.get(a), keys.get(b)];
    if (left === null || right === null) return (left === null) - (right === null) || a.number - b.number;
    return sign * (left - right) || a.number - b.number;
  });
};

// Columns with few enough different values to choose from, with those values and how many rows have them.
mfpo.facets = (rows, most = 40) => {
  const columns = new Map();
  for (const row of rows) {
    for (const [name, value] of row.extra) {
      if (!columns.has(name)) columns.set(name, new Map());
      const values = columns.get(name);
      if (values.size <= most) values.set(value, (values.get(value) ?? 0) + 1);
    }
  }
  return new Map([...columns].filter(([, values]) => values.size > 1 && values.size <= most));
};
