// The settings by which a node selects frames of a video.

import { isAnyLinked, valueOf } from "./polled_widget.js";
import { text } from "./texts.js";

const SETTINGS = [
  "select_every_nth_frame",
  "skip_first_frames",
  "frame_load_cap",
  "force_rate",
  "width",
  "height",
  "start_time",
  "duration",
  "fit",
];
const SELECT = "ADV2V_SelectFrames";

// Returns the settings as pairs for the server's query, or a sentence that says why there are none.
export function selectionOf(node) {
  const [loader, widget] = node.comfyClass === SELECT ? [sourceOf(node), "file"] : [node, "video"];
  if (!loader || isAnyLinked(loader, [widget]) || isAnyLinked(node, SETTINGS))
    return { sentence: unknown() };
  const video = valueOf(loader, widget);
  if (!video) return { sentence: "" };
  const pairs = SETTINGS.map((name) => [name, valueOf(node, name)]);
  return { pairs: [["video", video], ...pairs.filter(([, value]) => value != null)] };
}

// Returns ComfyUI's own Load Video, if the video comes from it.
function sourceOf(node) {
  const source = node.getInputNode(node.findInputSlot("video"));
  return source?.comfyClass === "LoadVideo" ? source : null;
}

export function unknown() {
  return text("unknown", "Frames and windows are counted when the graph runs.");
}

// Says how many frames are left out, too, if it is known: 4 of 8 frames.
export function framesText({ count, all }) {
  if (all > count) return text("someFrames", "{count} of {all} frames", { count, all });
  return count === 1 ? text("frame", "1 frame") : text("manyFrames", "{count} frames", { count });
}

export function number(value, digits) {
  return String(Number(value.toFixed(digits)));
}
