/* Return the text of an element that holds it compressed, as base64. */
async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
const DATA = JSON.parse(await unpacked("data"));
const TRIALS = DATA.rows.map((row) => Object.fromEntries(DATA.fields.map((name, i) => [name, row[i]])));
const STATUSES = Object.fromEntries(DATA.statuses.map((s) => [s.key, s]));
const PAGE_ROWS = 25;

const dash = "–";
const isNumber = (value) => typeof value === "number";
function digits(value, significant) {
  if (!isNumber(value)) return dash;
  return value.toLocaleString("en", { minimumSignificantDigits: significant, maximumSignificantDigits: significant });
}
function plain(value) {
  if (value === null || value === undefined) return dash;
  return isNumber(value) ? String(Number(value.toPrecision(6))) : String(value);
}
/* A figure in the unit in which people read it; every figure of a latency is recorded in seconds. */
const inUnit = (seconds, latency) => (isNumber(seconds) ? seconds * latency.scale : seconds);
const headed = (name, unit) => `${name}, ${unit}`;

/* trial.spread: number of shuffles (orders of the dataset's lengths), number that held, [mean, sd, min, max] of each of DATA.limits. */
function spreadOf(trial, i) {
  const spread = trial.spread && trial.spread[2][i];
  return spread && spread.map((v) => digits(inUnit(v, DATA.limits[i]), 3));
}
function spreadText(trial, i) {
  const spread = spreadOf(trial, i);
  if (!spread) return null;
  const [[mean, sd, min, max], { unit }] = [spread, DATA.limits[i]];
  return `${mean} ± ${sd} ${unit} (mean and sd), ${min} to ${max} ${unit} over ${trial.spread[0]} shuffles of the dataset's lengths`;
}
function heldText(trial) {
  return trial.spread && `${trial.spread[1]} of ${trial.spread[0]}`;
}

/* A column: the value it sorts by, how it shows the value, whether only measured trials have one, whether it is a setting of the space,
   which print shows below the row, and whether the highest is best. */
const COLUMNS = [
  { title: "Rank", value: (t) => t.rank },
  { title: "Trial", value: (t) => t.number, open: true },
  { title: "Configuration", value: (t) => t.kind, text: true },
  { title: "Verdict", value: (t) => STATUSES[t.status].word, text: true, chip: true },
  { title: "Output", unit: "tokens/s/GPU", best: "highest", value: (t) => t.tps_gpu, show: (v, t) => t.output, measured: true },
  { title: "Rate", unit: "queries/s", value: (t) => t.qps, show: (v) => v.toFixed(2), measured: true },
  ...DATA.limits.map((c, i) => ({
    title: c.title.replaceAll(" ", "\u00a0"), unit: c.unit, value: (t) => (t[c.field] ? inUnit(t[c.field][c.statistic], c) : null),
    show: (v) => digits(v, 3), limit: c.limit, measured: true, tip: (t) => spreadText(t, i),
  })),
  ...(TRIALS.some((t) => t.spread) ? [{
    title: "SLO\u00a0held", unit: "shuffles", best: "highest", value: (t) => (t.spread ? t.spread[1] / t.spread[0] : null), show: (v, t) => heldText(t) || dash, measured: true,
    tip: (t) => (t.spread ? `the SLO holds in ${heldText(t)} shuffles (orders of the dataset's lengths)` : "measured with one shuffle only: not near a limit, or not repeated"),
  }] : []),
  ...DATA.params.map((param, i) => ({
    title: param.title, unit: param.unit, value: (t) => t.params[i], show: plain, setting: true,
    text: DATA.rows.some((_, r) => typeof TRIALS[r].params[i] === "string"),
  })),
  { title: "Source", value: (t) => t.source, text: true },
];
const SETTINGS = COLUMNS.filter((c) => c.setting);
const MEASURED = COLUMNS.filter((c) => c.measured).length;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const HAYSTACKS = TRIALS.map((t) =>
  [`#${t.number}`, t.id, t.source, t.label, t.reason, STATUSES[t.status].word,
    ...(t.overrides || []).map((i) => DATA.overrides[i])].join(" ").toLowerCase());
