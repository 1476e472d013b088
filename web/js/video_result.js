// In Nodes 2.0, older frontends show every result as a picture unless the node sets its media type;
// newer ones, and the canvas, look at the result itself.

import { app } from "../../../scripts/app.js";

const NODES = new Set(["ADV2V_EncodeVideo", "ADV2V_VideoToVideo"]);
const VIDEO = /\.(mp4|webm|mov|mkv)$/i;

app.registerExtension({
  name: "AnimateDiffV2V.VideoResult",
  nodeCreated(node) {
    if (!NODES.has(node.comfyClass)) return;
    const before = node.onExecuted;
    node.onExecuted = function (output, ...others) {
      const isVideo = VIDEO.test(output?.images?.[0]?.filename ?? "");
      this.previewMediaType = isVideo ? "video" : "image";
      return before?.call(this, output, ...others);
    };
  },
});
