// Shows in Load Video and in the one node, while their settings change, what they will load: frame
// count, rate, duration, size, and some of the kept frames.

import { app } from "../../../scripts/app.js";
import { Advice, miniatureAdvice } from "./advice.js";
import { forecastText, settingsOf } from "./forecast.js";
import { FormButton } from "./get_miniature.js";
import { addPolledWidget, valueOf } from "./polled_widget.js";
import { removeVideo } from "./previews.js";
import { framesText, number, selectionOf } from "./selection.js";
import { text } from "./texts.js";

const LOAD = "ADV2V_LoadVideo";
const JOB = "ADV2V_VideoToVideo";
const HEIGHT_PIXELS = 180;
const WIDTH_PIXELS = 280; // while the node is not on the screen yet
const GAP_PIXELS = 2;
const LINE_PIXELS = 16;
const LOWEST_PICTURE_PIXELS = 70;

app.registerExtension({
  name: "AnimateDiffV2V.SelectionStrip",
  nodeCreated(node) {
    if ([LOAD, JOB].includes(node.comfyClass)) addPolledWidget(node, "selection", new Strip());
  },
});

class Strip {
  constructor() {
    this.label = text("frames", "frames");
    this.element = document.createElement("div");
    this.text = document.createElement("div");
    this.pictures = document.createElement("div");
    this.advice = new Advice();
    this.miniature = new FormButton();
    this.element.append(this.text, this.miniature.element, this.advice.element, this.pictures);
    this.element.dataset.testid = "animatediff-v2v-selection";
    Object.assign(this.element.style, {
      display: "flex",
      flexDirection: "column",
      gap: "4px",
      minHeight: `${HEIGHT_PIXELS}px`,
      overflow: "hidden",
      // The canvas renderer gives it less room than it takes: what lies below must stay clickable.
      pointerEvents: "none",
      fontSize: "11px",
      lineHeight: `${LINE_PIXELS}px`,
      color: "var(--input-text, #ddd)",
    });
    Object.assign(this.text.style, { flex: "none", textAlign: "center", whiteSpace: "pre-line" });
    Object.assign(this.pictures.style, {
      display: "grid",
      alignContent: "start",
      gap: `${GAP_PIXELS}px`,
    });
  }

  get height() {
    return HEIGHT_PIXELS + this.advice.height + this.miniature.height;
  }

  queryOf(node) {
    this.forget(node);
    this.miniature.update();
    const { pairs, sentence } = selectionOf(node);
    if (!pairs) return { sentence };
    const settings = node.comfyClass === JOB && settingsOf(node, valueOf(node, "base_model"));
    return { query: new URLSearchParams([...pairs, ...(settings || [])]) };
  }

  // The frontend keeps the former file's player when it cannot play the new file.
  forget(node) {
    const video = valueOf(node, "video");
    const shown = node.videoContainer?.querySelector("video")?.src;
    if (shown && this.video !== undefined && this.video !== video) {
      const file = new URL(shown).searchParams.get("filename");
      if (!video?.includes(file)) removeVideo(node);
    }
    this.video = video;
  }

  say(sentence) {
    this.text.textContent = sentence;
    this.advice.say("");
    this.pictures.replaceChildren();
  }

  show(selection, node) {
    const lines = [figures(selection), forecastText(selection)].filter(Boolean);
    this.text.textContent = lines.join("\n");
    const widgets = { loader: node, models: node, checkpoint: "base_model" };
    this.advice.say(miniatureAdvice(selection, widgets));
    const width = this.element.clientWidth || WIDTH_PIXELS;
    // A long line takes two.
    const textHeight = this.text.offsetHeight || lines.length * LINE_PIXELS;
    const left = HEIGHT_PIXELS - textHeight - 4;
    const { columns, height, count } = grid(selection, width, left);
    this.pictures.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    const pictures = spread(selection.thumbnails, count).map((each) => picture(each, height));
    this.pictures.replaceChildren(...pictures);
  }

  wait(isWaiting) {
    this.pictures.style.opacity = isWaiting ? "0.5" : "1";
  }
}

function figures(selection) {
  const { frame_count: count, source_frame_count: all, frame_rate, duration_seconds } = selection;
  return [
    count == null ? text("uncounted", "frames are counted while reading") : framesText({ count, all }),
    `${number(frame_rate, 3)} fps`,
    ...(duration_seconds == null ? [] : [`${number(duration_seconds, 2)} s`]),
    `${selection.width} × ${selection.height}`,
  ].join(" · ");
}

// Returns the layout with the most pictures that are large enough, or with a single one.
function grid({ thumbnails, width, height }, widthPixels, heightPixels) {
  for (let count = thumbnails.length; count > 1; count -= 1) {
    const best = layout(count, widthPixels, heightPixels, height / width);
    if (best.height >= LOWEST_PICTURE_PIXELS) return best;
  }
  return layout(1, widthPixels, heightPixels, height / width);
}

// Returns the layout in one, two or three rows, whichever makes the pictures larger.
function layout(count, widthPixels, heightPixels, aspect) {
  const [best] = [1, 2, 3]
    .map((rows) => {
      const columns = Math.ceil(count / rows);
      const most = Math.floor(heightPixels / rows) - GAP_PIXELS;
      return { count, columns, height: Math.min(most, (widthPixels / columns) * aspect) };
    })
    .sort((one, other) => other.height - one.height);
  return best;
}

// Returns so many of the items, from the first to the last: 3 of 8 are those at 0, 4 and 7.
function spread(items, count) {
  const last = items.length - 1;
  return Array.from({ length: Math.min(count, items.length) }, (_, number) =>
    count === 1 ? items[0] : items[Math.round((number * last) / (count - 1))],
  );
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
    pointerEvents: "auto", // for its title
  });
  return image;
}
