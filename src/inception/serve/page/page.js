// The page: images go to /classify one by one, answers come back as bars and as a table.
"use strict";
const TOP = 5;
const AT_ONCE = 2;
const MAX_FILES = 1000;
const MAX_TRIES = 8;
const PLAIN = [401, 415, 503]; // the page's own words say all
const $ = (id) => document.getElementById(id);

const state = { language: "en", models: [], limits: {}, items: [], shown: null, token: "", problem: null, running: 0 };

// Words

function say(word, values = {}) {
  return WORDS[state.language][word].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function remembered(key, value) {
  try { // storage may be forbidden
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch { return null; }
}

function setLanguage(language) {
  state.language = language in WORDS ? language : "en";
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  $("language").textContent = say("otherLanguage");
  $("language").lang = state.language === "zh" ? "en" : "zh-CN";
  drawAll();
}

function percent(probability) {
  if (probability < 0.0001) return "< 0.01%";
  return `${(100 * probability).toFixed(probability < 0.001 ? 2 : 1)}%`;
}

// ImageNet's labels begin with an identifier that tells people nothing.
const readable = (label) => label.replace(/^n\d{8} /, "");

// Pieces of the page

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function bar(score) {
  const filling = make("span", { className: "bar" });
  filling.style.width = `${100 * score.probability}%`;
  filling.setAttribute("aria-hidden", "true");
  return make(
    "li", { title: score.label }, filling,
    make("span", { textContent: readable(score.label) }),
    make("span", { className: "percent", textContent: percent(score.probability) }),
  );
}

function drawAll() {
  drawAbout();
  drawProblem();
  drawAnswer();
  drawTable();
}

function drawAbout() {
  const model = currentModel();
  $("model-choice").hidden = state.models.length < 2;
  if (!model || !model.shape) { $("about").textContent = ""; return; }
  const [, height, width] = model.shape;
  $("about").textContent = say("about", { ...model, height, width });
}

function currentModel() {
  return state.models.find((model) => model.name === $("model").value) || state.models[0];
}

function problemText({ status, detail }) {
  const known = `error${status}` in WORDS.en;
  const text = say(known ? `error${status}` : "errorOther");
  return detail && !PLAIN.includes(status) ? `${text} (${detail})` : text;
}

function drawProblem() {
  const box = $("problem");
  box.hidden = !state.problem;
  const text = state.problem ? (state.problem.word ? say(state.problem.word, state.problem) : problemText(state.problem)) : "";
  if (box.textContent !== text) box.textContent = text;
}

function drawAnswer() {
  const item = state.shown;
  $("answer").hidden = !item;
  if (!item) return;
  const preview = $("preview");
  if (preview.getAttribute("src") !== item.url) preview.src = item.url;
  preview.alt = item.name;
  preview.hidden = item.unseen;
  $("preview-name").textContent = item.unseen ? say("noPreview", item) : item.name;
  const best = item.result && item.result.top[0];
  $("answer-title").textContent = best
    ? say("answerTitle", { label: readable(best.label), percent: percent(best.probability) })
    : say(item.problem ? "unreadable" : "working", item);
  $("top").replaceChildren(...(item.result ? item.result.top.map(bar) : []));
  drawHeads((item.result && item.result.auxiliary) || []);
  // A single image's problem stands in the box above.
  const problem = item.problem && state.items.length > 1 ? problemText(item.problem) : "";
  $("timing").textContent = item.result ? say("timing", milliseconds(item)) : problem;
  drawWhy(item);
}

function drawHeads(heads) {
  $("heads").hidden = heads.length === 0;
  $("head-list").replaceChildren(...heads.flatMap((head) => [
    make("h4", { textContent: say("headTitle", head) }),
    make("ol", { className: "bars" }, ...head.top.slice(0, 3).map(bar)),
  ]));
}

function milliseconds(item) {
  const { waiting_seconds: waiting, inference_seconds: inference, batch } = item.timing;
  return { total: Math.round(item.total), waiting: Math.round(1000 * waiting), inference: Math.round(1000 * inference), batch };
}

function drawTable() {
  $("table").hidden = state.items.length < 2;
  drawProgress();
  if (state.items.length < 2) $("rows").replaceChildren();
  else state.items.forEach(drawRow);
}

function drawProgress() {
  const done = state.items.filter(isDone).length;
  $("table-title").textContent = say("tableTitle", { done, all: state.items.length });
  $("progress").value = state.items.length ? done / state.items.length : 0;
  $("progress").hidden = done === state.items.length;
  $("csv").disabled = done < state.items.length;
}

const isDone = (item) => Boolean(item.result || item.problem);

function drawRow(item) {
  if (!item.row) {
    // On a phone the rows are no table to the style sheet; the roles keep them one for screen readers.
    const cell = (className) => make("td", { role: "cell", className });
    item.row = make("tr", { role: "row" }, cell(""), cell(""), cell("number"));
    const picture = make("img", { src: item.url, alt: "", loading: "lazy" });
    picture.addEventListener("error", () => picture.remove());
    const button = make("button", { type: "button" }, picture, make("span", { textContent: item.name }));
    button.addEventListener("click", () => { show(item); $("answer").scrollIntoView({ block: "nearest" }); });
    item.row.cells[0].append(button);
  }
  if (!item.row.isConnected) $("rows").append(item.row);
  const [image, answer, probability] = item.row.cells;
  image.firstChild.title = say("show", item);
  const best = item.result && item.result.top[0];
  answer.className = item.problem ? "failed" : "";
  answer.textContent = best ? readable(best.label) : item.problem ? problemText(item.problem) : say("waiting");
  probability.textContent = best ? percent(best.probability) : "";
}

function show(item) {
  state.shown = item;
  drawAnswer();
}

// The server

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw { status: 0 };
  }
  const value = await response.json().catch(() => ({}));
  if (response.ok) return value;
  const retry = Number(response.headers.get("Retry-After")) || 1;
  throw { status: response.status, detail: value.error, retry };
}

