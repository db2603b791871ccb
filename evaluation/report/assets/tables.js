// Tables whose rows can be sorted by any column.
function readNumber(text) {
  const match = /[-−–]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?/i.exec(text);
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

const compareTexts = (a, b) => a.localeCompare(b, "en", { numeric: true });

// heads: [text, group, marks]; body: rows of [text, rank, marks, whether the row above has the same text].
function sortableTable({ caption, head, body, labels, className = "table" }) {
  const table = element("table");
  if (caption) table.append(element("caption", { textContent: caption }));
  const headRow = element("tr");
  const rows = body.map((cells, place) => ({ cells, place }));
  const tbody = element("tbody");
  let by = -1;
  let down = false;
  const isText = (column) => column < labels || className.includes("texts");

  const draw = () => {
    const order = by < 0 ? rows : [...rows].sort((a, b) => {
      const [x, y] = [a.cells[by][0], b.cells[by][0]];
      const sign = down ? -1 : 1;
      if (isText(by)) return (compareTexts(x, y) || a.place - b.place) * sign;
      const [noX, noY] = [readNumber(x) === null, readNumber(y) === null];
      if (noX !== noY) return noX ? 1 : -1; // dashes stay below
      return (compareCells(x, y) || a.place - b.place) * sign;
    });
    tbody.replaceChildren(...order.map(({ cells }) => element("tr", {}, ...cells.map(([text, rank, marks, again], i) => {
      const cell = element(i < labels ? "th" : "td", {});
      if (i < labels) cell.scope = "row";
      const shown = element(rank === 1 ? "b" : rank === 2 ? "i" : "span", { textContent: again && by < 0 ? "" : text });
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
