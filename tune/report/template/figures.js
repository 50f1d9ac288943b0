const LABELS = new Map(TRIALS.map((t) => [t.number, `<b>trial ${t.number}</b> · ${escaped(t.label)}${shuffleSummary(t)}`]));
function shuffleSummary(trial) {
  if (!trial.spread) return "";
  const figures = DATA.limits.map((c, i) => [c, spreadOf(trial, i)]).filter(([, spread]) => spread)
    .map(([c, [mean, sd]]) => `, ${c.title} ${mean} ± ${sd} ${c.unit}`);
  return `<br>SLO held in ${heldText(trial)} shuffles${figures.join("")}`;
}
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/* Run plotly.js; every drawing waits for it. */
const plotlyReady = unpacked("plotly").then((text) => document.head.append(make("script", {}, text)));

/* Replace names of CSS variables by the colours of the current scheme. */
function coloured(value, style) {
  if (typeof value === "string") {
    return value.replace(/^var\((--[\w-]+)\)$/, (_, name) => style.getPropertyValue(name).trim());
  }
  if (Array.isArray(value)) return value.map((item) => coloured(item, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
}

function layout(given, style) {
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--grid"), linecolor: colour("--rule"), tickcolor: colour("--rule"), showline: true, ticks: "outside" };
  const page = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--text") },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--rule"), font: { color: colour("--text") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--link") },
    autosize: true,
  };
  const axes = Object.entries(given).filter(([key]) => /^[xy]axis\d*$/.test(key)).map(([key, own]) => [key, { ...axis, ...own }]);
  return { ...given, ...page, ...Object.fromEntries(axes) };
}

/* Decode an array that plotly packed as base64. */
function numbersOf(packed) {
  if (Array.isArray(packed)) return packed;
  const kinds = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };
  const bytes = Uint8Array.from(atob(packed.bdata), (c) => c.charCodeAt(0));
  return Array.from(new kinds[packed.dtype](bytes.buffer));
}

async function drawFigure(element) {
  await plotlyReady;
  const style = getComputedStyle(document.documentElement);
  const spec = coloured(JSON.parse(document.getElementById(`spec-${element.dataset.figure}`).textContent), style);
  for (const trace of spec.data) {
    if (!trace.customdata) continue;
    trace.customdata = numbersOf(trace.customdata);
    trace.text ??= trace.customdata.map((number) => LABELS.get(number));
  }
  const first = !element.dataset.drawn;
  await Plotly.react(element, spec.data, layout(spec.layout, style), { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "autoScale2d", "resetScale2d"]] });
  if (first) element.on("plotly_click", (event) => { if (event.points[0].customdata !== undefined) openTrial(event.points[0].customdata); });
  element.dataset.drawn = "yes";
}

/* Show the view that is selected in the list of a figure, with its note above the drawing. */
function chooseView(list) {
  const figure = list.closest("figure");
  const drawing = figure.querySelector(".drawing");
  const { height, note } = list.selectedOptions[0].dataset;
  figure.querySelector(".explanation").textContent = note;
  drawing.style.height = `${height}px`;
  drawing.dataset.figure = list.value;
  drawFigure(drawing);
}
for (const list of document.querySelectorAll("[data-views]")) {
  list.addEventListener("change", () => chooseView(list));
  for (const button of list.closest("figure").querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => {
      const index = list.selectedIndex + Number(button.dataset.step);
      if (index < 0 || index >= list.options.length) return;
      list.selectedIndex = index;
      chooseView(list);
    });
  }
}
/* Show the load curve of a trial; its open row in the table calls this. */
function showCurve(number) {
  const list = document.querySelector("[data-views=rates]");
  if (list) {
    list.value = `rates-${number}`;
    chooseView(list);
  }
  document.getElementById("figure-rates").scrollIntoView({ block: "start" });
}

/* Draw what is on the screen at once, and the rest one by one when the browser is idle, so that it is there for print. */
const drawings = [...document.querySelectorAll("[data-figure]")];
const redraw = () => drawings.filter((e) => e.dataset.drawn).forEach(drawFigure);
const whenIdle = window.requestIdleCallback || ((task) => setTimeout(task, 50));
function drawWhenIdle([element, ...rest]) {
  if (!element) return;
  whenIdle(async () => {
    if (!element.dataset.drawn) await drawFigure(element);
    drawWhenIdle(rest);
  });
}
const isOnScreen = (element) => element.getBoundingClientRect().top < innerHeight;
drawings.filter(isOnScreen).forEach(drawFigure);
if (document.readyState === "complete") drawWhenIdle(drawings);
else addEventListener("load", () => drawWhenIdle(drawings));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("print").addEventListener("change", redraw);
addEventListener("beforeprint", () => drawings.forEach(drawFigure));
/* What a script outside this module may use, such as a test. */
globalThis.tunePage = { LABELS, TRIALS, drawings, drawFigure };
