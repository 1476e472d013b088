// Shows only the used slots of LoRA Stack and one empty slot. Hidden slots stay in the node, because
// saved graphs store widget values by index; without this script all slots are visible.

import { app } from "../../../scripts/app.js";
import { after } from "./hooks.js";

const NODE = "ADV2V_LoraStack";
const EMPTY = "None";
const WIDGET = /^(lora|model_strength|clip_strength)_(\d+)$/;

app.registerExtension({
  name: "AnimateDiffV2V.LoraSlots",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const show = () => showSlots(node);
    // In the same event as the change, or undo would record the new size as a separate step.
    for (const widget of node.widgets) after(widget, "callback", show);
    after(node, "onConfigure", show);
    after(node, "onConnectionsChange", show);
    show();
  },
});

function showSlots(node) {
  const used = usedSlots(node);
  let empty = 1;
  while (used.has(empty)) empty += 1;
  let isChanged = false;
  for (const widget of node.widgets) {
    const number = slotOf(widget.name);
    if (number === null) continue;
    const isHidden = number !== empty && !used.has(number);
    isChanged ||= isHidden !== Boolean(widget.hidden);
    // The canvas reads the first one, Nodes 2.0 the second.
    widget.hidden = isHidden;
    widget.options.hidden = isHidden;
  }
  if (!isChanged) return;
  // Nodes 2.0 renders again only when the list is replaced.
  node.widgets = [...node.widgets];
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas?.(true, true);
}

function usedSlots(node) {
  const chosen = node.widgets.filter(({ name, value }) => /^lora_\d/.test(name) && value !== EMPTY);
  const linked = (node.inputs ?? []).filter((_, number) => node.isInputConnected(number));
  return new Set([...chosen, ...linked].map(({ name }) => slotOf(name)));
}

function slotOf(name) {
  const match = WIDGET.exec(name);
  return match && Number(match[2]);
}
