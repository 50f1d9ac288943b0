/* Draw the figures of the posterior, and leave what the page showed, as JSON, in the element "seen". */
async function act() {
  const seen = { marks: {} };
  for (const name of ["predicted", "parameters"]) {
    const drawing = document.querySelector(`#figure-${name} .drawing`);
    await drawFigure(drawing);
    seen.marks[name] = drawing.querySelectorAll("path.point").length;
  }
  const marks = document.querySelector("#figure-predicted .drawing").data.find((trace) => trace.customdata);
  seen.label = `${marks.text[0]}<br>${marks.hovertext[0]}`;
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
act();
