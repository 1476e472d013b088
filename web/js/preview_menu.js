// What can be done with a preview, in the menu of its node, in the words of other video packs.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { compare, isComparing, sourceOf, stop } from "./compare.js";
import { outputOf } from "./node_outputs.js";
import { hasPreview, mediaOf, stateOf } from "./previews.js";
import { synchronise, toggleHidden, togglePause } from "./previews.js";
import { text } from "./texts.js";

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
    item(text("open", "Open preview"), () => window.open(address(images[0]), "_blank")),
    item(text("save", "Save preview"), () => save(images.at(-1))),
    ...(paths ? [item(text("copyPath", "Copy output filepath"), () => copy(paths.at(-1)))] : []),
    ...(mediaOf(node) instanceof HTMLVideoElement
      ? [
          item(isPaused ? text("resume", "Resume preview") : text("pause", "Pause preview"), () =>
            togglePause(node),
          ),
        ]
      : []),
    ...comparing(node),
    item(isHidden ? text("show", "Show preview") : text("hide", "Hide preview"), () =>
      toggleHidden(node),
    ),
    item(text("sync", "Sync preview"), synchronise),
  ];
}

function comparing(node) {
  if (isComparing(node))
    return [{ content: text("stopComparing", "Stop comparing"), callback: () => stop(node) }];
  if (!(mediaOf(node) instanceof HTMLVideoElement) || !sourceOf(node)) return [];
  return [{ content: text("compare", "Compare with source"), callback: () => compare(node) }];
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

async function copy(path) {
  // Pages that come over http from another machine have no clipboard.
  if (navigator.clipboard) await navigator.clipboard.writeText(path);
  else copySelection(path);
  const summary = text("copied", "Copied");
  const said = { severity: "success", summary, detail: path, life: 3000 };
  app.extensionManager.toast.add(said);
}

function copySelection(path) {
  const field = document.createElement("textarea");
  field.value = path;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
