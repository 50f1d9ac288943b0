/* Select load curves as a reader does, and leave what the page showed, as JSON, in the element "browser-result". */
const drawing = document.querySelector("#figure-rates .drawing");
const stateOf = () => [drawing.dataset.figure, drawing.querySelectorAll("path.point").length, drawing.querySelectorAll(".textpoint").length];
async function act() {
  const result = {};
  await drawFigure(drawing); result.first = stateOf();
  document.querySelector("#figure-rates [data-step='-1']").click();
  document.querySelector("#figure-rates [data-step='1']").click();
  await drawFigure(drawing); result.next = stateOf();
  result.note = document.querySelector("#figure-rates .explanation").textContent;
  document.querySelector("[data-trial='0']").click();
  document.querySelector("[data-curve='0']").click();
  await drawFigure(drawing); result.fromRow = stateOf();
  const grid = [...document.querySelectorAll("tr.details table")].find((t) => t.caption.textContent.startsWith("Probes"));
  result.probes = [...grid.tBodies[0].rows].map((row) => row.cells[2].textContent);
  document.getElementById("browser-result").textContent = JSON.stringify(result);
}
act();
