// Shows what a node is doing: in the one node above its frames, since the frontend adds its line
// below the player, which often lies below the edge of the window; in App mode in the form.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const JOB = "ADV2V_VideoToVideo";
const LINE = "$$node-text-preview";
// Of this pack, in the form and in the nodes.
const VIEWS = ["selection", "forecast"];
const FORM = "[data-testid=app-mode-widget-item]";
const ENDS = ["execution_success", "execution_error", "execution_interrupted"];

const told = document.createElement("div");
told.dataset.testid = "animatediff-v2v-stage";
Object.assign(told.style, { textAlign: "center", fontSize: "11px" });

app.registerExtension({
  name: "AnimateDiffV2V.StageLine",
  setup() {
    // The frontend adds its line in the same event.
    api.addEventListener("progress_text", ({ detail }) =>
      requestAnimationFrame(() => show(detail)),
    );
    for (const event of ENDS) api.addEventListener(event, () => told.remove());
  },
});

function show({ nodeId, text }) {
  const node = app.canvas.graph?.getNodeById(nodeId);
  if (node?.comfyClass === JOB) raise(node);
  const view = node?.widgets?.find(({ name, element }) => element && VIEWS.includes(name))?.element;
  if (!view?.closest(FORM)) return;
  told.textContent = text.split("\n\n")[0]; // warnings follow
  view.firstChild.after(told);
}

function raise(node) {
  const names = node.widgets.map(({ name }) => name);
  const [from, to] = [names.indexOf(LINE), names.indexOf("selection")];
  if (from < to || to < 0) return;
  node.widgets = node.widgets.toSpliced(from, 1).toSpliced(to, 0, node.widgets[from]);
  node.setDirtyCanvas(true, true);
}
