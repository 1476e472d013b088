// The settings by which a node selects frames of a video.

import { isAnyLinked, valueOf } from "./polled_widget.js";

const SETTINGS = [
  "video",
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
export const UNKNOWN = "Known only when the graph runs, because a setting is linked.";

// Returns the settings as pairs for the server's query, or a sentence that says why there are none.
export function selectionOf(node) {
  if (isAnyLinked(node, SETTINGS)) return { sentence: UNKNOWN };
  const pairs = SETTINGS.map((name) => [name, valueOf(node, name)]);
  if (!pairs[0][1]) return { sentence: "" };
  return { pairs: pairs.filter(([, value]) => value != null) };
}

export function number(value, digits) {
  return String(Number(value.toFixed(digits)));
}
