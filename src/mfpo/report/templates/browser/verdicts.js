// What the reader thinks of rows: kept in this browser, brought in and out as JSON Lines.

mfpo.verdicts = (() => {
  const key = `mfpo-verdicts-${mfpo.settings.key}`;
  const known = new Map(mfpo.settings.verdicts.map(([id, verdict, note]) => [id, { verdict, note }]));
  try {
    for (const [id, entry] of Object.entries(JSON.parse(localStorage.getItem(key) ?? "{}"))) known.set(id, entry);
  } catch {
    // Storage that is forbidden or damaged: verdicts then last as long as the page is open.
  }

  const save = () => {
    try {
      localStorage.setItem(key, JSON.stringify(Object.fromEntries(known)));
    } catch {
      // As above.
    }
  };
  const put = (id, changes) => {
    known.set(id, { verdict: "", note: "", ...known.get(id), ...changes });
    save();
  };
  const marked = () => [...known].filter(([, entry]) => entry.verdict || entry.note);

  return {
    of: (id) => known.get(id),
    put,
    count: () => marked().length,
    toLines: () => marked().map(([id, { verdict, note }]) => `${JSON.stringify({ id, verdict, note })}\n`).join(""),
    // How many lines were taken over, and how many were no verdicts.
    fromLines: (text) => {
      let taken = 0, refused = 0;
      for (const line of text.split("\n").filter((line) => line.trim())) {
        try {
          const { id, verdict = "", note = "" } = JSON.parse(line);
          if (typeof id !== "string" || !id || !["good", "bad", ""].includes(verdict)) throw new TypeError("no verdict");
          known.set(id, { verdict, note: String(note) });
          taken++;
        } catch {
          refused++;
        }
      }
      save();
      return { taken, refused };
    },
  };
})();
