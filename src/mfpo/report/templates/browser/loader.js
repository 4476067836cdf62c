// Where rows and pictures come from: blocks inside this file, or scripts beside it, since a page that is a file
// must not fetch.

const waiting = new Map();
const KEPT_CHUNKS = 12;

// Scripts beside the page call this with what they hold.
mfpo.receive = (kind, number, text) => {
  waiting.get(`${kind}/${number}`)?.(JSON.parse(text));
};

const chunkName = (kind, number) => `${kind}/${String(number).padStart(5, "0")}.js`;
// Only names of our own chunks become scripts, whatever a dataset says.
const policy = globalThis.trustedTypes?.createPolicy && document.documentElement.dataset.folder
  ? trustedTypes.createPolicy("mfpo", {
    createScriptURL: (url) => {
      if (!/^(rows|pictures)\/\d{5,}\.js$/.test(url)) throw new TypeError("no script of this page");
      return url;
    },
  })
  : { createScriptURL: (url) => url };

const loadScript = (kind, number) => new Promise((resolve, reject) => {
  const script = document.createElement("script");
  waiting.set(`${kind}/${number}`, resolve);
  script.onload = () => script.remove();
  script.onerror = () => reject(new Error(`${chunkName(kind, number)} is missing`));
  script.src = policy.createScriptURL(chunkName(kind, number));
  document.head.append(script);
});

mfpo.settings = JSON.parse(document.getElementById("settings").textContent);
mfpo.colours = mfpo.settings.colours;

// Rows part by part, so that the first ones show before the last ones are read.
mfpo.loadRows = async (onRows) => {
  const { chunk, rows } = mfpo.settings;
  if (!chunk) {
    for (const block of document.querySelectorAll("script.rows")) onRows(JSON.parse(block.textContent));
    return;
  }
  for (let number = 0; number * chunk < rows; number++) onRows(await loadScript("rows", number));
};

const chunks = new Map();

// Pictures and masks of the row at a position; the latest chunks are kept.
mfpo.loadPictures = async (position) => {
  const size = mfpo.settings.pictures_chunk;
  if (!mfpo.settings.chunk) return JSON.parse(document.getElementById(`pictures-${position}`).textContent);
  const number = Math.floor(position / size);
  const known = chunks.get(number) ?? loadScript("pictures", number);
  chunks.delete(number);
  chunks.set(number, known);
  if (chunks.size > KEPT_CHUNKS) chunks.delete(chunks.keys().next().value);
  return (await known)[position % size];
};