const table = document.getElementById("trials");
const state = { column: 0, down: false, find: "", statuses: new Set(Object.keys(STATUSES)), rows: PAGE_ROWS, open: new Set() };

function compare(a, b) {
  const [x, y] = [a, b].map((i) => COLUMNS[state.column].value(TRIALS[i]));
  const [noX, noY] = [x, y].map((v) => v === null || v === undefined);
  if (noX || noY) return noX - noY || a - b;
  const order = isNumber(x) && isNumber(y) ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  return (state.down ? -order : order) || a - b;
}

function chosen() {
  const wanted = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [];
  TRIALS.forEach((t, i) => {
    if (state.statuses.has(t.status) && wanted.every((word) => HAYSTACKS[i].includes(word))) rows.push(i);
  });
  return rows.sort(compare);
}

function cell(trial, column) {
  const value = column.value(trial);
  const shown = column.show ? column.show(value, trial) : plain(value);
  const over = isNumber(column.limit) && isNumber(value) && value > column.limit;
  const td = make("td", { class: [column.text && "text", over && "over", column.setting && "setting"].filter(Boolean).join(" ") || null, title: column.tip && column.tip(trial) });
  if (column.chip) td.append(make("span", { class: `chip ${trial.status}`, title: STATUSES[trial.status].meaning }, shown));
  else if (column.open) td.append(make("button", { type: "button", class: "open", "data-trial": trial.number, "aria-expanded": String(state.open.has(trial.number)), "aria-label": `Trial ${trial.number}, details` }, shown));
  else td.append(shown);
  return td;
}

function row(trial) {
  const tr = make("tr", { class: "row", id: `trial-${trial.number}` });
  let reasonShown = false;
  for (const column of COLUMNS) {
    if (column.measured && trial.tps_gpu === null) {
      if (!reasonShown) tr.append(make("td", { class: "text reason", colspan: MEASURED }, trial.reason || "no reason recorded"));
      reasonShown = true;
    } else tr.append(cell(trial, column));
  }
  return tr;
}

/* Name the settings of a trial in one line, for print; a sheet has no room for a column of each. */
function printedSettings(trial) {
  const texts = SETTINGS.map((c) => [c.title, plain(c.value(trial)), c.unit].filter(Boolean).join(" "));
  return make("tr", { class: "printed" }, make("td", { class: "text", colspan: COLUMNS.length - SETTINGS.length }, texts.join(", ")));
}

function grid(caption, head, lines) {
  const body = lines.map(([name, ...values]) => make("tr", {}, make("th", { class: "text", scope: "row" }, name), ...values.map((v) => make("td", {}, v))));
  const top = head && make("thead", {}, make("tr", {}, make("td"), ...head.map((h) => make("th", { scope: "col" }, h))));
  return make("table", {}, make("caption", {}, caption), top, make("tbody", {}, ...body));
}

/* Rows of the details: name, unit, and the fields of outcome.json for both columns. */
const STAGES = [
  ["wait for prefill", "s", "queue_s", "tail_queue_s"], ["– frontend before it", "s", "frontend_in_s", "tail_frontend_in_s"],
  ["prefill", "s", "prefill_s", "tail_prefill_s"], ["– if the workers were idle", "s", null, "tail_prefill_uncontended_s"],
  ["KV transfer", "s", "transfer_s", "tail_transfer_s"], ["wait for a decode slot", "s", "slot_s", "tail_slot_s"],
  ["first decode step", "s", "first_step_s", "tail_first_step_s"], ["– frontend after it", "s", "frontend_out_s", "tail_frontend_out_s"],
];
const POOLS = [
  ["prefill workers busy", "%", "prefill_utilisation", "prefill_utilisation_max"], ["decode batch", "", "decode_batch", "decode_batch_max"],
  ["decode slots used", "%", "decode_slots_frac", null], ["KV cache used", "%", "kv_used_frac", "kv_used_frac_max"],
];
function stage(value, unit) {
  if (!isNumber(value)) return dash;
  if (unit === "%") return `${digits(value * 100, 3)} %`;
  return unit === "s" && value < 0.1 ? `${digits(value * 1e3, 3)} ms` : `${digits(value, 3)}${unit && " " + unit}`;
}
function stageRows(trial, lines) {
  const figure = (name) => (name ? trial.stages[DATA.stages.indexOf(name)] : null);
  return lines.map(([name, unit, ...names]) => [name, ...names.map(figure)].map((v, i) => (i ? stage(v, unit) : v)))
    .filter((line) => line.slice(1).some((text) => text !== dash));
}

