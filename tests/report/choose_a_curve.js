/* Chooses load curves as a reader would and leaves what it saw, as JSON, in the element "seen". */
const drawing = document.querySelector("#figure-rates .drawing");
const state_of = () => [drawing.dataset.figure, drawing.querySelectorAll("path.point").length, drawing.querySelectorAll(".textpoint").length];
async function act() {
  const seen = {};
  await drawFigure(drawing); seen.first = state_of();
  document.querySelector("#figure-rates [data-step='-1']").click();
  document.querySelector("#figure-rates [data-step='1']").click();
  await drawFigure(drawing); seen.next = state_of();
  seen.said = document.querySelector("#figure-rates .said").textContent;
  document.querySelector("[data-trial='0']").click();
  document.querySelector("[data-curve='0']").click();
  await drawFigure(drawing); seen.fromRow = state_of();
  const grid = [...document.querySelectorAll("tr.details table")].find((t) => t.caption.textContent.startsWith("The probes"));
  seen.probes = [...grid.tBodies[0].rows].map((row) => row.cells[2].textContent);
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
act();
