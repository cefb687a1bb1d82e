"use strict";
(() => {
  const STEP = 100;
  const [form, found, more, base, pack] = ["search", "found", "more", "base", "vocabulary"].map((id) => document.getElementById(id));
  const asFound = found.textContent;
  const lines = Array.from(document.querySelectorAll("#lines tr"), (line) => ({
    line,
    id: line.dataset.id === "" ? null : Number(line.dataset.id),
    text: fold(JSON.parse(line.dataset.token)),
    kind: line.dataset.kind,
    trained: line.dataset.trained,
  }));
  let others = [], matches = [], shown = 0;

  // Letters for bytes have capitals too, which stand for other bytes.
  function fold(text) {
    return pack.dataset.byteLevel ? text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : text.toLowerCase();
  }

  async function unpack() {
    const octets = Uint8Array.from(atob(pack.textContent.trim()), (letter) => letter.charCodeAt(0));
    const inflated = new Blob([octets]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(inflated).text()).map(([id, token, kind, parts, reading]) => (
      { id, token, kind, parts, reading, text: fold(token), trained: "" }
    ));
  }

  // A byte-level tokenizer writes letters for bytes, SentencePiece a mark for a space: a text is found in either.
  function spellings(text) {
    const asked = [text, text.replaceAll(" ", "\u2581")];
    if (pack.dataset.byteLevel) {
      let next = 256;
      const letters = Array.from({ length: 256 }, (_, octet) => {
        const itself = (octet > 32 && octet < 127) || (octet > 160 && octet !== 173);
        return String.fromCodePoint(itself ? octet : next++);
      });
      for (const spelt of [text, text.toLowerCase(), text.toUpperCase()]) {
        asked.push(Array.from(new TextEncoder().encode(spelt), (octet) => letters[octet]).join(""));
      }
    }
    return asked.map(fold);
  }

  function query() {
    const values = Object.fromEntries(Array.from(new FormData(form)).filter(([, value]) => value !== ""));
    const texts = values.q ? spellings(values.q) : [];
    const { kind, trained, from = -1, to = Infinity } = values;
    const anyId = !values.from && !values.to;
    const fits = (each) =>
      (!values.q || String(each.id) === values.q || texts.some((text) => each.text.includes(text))) &&
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
    row.setAttribute("role", "row");
    const cells = Array.from({ length: 7 }, () => row.insertCell());
    for (const cell of cells) cell.setAttribute("role", "cell");
    cells[0].className = "number id";
    cells[0].textContent = each.id.toLocaleString("en");
    cells[1].className = "name";
    spell(element(cells[1], "code", "token"), each.parts || [[each.token, ""]]);
    if (each.reading) spell(element(cells[1], "span", "reading"), each.reading);
    const kind = element(cells[2], "span", `kind ${each.kind}`);
    element(kind, "span", "swatch").setAttribute("aria-hidden", "true");
    kind.append(each.kind);
  }

  function showMore() {
    for (const each of matches.slice(shown, shown + STEP)) add(each);
    shown = Math.min(shown + STEP, matches.length);
    more.hidden = shown === matches.length;
    more.textContent = `Show more (${(matches.length - shown).toLocaleString("en")} left)`;
  }

  function search() {
    const { idle, fits } = query();
    let count = 0;
    for (const each of lines) {
      each.line.hidden = !fits(each);
      if (!each.line.hidden) count += 1;
    }
    base.replaceChildren();
    shown = 0;
    matches = idle ? [] : others.filter(fits);
    showMore();
    found.textContent = idle ? asFound : `Found: ${(count + matches.length).toLocaleString("en")}`;
  }

  function remember() {
    history.replaceState(null, "", `#${new URLSearchParams(query().values)}`);
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
  form.addEventListener("input", () => { search(); remember(); });
  form.addEventListener("reset", () => setTimeout(() => { search(); remember(); }));
  more.addEventListener("click", showMore);
  addEventListener("hashchange", recall);
  recall();
  unpack().then((held) => { others = held; search(); document.body.dataset.ready = "yes"; }, () => {
    found.textContent = `${asFound} This browser cannot search the rest of the vocabulary.`;
  });
})();
