// Sorts tables and recomputes the calculator. The page is complete without it.
"use strict";

// A column is sorted by data-value where cells have one, else by text; missing values stay last.
function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell.hasAttribute("data-value")) return cell.textContent.trim();
  const text = cell.getAttribute("data-value");
  return text === "" ? null : Number(text);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), document.documentElement.lang, { numeric: true });
}

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return descending ? compare(b.value, a.value) : compare(a.value, b.value);
  });
  body.append(...rows.map((entry) => entry.row));
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortTable(table, column, descending);
    });
  });
}

// The formula of fedtsd/report/cost.py: a round lasts as long as its slowest site.
function roundSeconds(round, line) {
  return Math.max(...round.sites.map(([up, down, seconds]) =>
    (up / line.upload + down / line.download) * 8 / 1e6 + seconds * line.slowdown));
}

// Sums one number per round; rounds beyond the measured ones are like the last.
function carried(values, rounds) {
  const measured = values.slice(0, rounds).reduce((sum, value) => sum + value, 0);
  return measured + Math.max(rounds - values.length, 0) * values[values.length - 1];
}

function threeDigits(value) {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function writeTime(seconds, units) {
  const [, size, pattern] = units.time.find(([least]) => seconds >= least);
  return pattern.replace("{value}", threeDigits(seconds / size));
}

function writeBytes(bytes, units) {
  const [size, name] = units.bytes.find(([least]) => bytes >= least) || units.bytes.at(-1);
  return `${size > 1 ? threeDigits(bytes / size) : Math.round(bytes)} ${name}`;
}

function forecast(rounds, line) {
  const seconds = carried(rounds.map((round) => roundSeconds(round, line)), line.rounds);
  const bytes = carried(rounds.map((round) => round.bytes), line.rounds);
  const turns = carried(rounds.map((round) => round.count), line.rounds);
  return [seconds / line.rounds, seconds, bytes / turns, bytes];
}

function calculate(form, data) {
  const line = Object.fromEntries(["upload", "download", "slowdown", "rounds"].map(
    (name) => [name, Number(form.elements[name].value)]));
  const good = Object.values(line).every((value) => value > 0 && Number.isFinite(value))
    && Number.isInteger(line.rounds);
  document.getElementById("calculator-problem").hidden = good;
  if (!good) return;
  for (const row of document.querySelectorAll("#forecast tbody tr")) {
    forecast(data.runs[Number(row.dataset.row)], line).forEach((value, i) => {
      const cell = row.cells[i + 1];
      cell.dataset.value = value;
      cell.textContent = (i < 2 ? writeTime : writeBytes)(value, data.units);
    });
  }
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
const calculator = document.getElementById("calculator");
if (calculator) {
  const data = JSON.parse(document.getElementById("calculator-data").textContent);
  calculator.addEventListener("input", () => calculate(calculator, data));
  calculator.addEventListener("submit", (event) => event.preventDefault());
}
// Printed pages show every setting.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
});
