// Completes graphs that were saved before a node had all of its widgets. Saved values have no names,
// and the value of the upload button comes after all others, where the new widgets would read it.

import { app } from "../../../scripts/app.js";

// The least number of values that graphs were saved with, and those that were added since, which
// come before the button's.
const NODES = {
  // width, height, frame_load_cap, match_source, restore_frames, refine, refine_denoise,
  // refine_upscale
  ADV2V_VideoToVideo: { saved: 18, added: [0, 0, 0, 0, false, 1, 0.35, "image"] },
};

app.registerExtension({
  name: "AnimateDiffV2V.OlderGraphs",
  beforeConfigureGraph(graph) {
    const subgraphs = graph.definitions?.subgraphs ?? [];
    for (const { nodes } of [graph, ...subgraphs]) for (const node of nodes ?? []) complete(node);
  },
});

function complete({ type, widgets_values: values }) {
  const { saved, added } = NODES[type] ?? {};
  if (!saved || !Array.isArray(values) || values.length < saved) return;
  values.splice(-1, 0, ...added.slice(values.length - saved));
}
