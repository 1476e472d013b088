// Shows in the Sampler, before it runs: frames, seconds of video, windows, and the time it takes.

import { app } from "../../../scripts/app.js";
import { Advice, miniatureAdvice } from "./advice.js";
import { addPolledWidget, isAnyLinked, valueOf } from "./polled_widget.js";
import { framesText, number, selectionOf, unknown } from "./selection.js";
import { text } from "./texts.js";

const SAMPLER = "ADV2V_Sampler";
const LOADERS = ["ADV2V_LoadVideo", "ADV2V_SelectFrames"];
// Names in the query, and those of the two nodes' widgets.
const SETTINGS = {
  steps: ["steps", "num_inference_steps"],
  guidance_scale: ["guidance_scale"],
  preset: ["preset"],
  denoise: ["denoise"],
};
const WINDOWS = ["length", "overlap", "stride", "schedule", "fuse", "closed_loop"];
const HEIGHT_PIXELS = 20;

app.registerExtension({
  name: "AnimateDiffV2V.Forecast",
  nodeCreated(node) {
    if (node.comfyClass === SAMPLER) addPolledWidget(node, "forecast", new Line());
  },
});

// Returns the settings that decide how long a node takes, as pairs for the query; null if one of
// them is known only when the graph runs.
export function settingsOf(node, checkpoint) {
  const names = [...Object.values(SETTINGS).flat(), "sigmas"];
  const context = contextOf(node);
  if (isAnyLinked(node, names) || context === null) return null;
  const pairs = Object.entries(SETTINGS).map(([name, widgets]) => [
    name,
    widgets.map((widget) => valueOf(node, widget)).find((value) => value != null),
  ]);
  return [...pairs, ["context", context], ["checkpoint", checkpoint ?? ""]];
}

export function forecastText({ forecast }) {
  if (!forecast) return "";
  const { windows: count, seconds, checkpoint } = forecast;
  const windows = count === 1 ? text("window", "1 window") : text("windows", "{count} windows", { count });
  // Times are stored by checkpoint.
  if (!checkpoint) return windows;
  const time =
    seconds == null ? text("noTime", "time unknown before a first run") : duration(seconds);
  return `${windows} · ${time}`;
}

function contextOf(node) {
  const slot = node.findInputSlot("context_options");
  if (slot < 0 || !node.isInputConnected(slot)) return "{}";
  const options = node.getInputNode(slot);
  if (options?.comfyClass !== "ADV2V_ContextOptions" || isAnyLinked(options, WINDOWS)) return null;
  return JSON.stringify(Object.fromEntries(WINDOWS.map((name) => [name, valueOf(options, name)])));
}

class Line {
  constructor() {
    this.label = text("forecast", "forecast");
    this.element = document.createElement("div");
    this.text = document.createElement("div");
    this.advice = new Advice();
    this.element.append(this.text, this.advice.element);
    this.element.dataset.testid = "animatediff-v2v-forecast";
    Object.assign(this.text.style, {
      textAlign: "center",
      fontSize: "11px",
      lineHeight: `${HEIGHT_PIXELS}px`,
      whiteSpace: "nowrap",
      overflow: "hidden",
      textOverflow: "ellipsis",
      color: "var(--input-text, #ddd)",
    });
  }

  get height() {
    return HEIGHT_PIXELS + this.advice.height;
  }

  queryOf(node) {
    const slot = node.findInputSlot("images");
    if (!node.isInputConnected(slot)) return { sentence: "" };
    const source = sourceOf(node, "images");
    const isLoader = LOADERS.includes(source?.comfyClass);
    const selection = isLoader ? selectionOf(source) : { sentence: unknown() };
    if (selection.sentence != null) return selection;
    const model = sourceOf(node, "model");
    const settings = settingsOf(node, model && valueOf(model, "checkpoint"));
    if (!settings) return { sentence: unknown() };
    // The frames are shown by the node that loads them.
    const query = [...selection.pairs, ...settings, ["windows", "fitting"], ["thumbnails", 0]];
    return { query: new URLSearchParams(query) };
  }

  show(answer, node) {
    const { frame_count: count, duration_seconds: seconds } = answer;
    if (count == null) return this.say(unknown());
    this.say(`${framesText({ count })} · ${number(seconds, 2)} s · ${forecastText(answer)}`);
    const [loader, models] = ["images", "model"].map((name) => sourceOf(node, name));
    this.advice.say(miniatureAdvice(answer, { loader, models, checkpoint: "checkpoint" }));
  }

  say(sentence) {
    this.text.textContent = this.text.title = sentence;
    this.advice.say("");
  }

  wait(isWaiting) {
    this.element.style.opacity = isWaiting ? "0.5" : "1";
  }
}

function sourceOf(node, name) {
  return node.getInputNode(node.findInputSlot(name));
}

function duration(seconds) {
  if (seconds < 1) return text("instantly", "takes less than 1 s");
  if (seconds < 90) return takes(`${Math.round(seconds)} s`);
  if (seconds < 5400) return takes(`${Math.round(seconds / 60)} min`);
  return takes(`${number(seconds / 3600, 1)} h`);
}

function takes(time) {
  return text("takes", "takes about {time}", { time });
}