async function loadModels() {
  try {
    const { models, limits } = await ask("/models");
    Object.assign(state, { models, limits, problem: null });
    const chosen = $("model").value;
    $("model").replaceChildren(...models.map(({ name }) => make("option", { value: name, textContent: name })));
    if (models.some(({ name }) => name === chosen)) $("model").value = chosen;
    $("token-form").hidden = true;
    if (models.some((model) => !model.ready)) setTimeout(loadModels, 2000);
  } catch (problem) {
    if (problem.status === 401) $("token-form").hidden = false;
    // The first visit without a token is no mistake.
    state.problem = problem.status === 401 && !state.token ? null : { status: problem.status };
  }
  drawAll();
}

async function classify(item) {
  const model = currentModel();
  const query = new URLSearchParams({ top: TOP, auxiliary: model && model.auxiliary && model.auxiliary.length ? 1 : 0 });
  if (model) query.set("model", model.name);
  const headers = { "Content-Type": item.file.type || "application/octet-stream" };
  for (let attempt = 1; ; attempt += 1) {
    const start = performance.now();
    try {
      if (state.limits.max_body_bytes && item.file.size > state.limits.max_body_bytes) throw { status: 413 };
      const answer = await ask(`/classify?${query}`, { method: "POST", body: item.file, headers });
      item.total = performance.now() - start;
      item.result = answer.results[0];
      item.timing = answer.timing;
      return;
    } catch (problem) {
      if (problem.status === undefined) throw problem;
      if (problem.status !== 503 || attempt === MAX_TRIES) {
        item.problem = { status: problem.status, detail: problem.detail };
        if (problem.status === 401) $("token-form").hidden = false;
        return;
      }
      await new Promise((resume) => setTimeout(resume, 1000 * problem.retry));
    }
  }
}

async function work() {
  if (state.running >= AT_ONCE) return;
  state.running += 1;
  let item;
  while ((item = state.items.find((one) => !one.taken))) {
    item.taken = true;
    await classify(item);
    if (!state.items.includes(item)) continue;
    if (state.items.length > 1) { drawProgress(); drawRow(item); }
    if (state.shown === item) drawAnswer();
    announce(item);
  }
  state.running -= 1;
}

