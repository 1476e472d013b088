// An element in a node that shows what the server says of the node's settings, while they change.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { after } from "./hooks.js";
import { text } from "./texts.js";

// The two renderers, loaded graphs and undo each report changes in their own way, or not at all.
// Polling works for all, and a value that is the same in two polls is no longer being edited.
const POLL_MILLISECONDS = 250;
// Above and below the element on the canvas, which takes it off the height that a widget asks for.
const MARGIN_PIXELS = 4;
const SELECTION = "/animatediff_v2v/selection";
// A run changes what the server expects of the next one.
let runs = 0;
api.addEventListener("execution_success", () => {
  runs += 1;
});

// `view` has an element, its height in pixels, which may change, a label for App mode, queryOf(node),
// which returns the query or a sentence that says why there is none, and show(answer, node),
// say(sentence) and wait(isWaiting); and the route to ask, if it is not that of selections.
export function addPolledWidget(node, name, view) {
  const { element, label } = view;
  const height = () => view.height + 2 * MARGIN_PIXELS;
  const widget = node.addDOMWidget(name, `ADV2V_${name.toUpperCase()}`, element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN_PIXELS,
    getMinHeight: height,
    getMaxHeight: height,
  });
  widget.serialize = false;
  widget.label = label;
  const poll = new Poll(node, view);
  const timer = setInterval(() => {
    if (element.isConnected) poll.run();
    else if (poll.isRemoved) clearInterval(timer);
  }, POLL_MILLISECONDS);
  after(node, "onRemoved", () => {
    poll.isRemoved = true;
  });
}

export function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

// Returns what the user reads before a widget.
export function labelOf(node, name) {
  return node?.widgets?.find((widget) => widget.name === name)?.label || name;
}

export function isAnyLinked(node, names) {
  return (node.inputs ?? []).some(
    ({ name }, number) => names.includes(name) && node.isInputConnected(number),
  );
}

class Poll {
  constructor(node, view) {
    Object.assign(this, { node, view, seen: "", shown: "", isAsking: false, isRemoved: false });
  }

  // Undo creates new nodes, but Nodes 2.0 keeps showing the elements of the old ones.
  shownNode() {
    if (!this.isRemoved) return this.node;
    const successor = app.canvas.graph?.getNodeById(this.node.id);
    return successor?.comfyClass === this.node.comfyClass ? successor : this.node;
  }

  async run() {
    const { query, sentence } = this.view.queryOf(this.shownNode());
    const asked = query ? `${runs} ${query}` : sentence;
    const isSettled = asked === this.seen;
    this.seen = asked;
    if (!isSettled || asked === this.shown || this.isAsking) return;
    this.shown = asked;
    const { height } = this.view;
    if (query) await this.ask(query);
    else this.view.say(sentence);
    if (this.view.height > height) grow(this.shownNode());
  }

  async ask(query) {
    this.isAsking = true;
    this.view.wait(true);
    try {
      const response = await api.fetchApi(`${this.view.route ?? SELECTION}?${query}`);
      const answer = await response.json();
      if (answer.error) this.view.say(answer.error);
      else this.view.show(answer, this.shownNode());
    } catch {
      this.view.say(text("noServer", "ComfyUI's server does not answer."));
    } finally {
      this.isAsking = false;
      this.view.wait(false);
    }
  }
}

function grow(node) {
  node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1])]);
  node.setDirtyCanvas(true, true);
}
