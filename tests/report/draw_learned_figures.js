/* Draw the figures of the posterior, and leave what the page showed, as JSON, in the element "browser-result". */
async function act() {
  const result = { marks: {} };
  for (const name of ["predicted", "parameters"]) {
    const drawing = document.querySelector(`#figure-${name} .drawing`);
    await drawFigure(drawing);
    result.marks[name] = drawing.querySelectorAll("path.point").length;
  }
  const marks = document.querySelector("#figure-predicted .drawing").data.find((trace) => trace.customdata);
  result.label = `${marks.text[0]}<br>${marks.hovertext[0]}`;
  document.getElementById("browser-result").textContent = JSON.stringify(result);
}
act();
