// The report's data, and what is loaded when it is asked for. From disk a page may load scripts, but fetch nothing.
const data = JSON.parse($("data").textContent);
const runs = new Map(data.runs.map((run) => [run.id, run]));
const arrived = new Map(); // "kind/name" -> content
const scripts = new Map(); // address -> promise

function script(address) {
  if (!scripts.has(address)) {
    scripts.set(address, new Promise((resolve, reject) => {
      const tag = element("script", { src: address });
      tag.addEventListener("load", () => { tag.remove(); resolve(); });
      tag.addEventListener("error", () => {
        tag.remove();
        scripts.delete(address);
        reject(new Error(`${address} is missing`));
      });
      document.head.append(tag);
    }));
  }
  return scripts.get(address);
}

// Called by the files in runs/ and tables/.
function loaded(kind, name, content) {
  arrived.set(`${kind}/${name}`, content);
}

// Called by the files in media/ that hold a 3D asset.
function asset(key, text) {
  arrived.set(`asset/${key}`, text);
}

async function content(kind, name) {
  const key = `${kind}/${name}`;
  if (!arrived.has(key)) await script(`${kind}/${name}.js`);
  return arrived.get(key);
}

// The bytes of a run's 3D asset. The text is not kept: it may have megabytes.
async function assetBytes(media, file) {
  const address = `media/${media.key}/${file}`;
  await script(address);
  const binary = atob(arrived.get(`asset/${media.key}`));
  arrived.delete(`asset/${media.key}`);
  scripts.delete(address);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const panelOf = (run) => data.panels[run.panel];
const columnOf = (run) => panelOf(run).columns[run.column];
const promptOf = (run) => data.prompts[run.prompt];
const truthOf = (run) => panelOf(run).truth[run.prompt];
const has = (media, kind) => Boolean(media?.has?.includes(kind));
const address = (media, file) => `media/${media.key}/${file}`;

function titleOf(run) {
  const { method, details } = columnOf(run);
  return `${method}, ${details}, seed ${run.seed}`;
}

function number(value, quantity) {
  if (value === null || value === undefined) return "—";
  if (quantity.count) return value ? "yes" : "no";
  return value.toFixed(quantity.decimals);
}
