// Plays the source over the result in the player of a node, to the left of a divider that follows
// the pointer. The result leads; the source has its time, its speed and its pauses.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { mediaOf, stateOf } from "./previews.js";
import { valueOf } from "./polled_widget.js";
import { selectionOf } from "./selection.js";
import { text } from "./texts.js";

const ENCODE = "ADV2V_EncodeVideo";
const JOB = "ADV2V_VideoToVideo";
const READERS = ["ADV2V_LoadVideo", "ADV2V_SelectFrames"];
const ROUTE = "/animatediff_v2v/selection";
const FITS = { crop: "cover", pad: "contain", stretch: "fill" };
// The player's own buttons stay within reach below the divider's area.
const CONTROLS_PIXELS = 56;
// A seek takes longer than this, so smaller differences are left.
const TOLERANCE_SECONDS = 0.1;
// Results whose durations differ by less play at the source's speed: the last frames of a source
// are often left out.
const SAME_SPEED = 0.2;

// Returns the node whose settings select the source of a result, or undefined if it is unknown.
export function sourceOf(node) {
  const reader = node.comfyClass === JOB ? node : node.comfyClass === ENCODE && readerOf(node);
  // Played backwards or again, a result has no time of the source.
  if (!reader || valueOf(node, "pingpong") || valueOf(node, "loop_count") > 0) return undefined;
  return selectionOf(reader).pairs && reader;
}

export function isComparing(node) {
  return Boolean(stateOf(node).comparison);
}

export function compare(node) {
  const state = stateOf(node);
  const comparison = new Comparison(node);
  state.comparison = comparison;
  // Each result comes in a player of its own, or in the same one, and may be of other frames.
  state.onShown = () => show(node, comparison);
  return show(node, comparison);
}

async function show(node, comparison) {
  const reader = sourceOf(node);
  if (!reader) return stop(node);
  try {
    await comparison.load(reader);
  } catch (error) {
    if (!comparison.isWanted) return;
    stop(node);
    const summary = text("noComparison", "The source cannot be shown");
    app.extensionManager.toast.add({ severity: "warn", summary, detail: error.message, life: 5000 });
  }
}

export function stop(node) {
  const state = stateOf(node);
  state.comparison?.detach();
  state.comparison = state.onShown = undefined;
}

// Returns the nearest node above that reads frames, in the order in which links are followed.
function readerOf(node) {
  let level = [node.getInputNode(node.findInputSlot("images"))];
  const seen = new Set();
  while (level.length) {
    const found = level.find((each) => READERS.includes(each?.comfyClass));
    if (found) return found;
    const above = level.filter(Boolean).flatMap((each) =>
      (each.inputs ?? []).map((_, number) => each.getInputNode(number)),
    );
    level = above.filter((each) => each && !seen.has(each) && seen.add(each));
  }
  return undefined;
}

class Comparison {
  constructor(node) {
    this.node = node;
    this.element = document.createElement("div");
    this.element.dataset.testid = "animatediff-v2v-compare";
    this.source = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.line = document.createElement("div");
    this.divider = Object.assign(document.createElement("input"), {
      type: "range",
      min: 0,
      max: 100,
      step: 0.1,
      ariaLabel: text("divider", "Source to the left, result to the right"),
    });
    this.element.append(this.source, this.line, this.divider);
    this.dress();
    this.move(50);
    this.divider.addEventListener("input", () => this.move(Number(this.divider.value)));
    this.divider.addEventListener("pointermove", ({ offsetX }) =>
      this.move((100 * offsetX) / this.divider.clientWidth),
    );
    // Neither renderer drags its node, or the graph, by the divider.
    for (const event of ["pointerdown", "mousedown", "touchstart"])
      this.divider.addEventListener(event, (pressed) => pressed.stopPropagation());
    this.follow = () => this.synchronise();
    this.observer = new ResizeObserver(() => this.cover());
  }

