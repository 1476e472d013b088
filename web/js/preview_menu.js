// What can be done with a preview, in the menu of its node, in the words of other video packs.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { outputOf } from "./node_outputs.js";
import { hasPreview, mediaOf, stateOf } from "./previews.js";
import { synchronise, toggleHidden, togglePause } from "./previews.js";

app.registerExtension({
  name: "AnimateDiffV2V.PreviewMenu",
  getNodeMenuItems(node) {
    return hasPreview(node) && outputOf(node)?.images?.length ? items(node) : [];
  },
});

function items(node) {
  const { images, paths } = outputOf(node);
  const { isPaused, isHidden } = stateOf(node);
  const item = (content, callback) => ({ content, callback });
  return [
    // What browsers cannot play comes after its preview.
    item("Open preview", () => window.open(address(images[0]), "_blank")),
    item("Save preview", () => save(images.at(-1))),
    ...(paths ? [item("Copy output filepath", () => copy(paths.at(-1)))] : []),
    ...(mediaOf(node) instanceof HTMLVideoElement
      ? [item(isPaused ? "Resume preview" : "Pause preview", () => togglePause(node))]
      : []),
    item(isHidden ? "Show preview" : "Hide preview", () => toggleHidden(node)),
    item("Sync preview", synchronise),
  ];
}

function address(image) {
  return api.apiURL(`/view?${new URLSearchParams(image)}`);
}

function save(image) {
  const link = document.createElement("a");
  link.href = address(image);
  link.download = image.filename;
  link.click();
}

async function copy(text) {
  // Pages that come over http from another machine have no clipboard.
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copySelection(text);
  const said = { severity: "success", summary: "Copied", detail: text, life: 3000 };
  app.extensionManager.toast.add(said);
}

function copySelection(text) {
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
