// Keeps undo free of entries that the user did not make: a node grows when its strip, its preview or,
// in Nodes 2.0, its first layout appears, and ComfyUI would record that with the next click as an edit.

import { app } from "../../../scripts/app.js";
import { ChangeTracker } from "../../../scripts/changeTracker.js";

app.registerExtension({
  name: "AnimateDiffV2V.NodeGrowth",
  setup() {
    // Before the page takes the click or key: what differs by then is not the user's doing.
    for (const event of ["pointerdown", "keydown"]) window.addEventListener(event, takeIn, true);
  },
});

// Takes nodes that have grown into the state that undo compares with and comes back to.
export function takeIn() {
  const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  // While a graph is loaded, the tracker's state is another one's.
  if (!tracker?.activeState || tracker._restoringState || ChangeTracker.isLoadingGraph) return;
  const { activeState: state } = tracker;
  const root = app.rootGraph ?? app.graph;
  takeSizes(state.nodes, root);
  for (const { id, nodes } of state.definitions?.subgraphs ?? [])
    takeSizes(nodes, root.subgraphs?.get(id));
}

function takeSizes(saved, graph) {
  for (const each of saved ?? []) {
    const node = graph?.getNodeById(each.id);
    if (node?.type !== each.type || !isOurs(node)) continue;
    const hasGrown = node.size[0] >= each.size?.[0] && node.size[1] >= each.size?.[1];
    if (hasGrown) each.size = [node.size[0], node.size[1]];
  }
}

// Nodes of this pack, and nodes that were added for a converted one.
function isOurs({ type, properties }) {
  return type?.startsWith("ADV2V_") || properties?.converted_from;
}
