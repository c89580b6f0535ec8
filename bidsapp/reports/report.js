"use strict";
(function () {
  function button(text, title, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.title = title;
    made.addEventListener("click", action);
    return made;
  }

  function label(text) {
    const made = document.createElement("span");
    made.className = "hp-label";
    made.textContent = text;
    return made;
  }

  // Layers of a flicker figure: show one alone, or let two change places.
  function flickerTools(svg, tools) {
    const layers = Array.from(svg.querySelectorAll(".layer"));
    const buttons = [];
    function press(which) {
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === which)));
    }
    function arrange(below, above, run) {
      layers.forEach((layer, number) => {
        layer.classList.toggle("base", number === below);
        layer.classList.toggle("top", number === above);
      });
      svg.classList.toggle("run", run);
      svg.classList.toggle("still", !run);
    }
    function add(text, title, below, above, run) {
      const made = button(text, title, () => { arrange(below, above, run); press(made); });
      buttons.push(made);
      tools.append(made);
      return made;
    }
    tools.append(label("Show"));
    layers.forEach((layer, number) => add(layer.dataset.label, "Show this image alone", number, number, false));
    tools.append(label("Flicker"));
    const last = layers.length - 1;
    if (last > 1) { add("template ↔ affine", "Let the two images change places", 0, 1, true); }
    add("template ↔ final", "Let the two images change places", 0, last, true);
    if (last > 1) { add("affine ↔ final", "Let the two images change places", 1, last, true); }
    const guides = button("Outlines", "Show or hide the outlines", () => {
      const shown = guides.getAttribute("aria-pressed") === "true";
      svg.querySelectorAll(".guides, .layer .line").forEach((one) => { one.style.display = shown ? "none" : ""; });
      guides.setAttribute("aria-pressed", String(!shown));
    });
    guides.setAttribute("aria-pressed", "true");
    tools.append(label("Draw"), guides);
    press(buttons[last]);
  }

  function contourTools(svg, tools) {
    const made = button("Outlines", "Show or hide all outlines", () => {
      const shown = made.getAttribute("aria-pressed") === "true";
      svg.querySelectorAll(".structure").forEach((one) => { one.style.display = shown ? "none" : ""; });
      made.setAttribute("aria-pressed", String(!shown));
    });
    made.setAttribute("aria-pressed", "true");
    tools.append(label("Draw"), made);
  }

  // One layer per lambda: a slider chooses which one is shown.
  function sliderTools(svg, tools) {
    const steps = Array.from(svg.querySelectorAll(".step"));
    const chosen = steps.findIndex((step) => "chosen" in step.dataset);
    const range = document.createElement("input");
    Object.assign(range, { type: "range", min: 0, max: steps.length - 1, step: 1, value: chosen });
    range.setAttribute("aria-label", "Regularisation weight lambda");
    range.title = "Arrow keys move by one step, Home and End go to the ends";
    const shown = document.createElement("output");
    function show() {
      const now = Number(range.value);
      steps.forEach((step, number) => step.classList.toggle("on", number === now));
      const at = Number(steps[now].dataset.lam);
      shown.textContent = `λ = ${at.toFixed(2)}${now === chosen ? " (taken)" : ""}`;
      range.setAttribute("aria-valuetext", steps[now].dataset.label);
    }
    range.addEventListener("input", show);
    tools.append(label("Smoothness λ"), range, shown,
      button("λ taken", "Back to the value that was taken", () => { range.value = chosen; show(); }), label("Draw"));
    for (const [text, part] of [["Outlines", "outlines"], ["Grid", "grid"]]) {
      const made = button(text, "Show or hide them", () => {
        made.setAttribute("aria-pressed", String(!svg.classList.toggle(`no-${part}`)));
      });
      made.setAttribute("aria-pressed", "true");
      tools.append(made);
    }
    show();
  }

  function enlarge(figure) {
    const wide = figure.classList.toggle("hp-wide");
    document.body.style.overflow = wide ? "hidden" : "";
  }

  function save(figure) {
    const svg = figure.querySelector("svg");
    const image = figure.querySelector("img");
    const link = document.createElement("a");
    link.download = figure.dataset.name || "figure.svg";
    link.href = image ? image.src : URL.createObjectURL(new Blob([svg.outerHTML], { type: "image/svg+xml" }));
    link.click();
  }

  document.querySelectorAll(".hp-figure").forEach((figure) => {
    const tools = document.createElement("div");
    tools.className = "hp-tools";
    const svg = figure.querySelector("svg");
    if (svg && svg.classList.contains("hp-flicker")) { flickerTools(svg, tools); }
    if (svg && svg.classList.contains("hp-slider")) { sliderTools(svg, tools); }
    if (svg && svg.classList.contains("hp-contours")) { contourTools(svg, tools); }
    tools.append(
      label("Figure"),
      button("Enlarge", "Fill the window; Escape closes", () => enlarge(figure)),
      button("Save", "Save this figure as a file", () => save(figure)));
    figure.before(tools);
    figure.addEventListener("dblclick", () => enlarge(figure));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { document.querySelectorAll(".hp-wide").forEach(enlarge); }
  });
  document.querySelectorAll("[data-copy]").forEach((holder) => {
    const made = button("Copy the text", "Copy the methods text", () => {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(holder.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
      made.textContent = "Copied";
    });
    made.className = "hp-copy";
    holder.append(made);
  });

  const links = new Map(Array.from(document.querySelectorAll(".hp-top nav a"), (link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      links.forEach((link, name) => link.classList.toggle("hp-here", name === entry.target.id));
    });
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll(".hp-section").forEach((section) => seen.observe(section));
})();
