// Items with the answers of all runs: filters, order, and a page of them at a time, so that thousands cost nothing.

mfpo.PAGE = 10;
const MARKS = {
  absent: "not in the picture", wrong: "in the picture, but with another colour or in another place", present: "in the picture",
};

const answersOf = (item) => item.answers.filter((answer) => answer !== null);
const plain = (answer) => answer.pieces.map((piece) => (typeof piece === "string" ? piece : piece[0])).join("");

// Everything that can be searched in an item, in small letters; made once.
const searchText = (item) => {
  item.searched ??= [
    item.id, item.kind, item.question, item.truth, item.image,
    ...answersOf(item).flatMap((answer) => [plain(answer), answer.verdict, ...answer.replies]),
  ].join("\n").toLowerCase();
  return item.searched;
};

const OUTCOMES = {
  any: (faulty) => faulty.includes(true),
  all: (faulty) => !faulty.includes(false),
  some: (faulty) => faulty.includes(true) && faulty.includes(false),
  none: (faulty) => !faulty.includes(true),
};

// Items that fit; worst first over all runs, which is the order they come in, or in one run.
mfpo.selectItems = (items, { kind, outcome, order, q }) => {
  const found = items.filter((item) => (
    (!kind || item.kind === kind)
    && (!outcome || OUTCOMES[outcome](answersOf(item).map((answer) => answer.faulty)))
    && (!q.trim() || mfpo.hasWords(searchText(item), q))
  ));
  if (order === "") return found;
  const badness = (item) => item.answers[Number(order)]?.badness ?? -Infinity;
  const keys = new Map(found.map((item) => [item, badness(item)]));
  return found.sort((a, b) => (keys.get(a) === keys.get(b) ? 0 : keys.get(b) - keys.get(a)));
};

const markedAnswer = (answer) => mfpo.element(
  "p", { dir: "auto" },
  ...answer.pieces.map((piece) => (typeof piece === "string" ? piece : mfpo.element("mark", { className: piece[1], title: MARKS[piece[1]], textContent: piece[0] }))),
  answer.cut ? mfpo.element("small", { textContent: ` … ${answer.cut.toLocaleString("en")} more characters are left out here` }) : null,
);

const answerColumn = (label, answer) => {
  if (answer === null) return mfpo.element("div", {}, mfpo.element("h4", { textContent: label }), mfpo.element("p", { className: "tally", textContent: "not answered" }));
  return mfpo.element(
    "div", {}, mfpo.element("h4", { textContent: label }), markedAnswer(answer),
    mfpo.element("p", { className: answer.faulty ? "tally faulty" : "tally", textContent: answer.verdict }),
    ...answer.replies.map((reply) => mfpo.element(
      "details", {}, mfpo.element("summary", { textContent: "Judge's reply" }), mfpo.element("p", { className: "reply", textContent: reply, dir: "auto" }),
    )),
  );
};

const pictureOf = (item, pictures) => {
  if (item.picture >= 0) return mfpo.element("img", { src: pictures[item.picture], alt: `picture of ${item.id}`, decoding: "async" });
  const text = item.problem ? `no picture: ${item.problem}` : "picture not on this page";
  return mfpo.element("div", { className: "no-picture", textContent: text });
};

// What identifies an item, each piece of it once: ids often hold the kind or the picture's name.
mfpo.captionOf = ({ id, kind, image }) => {
  const parts = id.split(/[/\s]/);
  const stem = image.replace(/\.[^.]*$/, "");
  return [id, parts.includes(kind) ? "" : kind, parts.includes(image) || parts.includes(stem) ? "" : image].filter(Boolean).join(" · ");
};

mfpo.itemCard = (item, pictures, runs) => mfpo.element(
  "article", { className: "answer" },
  mfpo.element(
    "div", { className: "picture" }, pictureOf(item, pictures),
    mfpo.element("p", { className: "tally", textContent: mfpo.captionOf(item) }),
  ),
  mfpo.element(
    "div", { className: "said" },
    mfpo.element("p", { className: "question", textContent: item.question, dir: "auto" }),
    item.truth ? mfpo.element("p", { className: "tally", textContent: item.truth }) : null,
    mfpo.element("div", { className: "columns" }, ...item.answers.map((answer, run) => answerColumn(runs[run], answer))),
  ),
);

{
  const form = document.getElementById("item-filters");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const byId = (id) => document.getElementById(id);
  const sections = new Map();
  const sectionOf = (number) => {
    if (!sections.has(number)) sections.set(number, { ...read(`items-${number}`), pictures: read(`item-pictures-${number}`) });
    return sections.get(number);
  };
  let page = 0, found = [];

  const showPage = () => {
    const { pictures } = sectionOf(form.elements.benchmark.value);
    const first = page * mfpo.PAGE, shown = found.slice(first, first + mfpo.PAGE);
    byId("item-list").replaceChildren(...shown.map((item) => mfpo.itemCard(item, pictures, mfpo.runs)));
    byId("item-nothing").hidden = shown.length > 0;
    const number = (value) => value.toLocaleString("en");
    byId("item-place").textContent = shown.length ? `${number(first + 1)} to ${number(first + shown.length)} of ${number(found.length)}` : "";
    byId("item-previous").disabled = page === 0;
    byId("item-next").disabled = first + mfpo.PAGE >= found.length;
  };
  const showItems = () => {
    const { benchmark, kind, outcome, order, q } = form.elements;
    const { items } = sectionOf(benchmark.value);
    found = mfpo.selectItems(items, { kind: kind.value, outcome: outcome.value, order: order.value, q: q.value });
    form.querySelector("output").value = `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
    page = 0;
    showPage();
  };
  const showBenchmark = () => {
    const { benchmark, kind, order } = form.elements;
    const { items, note } = sectionOf(benchmark.value);
    const counts = items.reduce((all, item) => all.set(item.kind, (all.get(item.kind) ?? 0) + 1), new Map());
    mfpo.setOptions(kind, [...counts].filter(([name]) => name && counts.size > 1).map(([name, count]) => [name, `${name} (${count.toLocaleString("en")})`]));
    kind.parentElement.hidden = counts.size < 2;
    const answered = mfpo.runs.map((run, number) => [String(number), `worst in ${run}`]).filter(([number]) => items.some((item) => item.answers[number]));
    mfpo.setOptions(order, answered.length > 1 ? answered : []);
    order.parentElement.hidden = answered.length < 2;
    byId("item-note").textContent = note;
    showItems();
  };
  const turn = (by) => {
    page += by;
    showPage();
    byId("items").scrollIntoView();
  };

  if (form) {
    document.documentElement.classList.add("scripted");
    mfpo.runs = read("item-runs");
    form.addEventListener("input", (event) => (event.target.name === "benchmark" ? showBenchmark() : showItems()));
    form.addEventListener("submit", (event) => event.preventDefault());
    byId("item-previous").addEventListener("click", () => turn(-1));
    byId("item-next").addEventListener("click", () => turn(1));
    showBenchmark();
  }
}
