"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The page's colours and sizes around a figure's own layout.
  function themed(own) {
    const text = colour("--text"), soft = colour("--soft"), grid = colour("--grid");
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: text, size: 12, family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"},
      margin: {l: 8, r: 10, t: 8, b: 8}, autosize: true, dragmode: narrow.matches ? false : "zoom",
      legend: {orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: {size: 12, color: text}},
      hoverlabel: {bgcolor: colour("--card"), bordercolor: soft, font: {color: text}},
      ...own,
    };
    for (const axis of ["xaxis", "yaxis"]) {
      layout[axis] = {
        automargin: true, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: {color: soft, size: 11},
        zeroline: false, fixedrange: narrow.matches, ...(own[axis] || {}),
      };
      layout[axis].title = {...(layout[axis].title || {}), font: {color: soft, size: 12}};
    }
    return layout;
  }

  // Plotly takes the ground below a heatmap for white when it chooses the colour of its numbers.
  const readable = (traces) => traces.map((trace) => trace.type === "heatmap" && dark.matches
    ? {...trace, textfont: {...trace.textfont, color: colour("--text")}} : trace);

  // One figure that plotly refuses leaves the others alone.
  const draw = async (place) => {
    const figure = figures[Number(place.dataset.figure)];
    try {
      await Plotly.react(place, readable(figure.data), themed(figure.layout), {displayModeBar: false});
    } catch (error) {
      place.textContent = "This figure can't be drawn.";
    }
  };
  const places = [...document.querySelectorAll(".plot")];
  const drawAll = () => Promise.all(places.map(draw));
  drawAll().then(() => { document.documentElement.dataset.drawn = "yes"; });
  const sizes = new ResizeObserver((entries) => {
    for (const {target} of entries) {
      if (target.offsetWidth && target._fullLayout && Math.abs(target._fullLayout.width - target.offsetWidth) > 1) {
        Plotly.Plots.resize(target);
      }
    }
  });
  places.forEach((place) => sizes.observe(place));
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
})();
