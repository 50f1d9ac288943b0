/* Use the table as a reader does, and leave what the page showed, as JSON, in the element "seen". */
const seen = {};
const cells = (n) => [...document.querySelectorAll("#trials tbody tr.row")].map((tr) => tr.children[n].textContent);
const column = (title) => [...document.querySelectorAll("#trials thead th")].findIndex((th) => th.textContent.startsWith(title));
function press(title) { document.querySelectorAll("#trials thead button")[column(title)].click(); }
function find(text) { const box = document.getElementById("find"); box.value = text; box.dispatchEvent(new Event("input")); }
async function act() {
  seen.byRank = cells(column("Rank"));
  press("Output"); seen.most = cells(column("Output"));
  press("Output"); seen.least = cells(column("Output"));
  seen.sorted = document.querySelector("#trials th[aria-sort]").getAttribute("aria-sort");
  press("Rank");
  const box = document.querySelector("#statuses input[value=feasible]");
  box.click(); seen.notFeasible = cells(column("Verdict")); box.click();
  find("gb07"); seen.found = document.getElementById("shown").textContent; find("");
  document.querySelector("[data-trial]").click();
  seen.command = document.querySelector("tr.details .command code").textContent;
  seen.bottleneck = document.querySelector("tr.details .bottleneck").textContent;
  seen.tables = [...document.querySelectorAll("tr.details caption")].map((caption) => caption.textContent);
  seen.label = LABELS.get(0);
  seen.held = cells(column("SLO"));
  await Promise.all(drawings.map(drawFigure));
  seen.drawn = drawings.map((d) => [d.dataset.figure, d.querySelectorAll(".point, .scatterlayer path").length]);
  const gd = document.querySelector("[data-figure=ttft]");
  gd.emit("plotly_click", { points: [{ customdata: 38 }] });
  seen.opened = document.querySelector("#trial-38 + tr.details") !== null;
  const axis = gd._fullLayout.xaxis;
  const line = Number(gd.querySelector(".shapelayer path").getAttribute("d").match(/^M([\d.]+)/)[1]);
  seen.limit = [line, axis._offset + axis.l2p(axis.d2l(4.5)), axis.type];
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
act();
