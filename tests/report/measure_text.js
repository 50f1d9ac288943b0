/* Measure every text that is shown: its contrast with what lies behind it, and its size in points. */
(() => {
  const channels = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
  const over = (front, back) => front.rgb.map((c, i) => c * front.a + back[i] * (1 - front.a));
  const luminance = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => (element ? over(channels(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : [255, 255, 255]);
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !element.closest(".hidden, .skip, .modebar, script, style");
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (!isShown(element) || !hasText(element)) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const front = over(channels(element instanceof SVGElement ? style.fill : style.color), back);
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    found.push({
      text: element.textContent.trim().slice(0, 40), place: element.closest("section, header, figure")?.id ?? element.tagName, isDrawn: element instanceof SVGElement,
      contrast: (high + 0.05) / (low + 0.05), sizePt: parseFloat(style.fontSize) * 0.75, isDark: luminance(back) < 0.2,
    });
  }
  return found;
})()
