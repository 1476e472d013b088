// Opens the templates of this pack as large as the window allows. The frontend fits templates into
// three quarters of the window, where their texts are too small to read.

import { app } from "../../../scripts/app.js";

// Pixels that ComfyUI's menus take at the edges.
const LEFT = 80, TOP = 100, RIGHT = 20, BOTTOM = 20;

app.registerExtension({
  name: "AnimateDiffV2V.TemplateView",
  afterConfigureGraph() {
    const { nodes, extra } = app.graph;
    const view = app.canvas.ds;
    // Graphs that somebody has saved open where they were left.
    if (!extra?.animatediff_v2v_template || view.scale === extra.ds?.scale) return;
    const { width, height } = app.canvas.canvas.getBoundingClientRect();
    const left = Math.min(...nodes.map(({ pos }) => pos[0]));
    const top = Math.min(...nodes.map(({ pos }) => pos[1])) - LiteGraph.NODE_TITLE_HEIGHT;
    const wide = Math.max(...nodes.map(({ pos, size }) => pos[0] + size[0])) - left;
    const high = Math.max(...nodes.map(({ pos, size }) => pos[1] + size[1])) - top;
    const free = [width - LEFT - RIGHT, height - TOP - BOTTOM];
    if (free[0] <= 0 || free[1] <= 0) return;
    view.scale = Math.min(1, free[0] / wide, free[1] / high);
    view.offset = [
      (LEFT + (free[0] - wide * view.scale) / 2) / view.scale - left,
      TOP / view.scale - top,
    ];
    app.canvas.setDirty(true, true);
  },
});
