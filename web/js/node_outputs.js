// What the frontend knows of the outputs of a node.

import { app } from "../../../scripts/app.js";

export function outputOf(node) {
  return app.nodeOutputs[locator(node)];
}

// Returns the frontend's key of a node: its id, within subgraphs after the graph's.
export function locator({ graph, id }) {
  return !graph || graph.isRootGraph ? String(id) : `${graph.id}:${id}`;
}