function announce(item) {
  const all = state.items.length;
  if (all === 1) {
    const best = item.result && item.result.top[0];
    state.problem = item.problem || null;
    drawProblem();
    if (best) {
      $("status").textContent = say("answerTitle", { label: readable(best.label), percent: percent(best.probability) });
      if (methods().length) askWhy(item);
    }
  } else if (state.items.every(isDone)) {
    $("status").textContent = say("tableStatus", { all, failed: state.items.filter((one) => one.problem).length });
  }
}

// Images from the person

function take(files) {
  if (!files.length) return;
  clear();
  if (files.length > MAX_FILES) state.problem = { word: "tooManyImages", count: MAX_FILES };
  state.items = files.slice(0, MAX_FILES).map((file) => ({
    file, name: file.webkitRelativePath || file.name || say("pasted"), url: URL.createObjectURL(file), unseen: false,
  }));
  show(state.items[0]);
  drawProblem();
  drawTable();
  for (let count = 0; count < AT_ONCE; count += 1) work();
}

function clear() {
  for (const item of state.items) {
    URL.revokeObjectURL(item.url);
    forget(item);
  }
  Object.assign(state, { items: [], shown: null, problem: null });
  $("rows").replaceChildren();
  $("status").textContent = "";
  drawAll();
}

async function pasteFromClipboard() {
  try {
    for (const entry of await navigator.clipboard.read()) {
      const type = entry.types.find((name) => name.startsWith("image/"));
      if (type) { take([new File([await entry.getType(type)], say("pasted"), { type })]); return; }
    }
  } catch { /* not allowed, or no such function without HTTPS */ }
  state.problem = { word: "nothingPasted" };
  drawProblem();
}

function saveCsv() {
  const ranks = Array.from({ length: TOP }, (_, index) => index);
  // What a spreadsheet would compute gets an apostrophe before it, as in the files of inception predict.
  const plain = (text) => (/^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? `'${text}` : text);
  const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = [["path", ...ranks.flatMap((rank) => [`label${rank + 1}`, `probability${rank + 1}`]), "error"]];
  for (const item of state.items) {
    const top = item.result ? item.result.top : [];
    const scores = ranks.flatMap((rank) => (top[rank] ? [top[rank].label, top[rank].probability.toFixed(6)] : ["", ""]));
    rows.push([item.name, ...scores, item.problem ? item.problem.detail || problemText(item.problem) : ""]);
  }
  const text = rows.map((row) => row.map((text) => quote(plain(text))).join(",")).join("\n");
  // The mark at the beginning tells spreadsheets that this is UTF-8.
  const url = URL.createObjectURL(new Blob(["\ufeff", text, "\n"], { type: "text/csv" }));
  make("a", { href: url, download: "answers.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Events

function listenForImages() {
  for (const [button, input] of [["choose", "files"], ["photo", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => { take([...$(input).files]); $(input).value = ""; });
  }
  $("paste").addEventListener("click", pasteFromClipboard);
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  let depth = 0;
  const over = (change) => { depth = Math.max(0, depth + change); $("drop").classList.toggle("over", depth > 0); };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    take([...event.dataTransfer.files]);
  });
}

function start() {
  listenForImages();
  listenForWhy();
  $("language").addEventListener("click", () => {
    const language = state.language === "zh" ? "en" : "zh";
    remembered("language", language);
    setLanguage(language);
  });
  $("model").addEventListener("change", () => {
    drawAbout();
    take(state.items.map((item) => item.file)); // the same images, asked of the other model
  });
  $("csv").addEventListener("click", saveCsv);
  $("clear").addEventListener("click", clear);
  $("preview").addEventListener("error", () => { if (state.shown) { state.shown.unseen = true; drawAnswer(); } });
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = $("token").value.trim();
    loadModels();
  });
  const wanted = new URLSearchParams(location.search).get("lang") || remembered("language") || navigator.language || "en";
  setLanguage(wanted.toLowerCase().startsWith("zh") ? "zh" : "en");
  loadModels();
}

start();
