/* Draws what the search learned and leaves what it saw, as JSON, in the element "seen". */
async function act() {
  const seen = { marks: {} };
  for (const name of ["expected", "parameters"]) {
    const drawing = document.querySelector(`#figure-${name} .drawing`);
    await drawFigure(drawing);
    seen.marks[name] = drawing.querySelectorAll("path.point").length;
  }
  const marks = document.querySelector("#figure-expected .drawing").data.find((trace) => trace.customdata);
  seen.label = `${marks.text[0]}<br>${marks.hovertext[0]}`;
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
act();
