// Shows each result as what it is. The frontend keeps what it has shown before on a node, a video
// or a picture, and shows a result of the other kind above it or not at all.

import { app } from "../../../scripts/app.js";
import { after, before } from "./hooks.js";
import { locator } from "./node_outputs.js";
import { removePictures, removeVideo } from "./previews.js";

const NODES = new Set(["ADV2V_EncodeVideo", "ADV2V_VideoToVideo", "ADV2V_Batch"]);
const VIDEO = /\.(mp4|webm|mov|mkv)$/i;
const GIF = /\.gif$/i;
const latest = new WeakMap(); // the live preview of each node

app.registerExtension({
  name: "AnimateDiffV2V.ResultKind",
  nodeCreated(node) {
    if (!NODES.has(node.comfyClass)) return;
    before(node, "onExecuted", (output) => showResult(node, output));
    before(node, "onDrawBackground", () => showLivePreview(node));
    after(node, "onDrawBackground", () => playGif(node));
  },
});

function showResult(node, output) {
  const isVideo = VIDEO.test(filename(output));
  // Older frontends show every result as a picture in Nodes 2.0 unless this is set.
  node.previewMediaType = isVideo ? "video" : "image";
  if (isVideo) removePictures(node);
  else removeVideo(node);
  endLivePreview(node);
}

// The frontend shows a live preview instead of the result, or below it, until the node's next run.
function endLivePreview(node) {
  const { $pinia } = document.getElementById("vue-app")?.__vue_app__?.config.globalProperties ?? {};
  $pinia?._s.get("nodeOutput")?.revokePreviewsByLocatorId?.(locator(node));
}

// The canvas takes live previews for videos while the node has a video, and fails to play them.
function showLivePreview(node) {
  const preview = app.nodePreviewImages[locator(node)];
  if (!preview?.length || preview === latest.get(node) || LiteGraph.vueNodesMode) return;
  latest.set(node, preview);
  node.preview = preview;
  const picture = new Image();
  picture.onload = () => {
    if (app.nodePreviewImages[locator(node)] !== preview) return;
    removeVideo(node);
    node.imgs = [picture];
    node.animatedImages = true;
    node.setDirtyCanvas(true);
  };
  picture.src = preview[0];
}

// The canvas draws only the first picture of a gif; animated pictures get an element.
function playGif(node) {
  if (GIF.test(filename(node))) node.animatedImages = true;
}

function filename({ images } = {}) {
  return images?.[0]?.filename ?? "";
}
