// Completes graphs that were saved before a node had all of its widgets. Saved values have no names,
// and the value of the upload button comes after all others, where the new widgets would read it.

import { app } from "../../../scripts/app.js";

// Number of values that graphs were saved with, and the values to insert before the button's.
const NODES = {
  ADV2V_VideoToVideo: { saved: 18, inserted: [0, 0, 0] }, // width, height, frame_load_cap
};

app.registerExtension({
  name: "AnimateDiffV2V.OlderGraphs",
  beforeConfigureGraph(graph) {
    const subgraphs = graph.definitions?.subgraphs ?? [];
    for (const { nodes } of [graph, ...subgraphs]) for (const node of nodes ?? []) complete(node);
  },
});

function complete({ type, widgets_values: values }) {
  const { saved, inserted } = NODES[type] ?? {};
  if (Array.isArray(values) && values.length === saved) values.splice(-1, 0, ...inserted);
}