function spreadGrid(trial) {
  const lines = DATA.limits.map((c, i) => [headed(c.title, c.unit), spreadOf(trial, i)]).filter(([, spread]) => spread)
    .map(([name, spread]) => [name, ...spread]);
  return grid(`Over ${trial.spread[0]} shuffles (orders of the dataset's lengths); the SLO holds in ${trial.spread[1]}`, ["mean", "sd", "lowest", "highest"], lines);
}

/* Each probe, in the order run: length, status, rate, queries, and the figure of each of DATA.limits in seconds. */
function probeGrid(probes) {
  const lines = probes.map(([length, status, qps, queries, ...figures], n) =>
    [`${n + 1}, ${length}`, status, plain(qps), queries.toLocaleString("en"), ...figures.map((v, i) => digits(inUnit(v, DATA.limits[i]), 3))]);
  return grid("Probes, in the order run", ["verdict", "queries/s", "queries", ...DATA.limits.map((c) => headed(c.title, c.unit))], lines);
}

/* Whether a live run measured what was meant: each check, its result, what was found; what was expected where it is off. */
function checkList(checks) {
  const items = checks.map(([title, result, found, threshold]) =>
    make("li", {}, make("strong", {}, `${title}: ${result}. `), found + (result === "off" ? ` (expected: ${threshold})` : "")));
  return make("div", { class: "checks" }, make("p", {}, make("strong", {}, "Was this run what it was meant to be?")), make("ul", {}, ...items));
}

function bottleneckText([name, evidence, recommendations]) {
  const list = make("ul", {}, ...recommendations.map(([text, overrides]) => make("li", {}, text + (overrides && ": "), overrides ? make("code", {}, overrides) : null)));
  const found = make("p", {}, make("strong", {}, `Bottleneck: ${name}; `), evidence);
  return make("div", { class: "bottleneck" }, found, ...(recommendations.length ? [make("p", {}, "To try:"), list] : []));
}

function details(trial) {
  const cells = make("div", { class: "cells" });
  const params = DATA.params.map((p, i) => [p.title, plain(trial.params[i]) + (p.unit && ` ${p.unit}`)]);
  if (params.length) cells.append(grid("Settings of the search space", null, params));
  const measured = DATA.latencies.filter((latency) => trial[latency.field])
    .map((latency) => [headed(latency.name, latency.unit), ...trial[latency.field].map((v) => digits(inUnit(v, latency), 3))]);
  if (measured.length) cells.append(grid("Percentiles over requests", DATA.percentiles, measured));
  if (trial.spread) cells.append(spreadGrid(trial));
  const times = trial.stages ? stageRows(trial, STAGES) : [];
  const pools = trial.stages ? stageRows(trial, POOLS) : [];
  if (times.length) cells.append(grid("Where the time to first token goes", ["mean", "slowest 2 %"], times));
  if (pools.length) cells.append(grid("How full the pools are", ["mean", "fullest worker"], pools));
  const run = [
    ["Trial id", trial.id], ["Rate completed", `${digits(trial.completed_qps, 4)} queries/s`],
    ["Tokens/s by LoadGen's count", digits(trial.loadgen_tps, 5)], ["Attempts", String(trial.attempts)], ["GPU-hours", digits(trial.hours, 3)],
  ];
  cells.append(grid("The run", null, run));
  if (trial.capacity) cells.append(probeGrid(trial.capacity.probes));
  const td = make("td", { colspan: COLUMNS.length });
  if (trial.reason) td.append(make("p", {}, make("strong", {}, "Reason: "), trial.reason));
  if (trial.capacity) td.append(make("p", {}, make("strong", {}, "Capacity: "), trial.capacity.text, " ", make("button", { type: "button", "data-curve": trial.number }, "Show the load curve")));
  if (trial.bottleneck) td.append(bottleneckText(trial.bottleneck));
  td.append(cells);
  if (trial.checks.length) td.append(checkList(trial.checks));
  if (trial.overrides) {
    const text = [DATA.command, ...trial.overrides.map((i) => DATA.overrides[i])].join(" ");
    td.append(make("div", { class: "command" }, make("pre", { tabindex: "0" }, make("code", {}, text)), make("button", { type: "button", "data-copy": true }, "Copy")));
  }
  return make("tr", { class: "details" }, td);
}

