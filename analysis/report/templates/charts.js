// Points say their names, sizes and patches are switched on and off, and the page is light or dark. Without this script
// the charts stand as they were drawn, and the browser itself shows a point's title.
{
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true"); // what it says is the point's own label
  let shown = null;

  const hide = () => {
    tip.remove();
    shown?.classList.remove("shown");
    shown = null;
  };
  const show = (point) => {
    if (point === shown) return;
    hide();
    shown = point;
    point.classList.add("shown");
    tip.textContent = point.dataset.said;
    document.body.append(tip);
    const at = point.querySelector(".hit").getBoundingClientRect(), box = tip.getBoundingClientRect();
    const left = at.left + at.width / 2 - box.width / 2, above = at.top - box.height - 6;
    const widest = document.documentElement.clientWidth - box.width - 4;
    tip.style.left = `${scrollX + Math.max(4, Math.min(left, widest))}px`;
    tip.style.top = `${scrollY + (above < 0 ? at.bottom + 6 : above)}px`;
  };
  for (const point of document.querySelectorAll(".point")) {
    const title = point.querySelector("title");
    point.dataset.said = title.textContent;
    point.setAttribute("aria-label", title.textContent.replaceAll("\n", ", "));
    title.remove(); // the browser would show it a second time
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("click", () => show(point));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
    // Tab goes from line to line, the arrows along one.
    point.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const points = [...point.parentElement.querySelectorAll(".point")];
      const next = step && points[points.indexOf(point) + step];
      if (!next) return;
      event.preventDefault();
      point.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

  const switches = [...document.querySelectorAll(".legend input")];
  const members = [...document.querySelectorAll(".chart [data-size]")];
  for (const input of switches) {
    input.hidden = false;
    input.addEventListener("change", () => {
      const { group } = input.dataset;
      for (const other of switches)
        if (other.dataset.group === group && other.value === input.value) other.checked = input.checked;
      const off = switches.filter((each) => !each.checked);
      for (const member of members)
        member.classList.toggle("off", off.some((each) => member.dataset[each.dataset.group] === each.value));
    });
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) isIntersecting ? seen.add(target.id) : seen.delete(target.id);
    const first = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }, { rootMargin: "-10% 0px -60% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));

  const label = document.createElement("label"), choice = document.createElement("select");
  label.className = "theme";
  choice.append(new Option("automatic", ""), new Option("light", "light"), new Option("dark", "dark"));
  const word = document.createElement("span");
  word.textContent = "Colours";
  label.append(word, choice);
  document.querySelector("nav").append(label);
  const dress = () => {
    if (choice.value) document.documentElement.dataset.theme = choice.value;
    else delete document.documentElement.dataset.theme;
  };
  try { // a browser may keep nothing for a page that was opened from disk
    choice.value = localStorage.getItem("ditbench-theme") ?? "";
  } catch {}
  dress();
  choice.addEventListener("change", () => {
    dress();
    try {
      localStorage.setItem("ditbench-theme", choice.value);
    } catch {}
  });
}
