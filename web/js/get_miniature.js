// Offers the miniature in nodes that name one of its files while ComfyUI does not have it: a button
// copies it out of this pack's folder into ComfyUI's models and input.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const LABEL = "Get the miniature (20 MB, no download)";
// Widgets that choose files, and the miniature's file in each.
const FILES = {
  ADV2V_VideoToVideo: {
    base_model: "miniature.safetensors",
    motion_module: "miniature_motion.safetensors",
    video: "miniature_clip.mp4",
  },
  ADV2V_LoadModel: {
    checkpoint: "miniature.safetensors",
    motion_module: "miniature_motion.safetensors",
  },
  ADV2V_LoadVideo: { video: "miniature_clip.mp4" },
};
const BUTTON = "get_miniature";
// Set on nodes whose files are left empty until the miniature is there.
const WAITS = "waits_for_the_miniature";

app.registerExtension({
  name: "AnimateDiffV2V.GetMiniature",
  // The values stand in the widgets, and the page has not looked for missing files yet.
  loadedGraphNode(node) {
    const missing = FILES[node.comfyClass] ? missingFiles(node) : [];
    if (!missing.length) return;
    node.properties[WAITS] = true;
    // Named, they would be reported as missing, with advice to download them.
    for (const { widget } of missing) widget.value = "";
    addButton(node);
  },
});

// Returns the widgets that want a file of the miniature which ComfyUI does not have.
function missingFiles(node) {
  return Object.entries(FILES[node.comfyClass])
    .map(([name, file]) => ({ file, widget: node.widgets?.find((each) => each.name === name) }))
    .filter(({ file, widget }) => {
      if (!widget || optionsOf(widget).includes(file)) return false;
      return widget.value === file || (!widget.value && node.properties[WAITS]);
    });
}

function optionsOf(widget) {
  const { values } = widget.options;
  return (typeof values === "function" ? values() : values) ?? [];
}

function addButton(node) {
  if (node.widgets.some(({ name }) => name === BUTTON)) return;
  const button = node.addWidget("button", BUTTON, null, () => get(node, button));
  button.label = LABEL;
  button.serialize = false;
  button.options.serialize = false;
}

async function get(node, button) {
  if (button.disabled) return;
  button.disabled = true;
  button.label = "Copying…";
  node.setDirtyCanvas(true, true);
  try {
    const answer = await api.fetchApi("/animatediff_v2v/miniature", { method: "POST" });
    const { error } = await answer.json();
    if (error) throw new Error(error);
    await app.refreshComboInNodes();
    app.graph.nodes.filter(({ properties }) => properties[WAITS]).forEach(fill);
    say("success", "The miniature is installed", "Run restyles its clip.");
  } catch (error) {
    button.disabled = false;
    button.label = LABEL;
    say("error", "The miniature could not be copied", error.message);
  }
  node.setDirtyCanvas(true, true);
}

// Chooses the files, and takes the button away.
function fill(node) {
  delete node.properties[WAITS];
  for (const [name, file] of Object.entries(FILES[node.comfyClass])) {
    const widget = node.widgets.find((each) => each.name === name);
    if (!widget || widget.value) continue;
    widget.value = file;
    widget.callback?.(file, app.canvas, node);
  }
  const button = node.widgets.find(({ name }) => name === BUTTON);
  if (button) node.removeWidget(button);
  // Nodes 2.0 renders again only when the list is replaced.
  node.widgets = [...node.widgets];
}

function say(severity, summary, detail) {
  // Errors stay until they are closed.
  const life = severity === "error" ? {} : { life: 6000 };
  app.extensionManager.toast.add({ severity, summary, detail, ...life });
}
