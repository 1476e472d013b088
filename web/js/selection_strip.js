// Shows in Load Video, while its settings change, what it will load: frame count, rate, duration,
// size, and some of the kept frames.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const NODE = "ADV2V_LoadVideo";
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
const HEIGHT_PIXELS = 120;
const WIDTH_PIXELS = 280; // while the node is not on the screen yet
const GAP_PIXELS = 2;
const TEXT_PIXELS = 18;
// The two renderers, loaded graphs and undo each report changes in their own way, or not at all.
// Polling works for all of them, and a value that is the same in two polls is no longer being edited.
const POLL_MILLISECONDS = 250;

app.registerExtension({
  name: "AnimateDiffV2V.SelectionStrip",
  nodeCreated(node) {
    if (node.comfyClass === NODE) addStrip(node);
  },
});

function addStrip(node) {
  const strip = new Strip(node);
  const widget = node.addDOMWidget("selection", "ADV2V_SELECTION", strip.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT_PIXELS,
    getMaxHeight: () => HEIGHT_PIXELS,
  });
  widget.serialize = false;
  const timer = setInterval(() => {
    if (strip.element.isConnected) strip.poll();
    else if (strip.isRemoved) clearInterval(timer);
  }, POLL_MILLISECONDS);
  const onRemoved = node.onRemoved;
  node.onRemoved = function (...values) {
    strip.isRemoved = true;
    return onRemoved?.apply(this, values);
  };
}

class Strip {
  constructor(node) {
    this.node = node;
    this.isRemoved = false;
    this.element = document.createElement("div");
    this.text = document.createElement("div");
    this.pictures = document.createElement("div");
    this.element.append(this.text, this.pictures);
    this.element.dataset.testid = "animatediff-v2v-selection";
    Object.assign(this.element.style, {
      display: "flex",
      flexDirection: "column",
      gap: "4px",
      minHeight: `${HEIGHT_PIXELS}px`,
      overflow: "hidden",
      fontSize: "11px",
      lineHeight: "1.3",
      color: "var(--input-text, #ddd)",
    });
    Object.assign(this.text.style, { flex: "none", textAlign: "center" });
    Object.assign(this.pictures.style, {
      display: "grid",
      alignContent: "start",
      gap: `${GAP_PIXELS}px`,
    });
    this.seen = "";
    this.shown = "";
    this.isAsking = false;
  }

  // Undo creates new nodes, but Nodes 2.0 keeps showing the elements of the old ones.
  shownNode() {
    if (!this.isRemoved) return this.node;
    const successor = app.canvas.graph?.getNodeById(this.node.id);
    return successor?.comfyClass === NODE ? successor : this.node;
  }

  // Asks the server when the values have not changed since the last poll.
  async poll() {
    const node = this.shownNode();
    const query = queryOf(node);
    const isSettled = query === this.seen;
    this.seen = query;
    if (!isSettled || query === this.shown || this.isAsking) return;
    this.shown = query;
    if (!query) {
      this.say(isLinked(node) ? "Known only when the graph runs, because a setting is linked." : "");
      return;
    }
    this.isAsking = true;
    this.pictures.style.opacity = "0.5";
    try {
      const answer = await api.fetchApi(`/animatediff_v2v/selection?${query}`);
      const selection = await answer.json();
      if (selection.error) this.say(selection.error);
      else this.show(selection);
    } catch {
      this.say("ComfyUI's server does not answer.");
    } finally {
      this.isAsking = false;
      this.pictures.style.opacity = "1";
    }
  }

  say(sentence) {
    this.text.textContent = sentence;
    this.pictures.replaceChildren();
  }

  show(selection) {
    this.text.textContent = figures(selection);
    const width = this.element.clientWidth || WIDTH_PIXELS;
    const { columns, height } = grid(selection, width, HEIGHT_PIXELS - TEXT_PIXELS);
    this.pictures.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    this.pictures.replaceChildren(...selection.thumbnails.map((each) => picture(each, height)));
  }
}

function queryOf(node) {
  if (isLinked(node)) return "";
  const values = SETTINGS.map((name) => [name, valueOf(node, name)]);
  if (!values[0][1]) return "";
  return new URLSearchParams(values.filter(([, value]) => value != null)).toString();
}

function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

function isLinked(node) {
  return (node.inputs ?? []).some(
    ({ name }, number) => SETTINGS.includes(name) && node.isInputConnected(number),
  );
}

function figures({ frame_count, frame_rate, duration_seconds, width, height }) {
  const frames = frame_count === 1 ? "1 frame" : `${frame_count} frames`;
  return [
    frame_count == null ? "frames are counted while reading" : frames,
    `${number(frame_rate, 3)} fps`,
    ...(duration_seconds == null ? [] : [`${number(duration_seconds, 2)} s`]),
    `${width} × ${height}`,
  ].join(" · ");
}

// Returns the layout in one or two rows, whichever makes the pictures larger.
function grid({ thumbnails, width, height }, widthPixels, heightPixels) {
  const [best] = [1, 2]
    .map((rows) => {
      const columns = Math.max(1, Math.ceil(thumbnails.length / rows));
      const most = Math.floor(heightPixels / rows) - GAP_PIXELS;
      return { columns, height: Math.min(most, (widthPixels / columns) * (height / width)) };
    })
    .sort((one, other) => other.height - one.height);
  return best;
}

function picture({ seconds, src }, mostPixels) {
  const image = document.createElement("img");
  image.src = src;
  image.alt = image.title = `${number(seconds, 2)} s`;
  image.draggable = false;
  Object.assign(image.style, {
    width: "100%",
    maxHeight: `${mostPixels}px`,
    objectFit: "contain",
  });
  return image;
}

function number(value, digits) {
  return String(Number(value.toFixed(digits)));
}
