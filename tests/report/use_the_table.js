/* Use the table as a reader does, and leave what the page showed, as JSON, in the element "browser-result". */
const result = {};
const cells = (n) => [...document.querySelectorAll("#trials tbody tr.row")].map((tr) => tr.children[n].textContent);
const column = (title) => [...document.querySelectorAll("#trials thead th")].findIndex((th) => th.textContent.startsWith(title));
function press(title) { document.querySelectorAll("#trials thead button")[column(title)].click(); }
function find(text) { const box = document.getElementById("find"); box.value = text; box.dispatchEvent(new Event("input")); }
async function act() {
  result.byRank = cells(column("Rank"));
  press("Output"); result.most = cells(column("Output"));
  press("Output"); result.least = cells(column("Output"));
  result.sorted = document.querySelector("#trials th[aria-sort]").getAttribute("aria-sort");
  press("Rank");
  const box = document.querySelector("#statuses input[value=feasible]");
  box.click(); result.notFeasible = cells(column("Verdict")); box.click();
  find("gb07"); result.found = document.getElementById("shown").textContent; find("");
  document.querySelector("[data-trial]").click();
  result.command = document.querySelector("tr.details .command code").textContent;
  result.bottleneck = document.querySelector("tr.details .bottleneck").textContent;
  result.tables = [...document.querySelectorAll("tr.details caption")].map((caption) => caption.textContent);
  result.label = LABELS.get(0);
  result.held = cells(column("SLO"));
  await Promise.all(drawings.map(drawFigure));
  result.drawn = drawings.map((d) => [d.dataset.figure, d.querySelectorAll(".point, .scatterlayer path").length]);
  const gd = document.querySelector("[data-figure=ttft_p99]");
  gd.emit("plotly_click", { points: [{ customdata: 38 }] });
  result.opened = document.querySelector("#trial-38 + tr.printed + tr.details") !== null;
  const axis = gd._fullLayout.xaxis;
  const line = Number(gd.querySelector(".shapelayer path").getAttribute("d").match(/^M([\d.]+)/)[1]);
  result.limit = [line, axis._offset + axis.l2p(4.5)];
  document.getElementById("browser-result").textContent = JSON.stringify(result);
}
act();