  dress() {
    const whole = { position: "absolute", inset: 0, width: "100%", height: "100%" };
    Object.assign(this.element.style, { position: "absolute", pointerEvents: "none", zIndex: 1 });
    Object.assign(this.source.style, { ...whole, pointerEvents: "none" });
    Object.assign(this.line.style, {
      position: "absolute",
      top: 0,
      bottom: 0,
      width: "2px",
      background: "#fff",
      boxShadow: "0 0 4px #000",
    });
    Object.assign(this.divider.style, {
      ...whole,
      height: `calc(100% - ${CONTROLS_PIXELS}px)`,
      minHeight: "40%",
      margin: 0,
      opacity: 0,
      cursor: "ew-resize",
      pointerEvents: "auto",
    });
  }

  // False once it has been stopped, perhaps while the source was loading.
  get isWanted() {
    return stateOf(this.node).comparison === this;
  }

  // Loads the source and what is taken of it, unless it is there.
  async load(reader) {
    const { pairs } = selectionOf(reader);
    const { video, fit } = Object.fromEntries(pairs);
    const query = String(new URLSearchParams([...pairs, ["thumbnails", 0]]));
    if (query === this.query) return this.attach();
    const response = await api.fetchApi(`${ROUTE}?${query}`);
    const selection = await response.json();
    if (selection.error) throw new Error(selection.error);
    Object.assign(this, { selection, query });
    this.source.style.objectFit = FITS[fit] ?? "cover";
    await new Promise((resolve, reject) => {
      this.source.onloadeddata = resolve;
      const sentence = text("notPlayable", "The browser cannot play {video}.", { video });
      this.source.onerror = () => reject(new Error(sentence));
      this.source.src = api.apiURL(`/view?${new URLSearchParams(fileOf(video))}`);
    });
    this.attach();
  }

  attach() {
    const result = mediaOf(this.node);
    if (!(result instanceof HTMLVideoElement) || !this.isWanted) return;
    this.detach();
    this.result = result;
    const { parentElement } = result;
    if (getComputedStyle(parentElement).position === "static")
      parentElement.style.position = "relative";
    parentElement.append(this.element);
    for (const event of EVENTS) result.addEventListener(event, this.follow);
    this.observer.observe(result);
    this.cover();
    this.synchronise();
  }

  detach() {
    for (const event of EVENTS) this.result?.removeEventListener(event, this.follow);
    this.observer.disconnect();
    this.element.remove();
    this.source.pause();
    this.result = undefined;
  }

  move(percent) {
    const at = Math.min(100, Math.max(0, percent));
    this.divider.value = at;
    this.line.style.left = `calc(${at}% - 1px)`;
    this.source.style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  }

  // Lies over the picture of the result, without the bars beside it.
  cover() {
    const { offsetLeft, offsetTop, offsetWidth, offsetHeight, videoWidth, videoHeight } = this.result;
    const scale = Math.min(offsetWidth / videoWidth, offsetHeight / videoHeight);
    if (!Number.isFinite(scale)) return;
    const [width, height] = [videoWidth * scale, videoHeight * scale];
    Object.assign(this.element.style, {
      left: `${offsetLeft + (offsetWidth - width) / 2}px`,
      top: `${offsetTop + (offsetHeight - height) / 2}px`,
      width: `${width}px`,
      height: `${height}px`,
    });
  }

  synchronise() {
    const { source, result, speed } = this;
    const time = this.selection.start_seconds + result.currentTime * speed;
    source.playbackRate = result.playbackRate * speed;
    if (Math.abs(source.currentTime - time) > TOLERANCE_SECONDS) source.currentTime = time;
    if (result.paused) source.pause();
    else source.play().catch(() => {});
  }

  // Seconds of the source in a second of the result: slow motion has less than one.
  get speed() {
    const ratio = this.selection.duration_seconds / this.result.duration;
    return ratio > 0 && Math.abs(ratio - 1) > SAME_SPEED ? ratio : 1;
  }
}

const EVENTS = ["loadeddata", "play", "pause", "seeking", "seeked", "ratechange", "timeupdate"];

// Returns the file of a widget's value: "folder/clip.mp4 [input]".
function fileOf(value) {
  const [, path, type = "input"] = value.match(/^(.*?)(?: \[(input|output|temp)\])?$/);
  const parts = path.split("/");
  return { filename: parts.pop(), subfolder: parts.join("/"), type };
}
