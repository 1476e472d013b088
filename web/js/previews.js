// Plays the videos that nodes show by themselves, muted, in a loop; pauses, hides and
// synchronises them.

import { app } from "../../../scripts/app.js";
import { after } from "./hooks.js";

const RESULTS = ["ADV2V_EncodeVideo", "ADV2V_VideoToVideo", "ADV2V_Batch"];
const NODES = new Set([...RESULTS, "ADV2V_LoadVideo"]);
const VIDEO_WIDGET = "video-preview";
const PICTURE_WIDGETS = ["$$canvas-image-preview", "$$comfy_animation_preview"];
const WIDGETS = [VIDEO_WIDGET, ...PICTURE_WIDGETS];
const CARD = ".video-preview, .image-preview"; // in Nodes 2.0
// Not the source that compare.js lays over a result.
const MEDIA = ":is(video, img):not([data-testid=animatediff-v2v-compare] > *)";
const states = new WeakMap();

app.registerExtension({
  name: "AnimateDiffV2V.Previews",
  setup() {
    // In Nodes 2.0 each result is loaded into the same element. Media events do not bubble.
    for (const event of ["loadeddata", "load"])
      document.addEventListener(event, ({ target }) => onLoaded(target), true);
  },
  nodeCreated(node) {
    if (hasPreview(node)) after(node, "onDrawBackground", () => onDrawn(node));
  },
});

export function hasPreview(node) {
  return NODES.has(node.comfyClass);
}

// Returns the video or picture that a node shows, or undefined.
export function mediaOf(node) {
  const card = cardOf(node);
  if (card) return card.querySelector(MEDIA);
  const widget = node.widgets?.find(({ name, element }) => element && WIDGETS.includes(name));
  return widget?.element.querySelector(MEDIA);
}

export function stateOf(node) {
  if (!states.has(node)) states.set(node, { isPaused: false, isHidden: false, media: null });
  return states.get(node);
}

export function togglePause(node) {
  const state = stateOf(node);
  state.isPaused = !state.isPaused;
  apply(node);
}

export function toggleHidden(node) {
  const state = stateOf(node);
  state.isHidden = !state.isHidden;
  apply(node);
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true);
}

// Starts the previews of all nodes of the graph from their first frame, at the same time.
export function synchronise() {
  for (const node of app.canvas.graph.nodes.filter(hasPreview)) {
    const media = mediaOf(node);
    if (isVideo(media)) media.currentTime = 0;
    else if (media) restart(media);
  }
}

// Takes the canvas's player away.
export function removeVideo(node) {
  node.videoContainer = undefined;
  removeWidgets(node, [VIDEO_WIDGET]);
}

// Takes the canvas's picture away.
export function removePictures(node) {
  node.imgs = undefined;
  removeWidgets(node, PICTURE_WIDGETS);
}

function removeWidgets(node, names) {
  for (const widget of node.widgets.filter(({ name }) => names.includes(name)))
    node.removeWidget(widget);
}

function onLoaded(target) {
  if (!target.matches?.(MEDIA)) return;
  const id = target.closest?.(CARD) && target.closest("[data-node-id]")?.dataset.nodeId;
  const node = id && app.canvas.graph?.getNodeById(id);
  if (node && hasPreview(node)) start(node, target);
}

// On the canvas an element is loaded before it is shown, each result in a new one.
function onDrawn(node) {
  const media = mediaOf(node);
  if (media && media !== stateOf(node).media) start(node, media);
}

function start(node, media) {
  const state = stateOf(node);
  // Only once for each element: who turns the sound on in Nodes 2.0 keeps it.
  if (isVideo(media) && state.media !== media) Object.assign(media, { muted: true, loop: true });
  state.media = media;
  apply(node);
  state.onShown?.();
}

function apply(node) {
  const { isPaused, isHidden } = stateOf(node);
  const media = mediaOf(node);
  if (isVideo(media)) {
    if (isPaused || isHidden) media.pause();
    // It is refused when the next result replaces the video before it plays.
    else media.play().catch(() => media.pause());
  }
  const card = cardOf(node);
  if (card) card.style.display = isHidden ? "none" : "";
  for (const widget of node.widgets.filter(({ name }) => WIDGETS.includes(name)))
    widget.hidden = isHidden;
}

function cardOf(node) {
  return document.querySelector(`[data-node-id="${node.id}"] :is(${CARD})`);
}

function isVideo(media) {
  return media instanceof HTMLVideoElement;
}

function restart(picture) {
  const address = picture.src;
  picture.src = "";
  picture.src = address;
}
