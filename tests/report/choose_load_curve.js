/* Select load curves as a reader does, and leave what the page showed, as JSON, in the element "seen". */
const drawing = document.querySelector("#figure-rates .drawing");
const stateOf = () => [drawing.dataset.figure, drawing.querySelectorAll("path.point").length, drawing.querySelectorAll(".textpoint").length];
async function act() {
  const seen = {};
  await drawFigure(drawing); seen.first = stateOf();
  document.querySelector("#figure-rates [data-step='-1']").click();
  document.querySelector("#figure-rates [data-step='1']").click();
  await drawFigure(drawing); seen.next = stateOf();
  seen.note = document.querySelector("#figure-rates .explanation").textContent;
  document.querySelector("[data-trial='0']").click();
  document.querySelector("[data-curve='0']").click();
  await drawFigure(drawing); seen.fromRow = stateOf();
  const grid = [...document.querySelectorAll("tr.details table")].find((t) => t.caption.textContent.startsWith("Probes"));
  seen.probes = [...grid.tBodies[0].rows].map((row) => row.cells[2].textContent);
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
act();