/* Let names of settings wrap after an underscore. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

function head() {
  const tr = make("tr");
  COLUMNS.forEach((column, i) => {
    const sorted = i === state.column ? (state.down ? "descending" : "ascending") : null;
    const button = make("button", { type: "button", "data-column": i }, ...breakable(column.title));
    if (column.unit) button.append(make("span", { class: "unit" }, column.unit));
    const printed = column.unit ? `${column.title}, ${column.unit}` : column.title;
    tr.append(make("th", { scope: "col", class: [column.text && "text", column.setting && "setting"].filter(Boolean).join(" ") || null, "aria-sort": sorted, "data-printed": printed }, button));
  });
  table.tHead.replaceChildren(tr);
}

function draw() {
  const rows = chosen();
  const body = document.createDocumentFragment();
  for (const i of rows.slice(0, state.rows)) {
    body.append(row(TRIALS[i]));
    if (SETTINGS.length) body.append(printedSettings(TRIALS[i]));
    if (state.open.has(TRIALS[i].number)) body.append(details(TRIALS[i]));
  }
  table.tBodies[0].replaceChildren(body);
  const shown = Math.min(rows.length, state.rows);
  document.getElementById("shown").textContent = `${shown.toLocaleString("en")} of ${TRIALS.length.toLocaleString("en")} shown` + (rows.length > shown ? `, ${(rows.length - shown).toLocaleString("en")} more match` : "");
  document.getElementById("more").hidden = rows.length <= shown;
}

function sortBy(column) {
  state.down = state.column === column ? !state.down : Boolean(COLUMNS[column].best);
  state.column = column;
  head();
  draw();
  table.tHead.querySelector(`[data-column="${column}"]`).focus();
}

function toggle(number) {
  if (!state.open.delete(number)) state.open.add(number);
  draw();
  table.querySelector(`[data-trial="${number}"]`).focus();
}

/* Show the row of a trial with its details, and clear the filters; a click on a mark calls this. */
function openTrial(number) {
  Object.assign(state, { find: "", statuses: new Set(Object.keys(STATUSES)) });
  document.getElementById("find").value = "";
  document.querySelectorAll("#statuses input").forEach((box) => { box.checked = true; });
  const index = chosen().findIndex((i) => TRIALS[i].number === number);
  state.rows = Math.max(state.rows, index + 1);
  state.open.add(number);
  draw();
  document.getElementById(`trial-${number}`).scrollIntoView({ block: "center" });
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.column !== undefined) sortBy(Number(button.dataset.column));
  else if (button.dataset.trial !== undefined) toggle(Number(button.dataset.trial));
  else if (button.dataset.copy !== undefined) copy(button);
  else if (button.dataset.curve !== undefined) showCurve(Number(button.dataset.curve));
  else if (button.id === "more") { state.rows += 4 * PAGE_ROWS; draw(); }
});

if (table) {
  const counts = {};
  for (const t of TRIALS) counts[t.status] = (counts[t.status] || 0) + 1;
  for (const status of DATA.statuses.filter((s) => counts[s.key])) {
    const box = make("input", { type: "checkbox", checked: true, value: status.key });
    box.addEventListener("change", () => { state.statuses[box.checked ? "add" : "delete"](status.key); draw(); });
    document.getElementById("statuses").append(make("label", { title: status.meaning }, box, ` ${status.word} (${counts[status.key].toLocaleString("en")})`));
  }
  document.getElementById("find").addEventListener("input", (event) => { state.find = event.target.value; state.rows = PAGE_ROWS; draw(); });
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  head();
  draw();
}
