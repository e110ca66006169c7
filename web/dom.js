// Elements from data. Text only ever enters as text nodes, so nothing a device or a player sends becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "rect", "circle", "text", "g", "title", "polyline"]);

/** An element: h("p.note#id", {title: "…", onclick: f}, "text", child, …). Absent children are left out. */
export function h(spec, props, ...children) {
  const [, tag, rest] = /^([a-z0-9]*)(.*)$/.exec(spec);
  const svg = SVG_TAGS.has(tag) && !(tag === "title" && props?.html);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  for (const part of rest.match(/[.#][^.#]+/g) ?? []) {
    if (part[0] === "#") element.id = part.slice(1);
    else element.classList.add(part.slice(1));
  }
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" && !svg) element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Puts `children` in place of what is there, without touching a part that says the same. */
export function replace(parent, ...children) {
  const next = children.flat().filter(Boolean);
  const same =
    next.length === parent.childNodes.length &&
    next.every((node, place) => node.isEqualNode(parent.childNodes[place]));
  if (!same) parent.replaceChildren(...next);
}

/** A table from rows of cells; a cell is a node, a text or {n: number text} for right alignment. */
export function table(head, rows, props) {
  const cell = (tag) => (content) =>
    content !== null && typeof content === "object" && "n" in content
      ? h(`${tag}.n`, null, content.n)
      : h(tag, null, content);
  return h(
    "div.scroll",
    null,
    h(
      "table",
      props,
      h("thead", null, h("tr", null, head.map(cell("th")))),
      h("tbody", null, rows.map((row) => h("tr", row.props, (row.cells ?? row).map(cell("td"))))),
    ),
  );
}
