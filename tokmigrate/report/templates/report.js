"use strict";
(() => {
  const STEP = 100;
  const form = document.getElementById("search");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const base = document.getElementById("base");
  const pack = document.getElementById("vocabulary");
  const kinds = pack.dataset.names.split(" ");
  const asFound = found.textContent;
  const lines = Array.from(document.querySelectorAll("#lines tr"), (line) => ({
    line,
    id: line.dataset.id === "" ? null : Number(line.dataset.id),
    text: folded(JSON.parse(line.dataset.token)),
    kind: line.dataset.kind,
    trained: line.dataset.trained,
  }));
  let others = [];
  let matches = [];
  let shown = 0;

  // Letters for bytes have capitals too, which stand for other bytes.
  function folded(text) {
    return pack.dataset.byteLevel ? text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : text.toLowerCase();
  }

  async function unpack() {
    const octets = Uint8Array.from(atob(pack.textContent.trim()), (letter) => letter.charCodeAt(0));
    const deflated = new ReadableStream({
      start(to) {
        to.enqueue(octets);
        to.close();
      },
    });
    const inflated = deflated.pipeThrough(new DecompressionStream("deflate"));
    const held = JSON.parse(await new Response(inflated).text());
    return held.map(([id, token, kind, parts, reading]) => (
      { id, token, parts, reading, text: folded(token), kind: kinds[kind], trained: "" }
    ));
  }

  // A byte-level tokenizer writes letters for bytes, SentencePiece a mark for a space: a text is found in either.
  function spellings(text) {
    const asked = [text];
    if (text.includes(" ")) asked.push(text.replaceAll(" ", "\u2581"));
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
    return asked.map(folded);
  }

  function asked() {
    const values = Object.fromEntries(new FormData(form));
    const texts = values.q === "" ? [] : spellings(values.q);
    const id = /^[0-9]+$/.test(values.q) ? Number(values.q) : null;
    const from = values.from === "" ? -Infinity : Number(values.from);
    const to = values.to === "" ? Infinity : Number(values.to);
    const anyId = values.from === "" && values.to === "";
    const idle = texts.length === 0 && !values.kind && !values.trained && anyId;
    const fits = (each) =>
      (texts.length === 0 || each.id === id && id !== null || texts.some((text) => each.text.includes(text))) &&
      (!values.kind || each.kind === values.kind) &&
      (!values.trained || each.trained === values.trained) &&
      (anyId || (each.id !== null && each.id >= from && each.id <= to));
    return { values, idle, fits };
  }

  function cell(row, name, label) {
    const made = row.insertCell();
    made.setAttribute("role", "cell");
    if (name) made.className = name;
    if (label) made.dataset.label = label;
    return made;
  }

  function span(parent, name, text) {
    const made = document.createElement("span");
    made.className = name;
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function spell(parent, parts) {
    const text = document.createElement("bdi");
    text.className = "text";
    for (const [part, name] of parts) {
      if (name) span(text, "spelt", part).title = name;
      else text.append(part);
    }
    parent.append(text);
  }

  function add(each) {
    const row = base.insertRow();
    row.setAttribute("role", "row");
    cell(row, "number id").textContent = each.id.toLocaleString("en");
    const name = cell(row, "name");
    const code = document.createElement("code");
    code.className = "token";
    name.append(code);
    spell(code, each.parts || [[each.token, ""]]);
    if (each.reading) spell(span(name, "reading", ""), each.reading);
    const kind = span(cell(row), `kind ${each.kind}`, "");
    span(kind, "swatch", "").setAttribute("aria-hidden", "true");
    kind.append(each.kind);
    for (let place = 0; place < 4; place += 1) cell(row);
  }

  function showMore() {
    for (const each of matches.slice(shown, shown + STEP)) add(each);
    shown = Math.min(shown + STEP, matches.length);
    more.hidden = shown === matches.length;
    more.textContent = `Show more (${(matches.length - shown).toLocaleString("en")} left)`;
  }

  function search() {
    const { idle, fits } = asked();
    let seen = 0;
    for (const each of lines) {
      each.line.hidden = !idle && !fits(each);
      if (!each.line.hidden) seen += 1;
    }
    base.replaceChildren();
    shown = 0;
    matches = idle ? [] : others.filter(fits);
    showMore();
    const count = seen + matches.length;
    found.textContent = idle ? asFound : `${count.toLocaleString("en")} ${count === 1 ? "token" : "tokens"} found.`;
  }

  function remember() {
    const held = Object.entries(asked().values).filter(([, value]) => value !== "");
    history.replaceState(null, "", held.length ? `#${new URLSearchParams(held)}` : "#tokens");
  }

  function recall() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return;
    const held = new URLSearchParams(hash);
    for (const field of form.elements) if (field.name) field.value = held.get(field.name) ?? "";
    search();
    document.getElementById("tokens").scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { search(); remember(); });
  form.addEventListener("reset", () => setTimeout(() => { search(); remember(); }));
  more.addEventListener("click", showMore);
  window.addEventListener("hashchange", recall);
  window.addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
  recall();
  unpack().then((held) => { others = held; if (!asked().idle) search(); document.body.dataset.ready = "yes"; }, () => {
    document.body.dataset.ready = "no";
    found.textContent = `${asFound} This browser cannot search the rest of the vocabulary.`;
  });
})();
