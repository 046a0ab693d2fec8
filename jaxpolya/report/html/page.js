// Draws the plots and builds the tables in which questions and responses are looked up.
// Whatever a model or a data set wrote becomes text (textContent), never markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const ROWS = 10, MORE = 50; // rows of a table at first, and with each further step
  const SYMBOLS = { correct: "✓", wrong: "✗", unparseable: "∅", timeout: "⏱", crash: "✗", harness_error: "!" };
  const VERDICTS = { unparseable: "no answer found", timeout: "time-out", harness_error: "the verifier failed" };

  // Elements ------------------------------------------------------------------------------------------------------------

  function make(tag, options, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (name === "class") element.className = value;
      else if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      else if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) element.append(child); // a string becomes a text node
    }
    return element;
  }

  const many = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more || one + "s"}`;
  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

  // Plots ---------------------------------------------------------------------------------------------------------------

  const options = {
    renderer: "svg",
    ast: true, // expressions are interpreted: nothing is compiled from text
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
  };
  let waiting = 0;

  function draw(place, spec) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "begun";
    waiting += 1;
    vegaEmbed(place, spec, options)
      .then(() => { place.dataset.drawn = "yes"; })
      .catch((error) => {
        place.dataset.drawn = "failed";
        place.append(make("p", { class: "failed" }, `This plot could not be drawn: ${error.message}`));
        console.error(error);
      })
      .finally(() => {
        waiting -= 1;
        if (!waiting) document.documentElement.dataset.ready = "yes";
      });
  }

  function drawWithin(root) {
    for (const place of root.querySelectorAll("[data-chart]")) {
      if (place.closest("details:not([open])")) continue; // it has no width before it is opened
      draw(place, data.charts[place.dataset.chart]);
    }
  }

  // Responses -----------------------------------------------------------------------------------------------------------

  function verdict(answer) {
    const says = VERDICTS[answer.verdict] || answer.verdict;
    return `${SYMBOLS[answer.verdict] || "?"} ${says}`;
  }

  function response(answer) {
    const facts = make("p", { class: "facts" }, make("b", {}, verdict(answer)));
    const add = (text, strong) => facts.append(" · ", text, strong === undefined ? "" : make("b", {}, strong));
    if (answer.count > 1) add("", `× ${answer.count}`);
    if (answer.extracted !== undefined) add("read as ", answer.extracted);
    if (answer.heuristic) add(answer.slot === undefined ? answer.heuristic : `${answer.heuristic} (slot ${answer.slot})`);
    if (answer.adherence !== undefined) add("adherence ", number(answer.adherence, 3));
    if (answer.reward !== undefined) add("reward ", number(answer.reward));
    if (answer.advantage !== undefined) add("advantage ", number(answer.advantage));
    if (answer.kept) add("kept for ", answer.kept.join(", "));
    const remarks = [];
    if (answer.cut) remarks.push("cut at the token limit");
    if (answer.detail) remarks.push(`the verifier: ${answer.detail}`);
    remarks.push(...(answer.remarks || []));
    if (answer.why) remarks.push(`not kept: ${answer.why}`);
    return make("article", { class: answer.verdict === "correct" ? "answer right" : "answer" },
      facts,
      remarks.length ? make("p", { class: "remark" }, remarks.join("; ")) : null,
      answer.labels ? make("p", { class: "facts" }, `heuristics found: ${answer.labels.join(", ")}`) : null,
      make("pre", {}, answer.text || "(empty)"));
  }

  function responses(cell) {
    const shown = (cell.answers || []).map(response);
    const hidden = cell.answers ? cell.hidden || 0 : cell.n;
    if (hidden) shown.push(make("p", { class: "hidden-count" }, cell.answers
      ? `${many(hidden, "more response")} of other wording, not in this file`
      : `${many(hidden, "response")}, not in this file`));
    return shown;
  }

  function heading(name, text) {
    const title = make("h4", {});
    const swatch = document.querySelector(`[data-swatch="${CSS.escape(name)}"]`);
    if (swatch) title.append(swatch.cloneNode(true), " ");
    title.append(name, text ? make("span", { class: "interval" }, ` ${text}`) : "");
    return title;
  }

  function asked(row) {
    return [make("p", { class: "asked" }, row.question),
      make("p", { class: "facts" }, "reference ", make("b", {}, row.reference || "–"), ` · ${row.id}`)];
  }

  // A table to sort, to filter, and to open rows of ----------------------------------------------------------------------

  function share(part, whole) {
    if (!whole) return make("td", { class: "share" }, "–");
    const bar = make("b", {});
    bar.style.width = `${(100 * part) / whole}%`;
    return make("td", { class: "share" }, `${part} of ${whole}`, make("i", { "aria-hidden": "true" }, bar));
  }

  function lookup(place, { rows, columns, filters, detail, noun }) {
    const state = { text: "", filter: filters[0], column: null, down: false, limit: ROWS };
    const count = make("p", { class: "count", "aria-live": "polite" });
    const body = make("tbody", {});
    const more = make("button", { class: "more-rows", type: "button", on: { click: () => { state.limit += MORE; show(); } } });

    const heads = columns.map((column) => {
      const sort = () => {
        if (state.column === column) state.down = !state.down;
        else Object.assign(state, { column, down: Boolean(column.falling) });
        for (const [i, head] of heads.entries()) {
          if (columns[i] === column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
          else head.removeAttribute("aria-sort");
        }
        show();
      };
      return make("th", { scope: "col" }, make("button", { type: "button", on: { click: sort } }, column.title));
    });

    function chosen() {
      const text = state.text.toLowerCase();
      const found = rows.filter((row) => state.filter.keeps(row) && (!text || row.search.includes(text)));
      if (!state.column) return found;
      const value = state.column.value, way = state.down ? -1 : 1;
      return [...found].sort((a, b) => {
        const x = value(a), y = value(b);
        return way * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
      });
    }

    function line(row) {
      const open = make("button", { type: "button", "aria-expanded": "false" }, make("span", {}, row.question));
      const tr = make("tr", {}, make("td", { class: "question" }, open), columns.slice(1).map((column) => column.cell(row)));
      open.addEventListener("click", () => {
        const opened = open.getAttribute("aria-expanded") === "true";
        open.setAttribute("aria-expanded", String(!opened));
        if (opened) tr.nextSibling.remove();
        else {
          const inside = make("div", { class: "opened" }, detail(row));
          tr.after(make("tr", { class: "detail" }, make("td", { colspan: columns.length }, inside)));
          drawWithin(inside);
        }
      });
      return tr;
    }

    function show() {
      const found = chosen();
      body.replaceChildren(...found.slice(0, state.limit).map(line));
      count.textContent = `${found.length.toLocaleString("en")} of ${many(rows.length, noun)}`;
      const left = found.length - state.limit;
      more.hidden = left <= 0;
      more.textContent = `Show ${Math.min(left, MORE)} more`;
    }

    const search = make("input", { type: "search", placeholder: "Search questions, references and responses", "aria-label": "Search",
      on: { input: (event) => { state.text = event.target.value; state.limit = ROWS; show(); } } });
    const select = make("select", { "aria-label": "Filter", on: { change: (event) => {
      state.filter = filters[event.target.selectedIndex]; state.limit = ROWS; show();
    } } }, filters.map((filter) => make("option", {}, filter.title)));
    place.append(
      make("div", { class: "controls" }, search, filters.length > 1 ? select : null, count),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": noun },
        make("table", {}, make("thead", {}, make("tr", {}, heads)), body)),
      more);
    show();
  }

  const searchable = (row, answers) =>
    [row.id, row.question, row.reference, ...answers.flatMap((a) => [a.text, a.extracted])].filter(Boolean).join("\n").toLowerCase();
  const rate = (cell) => (cell && cell.n ? cell.correct / cell.n : -1);
  const question = { title: "question", value: (row) => row.question };
  const reference = { title: "reference", value: (row) => row.reference || "", cell: (row) => make("td", { class: "reference" }, row.reference || "–") };

  function questions(place) {
    const rows = data.sets.flatMap((set) => (set.questions || []).map((row) => ({ ...row, set: set.name })));
    for (const row of rows) row.search = searchable(row, Object.values(row.cells).flatMap((cell) => cell.answers || []));
    const arms = data.arms.filter((arm) => rows.some((row) => row.cells[arm]));
    const solved = (row, arm) => rate(row.cells[arm]) > 0;
    const flagged = (row) => Object.values(row.cells).some((cell) => (cell.answers || []).some((a) => a.remarks));
    const filters = [{ title: "all questions", keeps: () => true }];
    if (data.sets.length > 1) filters.push(...data.sets.map((set) => ({ title: `only ${set.name}`, keeps: (row) => row.set === set.name })));
    if (arms.includes("base")) {
      for (const arm of arms.filter((name) => name !== "base")) {
        filters.push({ title: `solved by ${arm}, never by base`, keeps: (row) => solved(row, arm) && !solved(row, "base") });
        filters.push({ title: `solved by base, never by ${arm}`, keeps: (row) => !solved(row, arm) && solved(row, "base") });
      }
    }
    filters.push({ title: "solved by no arm", keeps: (row) => !arms.some((arm) => solved(row, arm)) });
    filters.push({ title: "with a remark of the audit", keeps: flagged });
    const columns = [question];
    if (data.sets.length > 1) columns.push({ title: "set", value: (row) => row.set, cell: (row) => make("td", {}, row.set) });
    columns.push(reference, ...arms.map((arm) => ({
      title: arm, falling: true, value: (row) => rate(row.cells[arm]),
      cell: (row) => share(row.cells[arm] ? row.cells[arm].correct : 0, row.cells[arm] ? row.cells[arm].n : 0),
    })));
    const detail = (row) => [asked(row), make("div", { class: "sides" }, arms.filter((arm) => row.cells[arm]).map((arm) => {
      const cell = row.cells[arm];
      return make("div", {}, heading(arm, `${cell.correct} of ${cell.n} right`), responses(cell));
    }))].flat();
    lookup(place, { rows, columns, filters, detail, noun: "question" });
  }

  function lessons(place) {
    const rows = data.lessons.map((row) => {
      const totals = Object.values(row.tried).reduce((sum, [n, right, kept]) => [sum[0] + n, sum[1] + right, sum[2] + kept], [0, 0, 0]);
      return { ...row, n: totals[0], correct: totals[1], kept: totals[2], search: searchable(row, row.candidates || []) };
    });
    const filters = [
      { title: "all questions", keeps: () => true },
      { title: "with kept responses", keeps: (row) => row.kept > 0 },
      { title: "with none kept", keeps: (row) => row.kept === 0 },
    ];
    const columns = [question, reference,
      { title: "right", falling: true, value: rate, cell: (row) => share(row.correct, row.n) },
      { title: "kept", falling: true, value: (row) => row.kept, cell: (row) => make("td", {}, String(row.kept)) }];
    const detail = (row) => {
      const [kept, left] = [true, false].map((yes) => (row.candidates || []).filter((one) => Boolean(one.kept) === yes));
      const hidden = row.candidates ? row.hidden || 0 : row.n;
      return [...asked(row), make("div", { class: "sides" },
        make("div", {}, make("h4", {}, `Kept (${row.kept})`), kept.map(response)),
        make("div", {}, make("h4", {}, `Left (${row.n - row.kept})`), left.map(response),
          hidden ? make("p", { class: "hidden-count" }, `${many(hidden, "more response")}, not in this file`) : null))];
    };
    lookup(place, { rows, columns, filters, detail, noun: "training question" });
  }

  function histories(place) {
    const rows = data.histories.map((row) => {
      const rounds = Object.values(row.rounds).flat();
      return { ...row, times: rounds.length, search: searchable(row, rounds.flatMap((round) => round.answers || [])) };
    });
    const arms = data.arms.filter((arm) => rows.some((row) => row.rounds[arm]));
    const sum = (row, arm) => (row.rounds[arm] || []).reduce((all, round) => ({ n: all.n + round.n, correct: all.correct + round.correct }), { n: 0, correct: 0 });
    const columns = [question, reference,
      { title: "times asked", falling: true, value: (row) => row.times, cell: (row) => make("td", {}, String(row.times)) },
      ...arms.map((arm) => ({ title: arm, falling: true, value: (row) => rate(sum(row, arm)), cell: (row) => share(sum(row, arm).correct, sum(row, arm).n) }))];
    const detail = (row) => {
      const inside = asked(row);
      if (Object.values(row.rounds).some((rounds) => rounds.length > 1)) {
        const plot = make("div", { class: "plot" });
        const values = Object.entries(row.rounds).flatMap(([name, rounds]) =>
          rounds.map((round) => ({ name, step: round.step, mean: round.correct / round.n, mark: true, says: `${round.correct} of ${round.n}` })));
        inside.push(make("figure", { class: "chart" }, make("figcaption", {}, "Share of right rollouts by step"), plot));
        requestAnimationFrame(() => draw(plot, { ...data.history, data: { values } })); // it needs its width first
      }
      inside.push(make("div", { class: "sides" }, arms.filter((arm) => row.rounds[arm]).map((arm) =>
        make("div", {}, heading(arm), row.rounds[arm].map((round) => [
          make("p", { class: "facts" }, make("b", {}, `step ${round.step}`), `: ${round.correct} of ${round.n} right`,
            round.reward === undefined ? "" : `, mean reward ${number(round.reward)}`),
          ...responses(round)])))));
      return inside;
    };
    lookup(place, { rows, columns, filters: [{ title: "all", keeps: () => true }], detail, noun: "RL question" });
  }

  // Begin ---------------------------------------------------------------------------------------------------------------

  const kinds = { questions, lessons, histories };
  for (const place of document.querySelectorAll("[data-lookup]")) kinds[place.dataset.lookup](place);
  for (const details of document.querySelectorAll("details.more")) details.addEventListener("toggle", () => drawWithin(details));
  drawWithin(document);
  if (!waiting) document.documentElement.dataset.ready = "yes";
})();
