// Why an answer: the map over the image, and the branches of every module. And the example images.
"use strict";

const methods = () => (currentModel() && currentModel().explain) || [];

async function askWhy(item, choice = {}) {
  if (item.why) forget(item);
  const why = { method: methods()[0], target: item.result.top[0].index, ...choice, end: new AbortController() };
  item.why = why;
  drawWhy(item);
  const query = new URLSearchParams({ model: currentModel().name, method: why.method, target: why.target });
  const request = { method: "POST", body: item.file, signal: why.end.signal };
  request.headers = { "Content-Type": item.file.type || "application/octet-stream" };
  const start = performance.now();
  for (let attempt = 1; item.why === why && !why.answer && !why.problem; attempt += 1) {
    try {
      const answer = await ask(`/explain?${query}`, request);
      if (item.why !== why) return;
      why.urls = Object.fromEntries(["seen", "map"].map((name) => [name, pictureUrl(answer.pictures[name])]));
      why.answer = answer;
      why.total = performance.now() - start;
    } catch (problem) {
      if (problem.status === undefined) throw problem;
      if (problem.status !== 503 || attempt === MAX_TRIES) why.problem = problem;
      else await new Promise((resume) => setTimeout(resume, 1000 * problem.retry));
    }
  }
  if (item.why === why && state.shown === item) drawWhy(item);
}

function forget(item) {
  if (!item.why) return;
  item.why.end.abort();
  Object.values(item.why.urls || {}).forEach((url) => URL.revokeObjectURL(url));
  item.why = null;
}

function pictureUrl(encoded) {
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}

function drawWhy(item) {
  const possible = item.result && methods().length > 0;
  $("why").hidden = !possible;
  if (!possible) return;
  const why = item.why || {};
  const best = item.result.top[0].index;
  fill($("why-target"), item.result.top.map((score) => [score.index, readable(score.label)]), why.target ?? best);
  fill($("why-method"), methods().map((name) => [name, WORDS[state.language].methods[name]]), why.method);
  $("why-ask").hidden = Boolean(item.why);
  $("why-answer").hidden = !why.answer;
  $("why-status").textContent = whyStatus(item, why);
  if (!why.answer) return;
  drawMap(item, why);
  drawBranches(why.answer);
}

function whyStatus(item, why) {
  if (why.problem) return problemText(why.problem);
  if (!item.why) return "";
  if (!why.answer) return say("whyWorking");
  const inference = Math.round(1000 * why.answer.timing.inference_seconds);
  return `${whereText(why.answer)} ${say("whyTiming", { total: Math.round(why.total), inference })}`;
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  if (chosen !== undefined) select.value = chosen;
}

function whereText(answer) {
  const shares = answer.places.flat();
  const most = Math.max(...shares);
  const label = readable(answer.target.label);
  if (!(most > 0)) return say("whyNowhere", { label });
  const place = WORDS[state.language].places[shares.indexOf(most)];
  return say("whyPlace", { label, place, percent: `${Math.round(100 * most)}%` });
}

function drawMap(item, why) {
  const label = readable(why.answer.target.label);
  for (const [id, name] of [["why-seen", "seen"], ["why-map", "map"]]) {
    if ($(id).getAttribute("src") !== why.urls[name]) $(id).src = why.urls[name];
  }
  $("why-seen").alt = say("whyAlt", { name: item.name, label, where: whereText(why.answer) });
  $("why-legend").textContent = say(why.answer.signed ? "whyLegendSigned" : "whyLegend", { label });
  drawStrength();
}

function drawStrength() {
  const shown = $("why-shown").checked;
  $("why-map").hidden = !shown;
  $("why-map").style.opacity = $("why-strength").value / 100;
  $("why-strength").disabled = !shown;
  $("why-strength").setAttribute("aria-valuetext", `${$("why-strength").value}%`);
  $("why-seen").classList.toggle("under", shown);
}

function drawBranches({ modules, kinds }) {
  $("branches").hidden = modules.length === 0;
  const names = Object.keys(kinds);
  const kindName = (kind) => (kind === "pool" ? say("pool") : kind);
  const order = [...names].sort((one, other) => kinds[other].gradient - kinds[one].gradient);
  const listed = order.slice(0, 4).map((kind) => `${kindName(kind)} ${percent(kinds[kind].gradient)}`);
  $("branch-sum").textContent = say("branchSum", { kinds: listed.join(say("comma")) });
  const head = (scope, textContent) => make("th", { scope, textContent, className: scope === "col" ? "number" : "" });
  $("branch-heads").replaceChildren(
    make("th", { scope: "col", textContent: say("columnModule") }), ...names.map((kind) => head("col", kindName(kind))),
  );
  $("branch-rows").replaceChildren(...modules.map(({ module, branches }) => {
    const shares = names.map((kind) => sum(branches.filter((branch) => branch.kind === kind).map((branch) => branch.gradient)));
    const most = Math.max(...shares);
    return make("tr", {}, head("row", module), ...shares.map((share) => shareCell(share, share === most)));
  }));
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function shareCell(share, isMost) {
  const filling = make("span", { className: "share" });
  filling.style.width = `${100 * share}%`;
  filling.setAttribute("aria-hidden", "true");
  const text = make(isMost ? "strong" : "span", { textContent: `${Math.round(100 * share)}%` });
  return make("td", { className: "number" }, text, filling);
}

async function takeExample(button) {
  const url = button.querySelector("img").getAttribute("src");
  try {
    const data = await (await fetch(url)).blob();
    take([new File([data], url.split("/").pop(), { type: data.type })]);
  } catch {
    state.problem = { status: 0 };
    drawProblem();
  }
}

function listenForWhy() {
  const again = () => askWhy(state.shown, { method: $("why-method").value, target: Number($("why-target").value) });
  $("why-ask").addEventListener("click", again);
  $("why-target").addEventListener("change", again);
  $("why-method").addEventListener("change", again);
  $("why-shown").addEventListener("change", drawStrength);
  $("why-strength").addEventListener("input", drawStrength);
  for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", () => takeExample(button));
}
