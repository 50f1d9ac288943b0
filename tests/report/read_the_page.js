/* Read the page as a screen reader does, and leave what it finds, as JSON, in the element "browser-result". */
const all = (selector) => [...document.querySelectorAll(selector)];
const named = (element) => {
  const by = element.getAttribute("aria-labelledby");
  const text = by ? document.getElementById(by)?.textContent : element.getAttribute("aria-label");
  return (text || element.textContent || "").trim();
};
async function act() {
  const ids = all("[id]").map((e) => e.id);
  const result = {
    headings: all("h1, h2, h3").map((e) => [Number(e.tagName[1]), e.textContent]),
    landmarks: ["header", "nav", "main"].map((tag) => all(tag).length),
    unnamed: all("section, nav, figure, [role=region], [role=img], button, input, select").filter((e) => !named(e) && !e.labels?.length).map((e) => e.outerHTML.slice(0, 90)),
    repeatedIds: ids.filter((id, i) => ids.indexOf(id) !== i),
    brokenLinks: all("a[href^='#']").filter((a) => !document.getElementById(a.hash.slice(1))).map((a) => a.hash),
    undescribed: all("[aria-describedby]").filter((e) => !document.getElementById(e.getAttribute("aria-describedby"))).length,
    tablesWithoutHeads: all("table").filter((t) => !t.caption || !t.querySelector("th[scope=col]")).length,
    shortAlternatives: all(".drawing").filter((e) => named(e).length < 40).length,
    rows: all("#trials tbody tr.row").length,
    terms: all("a.term").map((a) => a.textContent.toLowerCase()),
    width: [document.documentElement.scrollWidth, innerWidth],
    top: Object.fromEntries([".headline", ".tiles", ".kinds", "#answer .command"].map((s) => [s, Math.round(document.querySelector(s).getBoundingClientRect().bottom)])),
  };
  const term = document.querySelector("a.term");
  term.focus();
  result.explained = getComputedStyle(term, "::after").content;
  result.sorted = document.querySelector("#trials th[aria-sort]").getAttribute("aria-sort");
  document.getElementById("browser-result").textContent = JSON.stringify(result);
}
act();
