const STEP = 100;
const [form, found, more, base, pack] = ["search", "found", "more", "base", "vocabulary"].map((id) => document.getElementById(id));
const asFound = found.textContent;
const lines = Array.from(document.querySelectorAll("#lines tr"), (line) => {
  const { id, token, reading, kind, trained } = line.dataset;
  const text = JSON.parse(token);
  return { line, id: id === "" ? null : Number(id), token: text, text: fold(JSON.parse(reading) ?? text), kind, trained };
});
let others = [], matches = [], shown = 0;

// Tokenizers write a letter for a space.
function fold(text) {
  return text.replace(/[\u0120\u2581]/g, " ").toLowerCase();
}

async function unpack() {
  const octets = Uint8Array.from(atob(pack.textContent.trim()), (letter) => letter.charCodeAt(0));
  const inflated = new Blob([octets]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(inflated).text()).map(([id, token, kind, parts, reading, spelt]) => (
    { id, token, kind, parts, spelt, text: fold(reading ?? token), trained: "" }
  ));
}

function query() {
  const values = Object.fromEntries(Array.from(new FormData(form)).filter(([, value]) => value !== ""));
  const asked = fold(values.q ?? "");
  const { kind, trained, from = -1, to = Infinity } = values;
  const anyId = !values.from && !values.to;
  const fits = (each) =>
    (!values.q || String(each.id) === values.q || each.token.includes(values.q) || each.text.includes(asked)) &&
    (!kind || each.kind === kind) && (!trained || each.trained === trained) &&
    (anyId || (each.id !== null && each.id >= Number(from) && each.id <= Number(to)));
  return { values, fits, idle: Object.keys(values).length === 0 };
}

function element(parent, tag, name, text = "") {
  const made = parent.appendChild(document.createElement(tag));
  made.className = name;
  made.textContent = text;
  return made;
}

function spell(parent, parts) {
  const text = element(parent, "bdi", "text");
  for (const [part, name] of parts) {
    if (name) element(text, "span", "spelt", part).title = name;
    else text.append(part);
  }
}

function add(each) {
  const row = base.insertRow();
  const cells = Array.from({ length: 7 }, () => row.insertCell());
  cells[0].className = "number id";
  cells[0].textContent = each.id.toLocaleString("en");
  cells[1].className = "name";
  spell(element(cells[1], "code", "token"), each.parts || [[each.token, ""]]);
  if (each.spelt) spell(element(cells[1], "span", "reading"), each.spelt);
  const kind = element(cells[2], "span", "kind");
  element(kind, "span", "swatch").style.background = `var(--${each.kind})`;
  kind.append(each.kind);
}

function showMore() {
  for (const each of matches.slice(shown, shown + STEP)) add(each);
  shown = Math.min(shown + STEP, matches.length);
  more.hidden = shown === matches.length;
  more.textContent = `Show more (${(matches.length - shown).toLocaleString("en")} left)`;
}

function remember() {
  search();
  history.replaceState(null, "", `#${new URLSearchParams(query().values)}`);
}

function search() {
  const { idle, fits } = query();
  for (const each of lines) each.line.hidden = !fits(each);
  matches = idle ? [] : others.filter(fits);
  base.replaceChildren();
  shown = 0;
  showMore();
  const count = lines.filter((each) => !each.line.hidden).length + matches.length;
  found.textContent = idle ? asFound : `Found: ${count.toLocaleString("en")}`;
}

function recall() {
  if (!location.hash.includes("=")) return;
  const held = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) if (field.name) field.value = held.get(field.name) ?? "";
  search();
  document.getElementById("tokens").scrollIntoView();
}

form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", remember);
form.addEventListener("reset", () => setTimeout(remember));
more.addEventListener("click", showMore);
addEventListener("hashchange", recall);
recall();
try {
  others = await unpack();
  search();
  document.body.dataset.ready = "yes";
} catch {
  found.textContent = `${asFound} This browser cannot search the rest of the vocabulary.`;
}
