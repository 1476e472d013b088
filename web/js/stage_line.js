// Shows what the one node is doing above its frames; the frontend adds the line below its player,
// which often lies below the edge of the window.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const NODE = "ADV2V_VideoToVideo";
const LINE = "$$node-text-preview";

app.registerExtension({
  name: "AnimateDiffV2V.StageLine",
  setup() {
    // The frontend adds the line in the same event.
    api.addEventListener("progress_text", ({ detail }) =>
      requestAnimationFrame(() => raise(app.canvas.graph?.getNodeById(detail.nodeId))),
    );
  },
});

function raise(node) {
  if (node?.comfyClass !== NODE) return;
  const names = node.widgets.map(({ name }) => name);
  const [from, to] = [names.indexOf(LINE), names.indexOf("selection")];
  if (from < to || to < 0) return;
  node.widgets = node.widgets.toSpliced(from, 1).toSpliced(to, 0, node.widgets[from]);
  node.setDirtyCanvas(true, true);
}
