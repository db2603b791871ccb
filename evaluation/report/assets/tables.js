// Tables whose rows can be sorted by any column.
function readNumber(text) {
  const match = /[-−–]?\d[\d,]*(?:\.\d+)?/.exec(text);
  if (!match || /^\s*—/.test(text)) return null;
  const value = Number(match[0].replace(/[−–]/, "-").replaceAll(",", ""));
  const part = /^\s*(\d+)\/(\d+)\s*$/.exec(text);
  return part ? Number(part[1]) / Number(part[2]) : value;
}

function compareCells(a, b) {
  const [x, y] = [readNumber(a), readNumber(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x === null ? 1 : -1;
  return a.localeCompare(b);
}

// heads: [text, group, marks]; body: rows of [text, rank, marks].
function sortableTable({ caption, head, body, labels, className = "table" }) {
  const table = element("table");
  if (caption) table.append(element("caption", { textContent: caption }));
  const headRow = element("tr");
  const rows = body.map((cells, place) => ({ cells, place }));
  const tbody = element("tbody");
  let by = -1;
  let down = false;

  const draw = () => {
    const order = by < 0 ? rows : [...rows].sort((a, b) => {
      const [x, y] = [a.cells[by][0], b.cells[by][0]];
      const [noX, noY] = [readNumber(x) === null, readNumber(y) === null];
      if (by >= labels && noX !== noY) return noX ? 1 : -1; // dashes stay below
      return (compareCells(x, y) || a.place - b.place) * (down ? -1 : 1);
    });
    tbody.replaceChildren(...order.map(({ cells }) => element("tr", {}, ...cells.map(([text, rank, marks], i) => {
      const cell = element(i < labels ? "th" : "td", {});
      if (i < labels) cell.scope = "row";
      const shown = element(rank === 1 ? "b" : rank === 2 ? "i" : "span", { textContent: text });
      if (rank) shown.title = rank === 1 ? "decidedly the best" : "the best number, not decided";
      cell.append(shown);
      if (rank === 1) cell.classList.add("decided");
      if (marks) cell.append(element("sup", { textContent: marks.split("").join(",") }));
      return cell;
    }))));
  };

  head.forEach(([text, group, marks], i) => {
    const button = element("button", { type: "button", textContent: group && group !== text ? `${group}: ${text}` : text });
    if (marks) button.append(element("sup", { textContent: marks.split("").join(",") }));
    const cell = element("th", { scope: "col" }, button);
    button.addEventListener("click", () => {
      down = by === i ? !down : /↑/.test(text);
      by = i;
      for (const other of headRow.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      draw();
    });
    headRow.append(cell);
  });
  table.append(element("thead", {}, headRow), tbody);
  draw();
  return element("div", { className, tabIndex: 0, role: "region", ariaLabel: caption || "Table" }, table);
}

function plainTable(head, body) {
  const rows = body.map((row) => element("tr", {}, ...row.map((cell, i) => {
    const made = element(i ? "td" : "th", {}, cell instanceof Node ? cell : String(cell ?? "—"));
    if (!i) made.scope = "row";
    return made;
  })));
  const heads = head.map((text) => element("th", { scope: "col", textContent: text }));
  return element("div", { className: "table plain", tabIndex: 0 }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)));
}
