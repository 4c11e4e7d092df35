const module = URL.createObjectURL(new Blob([BUNDLE], { type: "text/javascript" }));
const { jQuery: $ } = await import(module);
// Without this script, the page shows all tables. With it, a reader can sort and filter some.
// Numbers are sorted by size. In both directions, the last rows are those without a number and
// those with too few photos.
const order = $.fn.dataTable.ext.type.order;
const last = (value) => value === 1e300;
Object.assign(order, {
  "figure-pre": Number,
  "figure-asc": (a, b) => a - b,
  "figure-desc": (a, b) => last(a) - last(b) || b - a,
});
for (const table of document.querySelectorAll("table.interactive")) {
  const caption = table.caption.textContent;
  const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const made = $(table).DataTable({
    paging: false,
    info: true,
    order: [],
    columnDefs: [{ targets: ".number", type: "figure" }],
    autoWidth: false,
    layout: { topStart: "search", topEnd: null, bottomStart: "info", bottomEnd: null },
    language: { search: "Find in the table", info: "_TOTAL_ rows", infoFiltered: "of _MAX_" },
  });
  const container = made.table().container();
  const tools = document.createElement("div");
  tools.className = "filters";
  for (const name of JSON.parse(table.dataset.filters)) {
    const column = titles.indexOf(name);
    const values = [...new Set(made.column(column).nodes().toArray().map((n) => n.textContent))];
    const select = document.createElement("select");
    select.append(new Option("all", ""));
    for (const value of values) select.append(new Option(value, value));
    select.addEventListener("change", () => {
      const exact = select.value;
      made.column(column).search(exact === "" ? "" : (text) => text === exact).draw();
    });
    const label = document.createElement("label");
    label.append(name + " ", select);
    tools.append(label);
  }
  container.prepend(tools);
  container.setAttribute("aria-label", caption);
  container.setAttribute("role", "group");
}
