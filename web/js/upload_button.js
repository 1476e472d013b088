// Puts "choose file to upload" right below the video, on the canvas; in Nodes 2.0 it is part of the
// video's widget. Saved graphs keep its value behind those of all other widgets.

import { app } from "../../../scripts/app.js";
import { after } from "./hooks.js";

const NODES = ["ADV2V_LoadVideo", "ADV2V_VideoToVideo"];

app.registerExtension({
  name: "AnimateDiffV2V.UploadButton",
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) move(node);
  },
});

function move(node) {
  const saved = node.widgets.filter(({ serialize }) => serialize !== false);
  const button = saved.find(({ name }) => name === "upload");
  if (!button) return;
  const [from, to] = [saved.indexOf(button), saved.findIndex(({ name }) => name === "video") + 1];
  node.widgets = moved(node.widgets, node.widgets.indexOf(button), to);
  const own = node.configure;
  node.configure = function (graph) {
    const { widgets_values: values } = graph;
    if (!Array.isArray(values)) return own.call(this, graph);
    // Older graphs end before the button.
    const all = values.length > from ? moved(values, from, to) : values.toSpliced(to, 0, button.value);
    return own.call(this, { ...graph, widgets_values: all });
  };
  after(node, "onSerialize", (graph) => {
    // Some frontends leave a gap for widgets without a saved value.
    if (graph.widgets_values) graph.widgets_values = moved(Object.values(graph.widgets_values), to, from);
  });
}

function moved(items, from, to) {
  const rest = items.toSpliced(from, 1);
  return rest.toSpliced(to, 0, items[from]);
}
