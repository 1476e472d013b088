// Offers the miniature where the files of this pack's templates are missing. A button in the node
// that takes the clip, one in the form of App mode, and a link in the note of the template copy it
// out of this pack's folder into ComfyUI's models and input, and set the graph to it. `extra` in a
// template says to what.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { after } from "./hooks.js";
import { text } from "./texts.js";

// In `extra`: { native, values: { node id: { widget: value } } }; native networks take 2 GB.
const PLAN = "animatediff_v2v_miniature";
const BUTTON = "get_miniature";
// Without this script, it leads to a heading of README.md.
const LINK = 'a[href$="#get-the-miniature"]';
const CLIPS = ["video", "clips"];
const FORM_BUTTON = "animatediff-v2v-get-miniature";

const style = document.createElement("style");
style.textContent = `
  .${FORM_BUTTON} { display: none; }
  [data-testid="app-mode-widget-item"] .${FORM_BUTTON}:not([hidden]) {
    display: block;
    flex: none;
    align-self: center;
    padding: 4px 12px;
    border: 0;
    border-radius: 6px;
    background: #0b8ce9;
    color: #fff;
    font-weight: 600;
    cursor: pointer;
    pointer-events: auto;
  }
`;
document.head.append(style);

app.registerExtension({
  name: "AnimateDiffV2V.GetMiniature",
  setup() {
    // Before the frontend opens the link, or the note's editor.
    document.addEventListener("click", onClick, true);
  },
  // The values stand in the widgets, and the page has not looked for missing files yet.
  loadedGraphNode(node) {
    const values = planOf(app.graph)?.values[node.id];
    if (!values) return;
    for (const [widget, value] of entries(node, values)) {
      // Named, the miniature's files would be reported as missing, with advice to download them.
      if (widget.value === value && isMissing(widget)) widget.value = "";
    }
    if (CLIPS.some((name) => name in values) && needsFiles()) addButton(node);
  },
});

// A button for the form of App mode, which shows no buttons of nodes. It hides outside of the form,
// and when nothing is missing; `update` is called often.
export class FormButton {
  constructor() {
    this.element = document.createElement("button");
    this.element.type = "button";
    this.element.className = FORM_BUTTON;
    this.element.addEventListener("click", get);
    this.element.hidden = true;
  }

  get height() {
    return this.element.offsetHeight;
  }

  update() {
    this.element.hidden = !needsFiles();
    this.element.disabled = isCopying;
    this.element.textContent = isCopying ? text("copying", "Copying…") : label();
  }
}

function onClick(event) {
  const link = event.target.closest?.(LINK);
  if (!link || !planOf(app.graph)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  get();
}

function planOf(graph) {
  return graph?.extra?.[PLAN];
}

// Returns the widgets of a node for which there are values, with the values.
function entries(node, values) {
  return Object.entries(values)
    .map(([name, value]) => [node.widgets?.find((each) => each.name === name), value])
    .filter(([widget]) => widget);
}

// Returns the nodes of the plan, with their values.
function planned() {
  return Object.entries(planOf(app.graph)?.values ?? {})
    .map(([id, values]) => [app.graph.getNodeById(id) ?? app.graph.getNodeById(Number(id)), values])
    .filter(([node]) => node);
}

// Returns whether the model of a node is not there; everybody uploads their own clip.
function needsFiles() {
  return planned().some(([node, values]) =>
    entries(node, values).some(([widget]) => !CLIPS.includes(widget.name) && isMissing(widget)),
  );
}

function isMissing({ type, value, options }) {
  if (type !== "combo") return false;
  const known = typeof options.values === "function" ? options.values() : options.values;
  return !(known ?? []).includes(value);
}

function addButton(node) {
  if (node.widgets.some(({ name }) => name === BUTTON)) return;
  const button = node.addWidget("button", BUTTON, null, get);
  button.label = label();
  button.serialize = false;
  button.options.serialize = false;
  node.widgets = [button, ...node.widgets.filter((widget) => widget !== button)];
  // Some frontends leave a gap for it in the values, which are read without gaps.
  after(node, "onSerialize", (saved) => {
    saved.widgets_values = Object.values(saved.widgets_values ?? []);
  });
}

function label() {
  const size = planOf(app.graph)?.native ? "2 GB" : "30 MB";
  return text("getMiniature", "Get the miniature ({size}, no download)", { size });
}

let isCopying = false;

async function get() {
  if (isCopying) return;
  isCopying = true;
  const graph = app.graph;
  showButtons(text("copying", "Copying…"), true);
  try {
    const query = planOf(graph).native ? "?native=1" : "";
    const answer = await api.fetchApi(`/animatediff_v2v/miniature${query}`, { method: "POST" });
    const { error } = await answer.json();
    if (error) throw new Error(error);
    await app.refreshComboInNodes();
    for (const [node, values] of planned()) fill(node, values);
    forgetErrors(planned().map(([node]) => String(node.id)));
    app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState();
    const summary = text("installed", "The miniature is installed");
    say("success", summary, text("nowRun", "Run restyles its clip."));
  } catch (error) {
    showButtons(label(), false);
    const summary = text("notInstalled", "The miniature could not be copied");
    say("error", summary, error.message);
  } finally {
    isCopying = false;
  }
}

function showButtons(shown, isDisabled) {
  for (const node of app.graph.nodes) {
    const button = node.widgets?.find(({ name }) => name === BUTTON);
    if (button) Object.assign(button, { label: shown, disabled: isDisabled });
  }
  app.canvas.setDirty(true, true);
}

// Sets a node to the miniature, and takes the button away.
function fill(node, values) {
  for (const [widget, value] of entries(node, values)) {
    const former = widget.value;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    // Takes the marks of missing files away.
    node.onWidgetChanged?.(widget.name, value, former, widget);
  }
  const button = node.widgets.find(({ name }) => name === BUTTON);
  if (button) node.removeWidget(button);
  // Nodes 2.0 renders again only when the list is replaced.
  node.widgets = [...node.widgets];
  node.setDirtyCanvas(true, true);
}

// Takes away what an earlier run reported of these nodes. The frontend does so itself only for the
// kinds of errors that it can check.
function forgetErrors(ids) {
  const { $pinia } = document.getElementById("vue-app")?.__vue_app__?.config.globalProperties ?? {};
  const store = $pinia?._s.get("executionError");
  if (!store?.recordNodeErrors) return;
  const errors = Object.entries(store.lastNodeErrors ?? {});
  store.recordNodeErrors(Object.fromEntries(errors.filter(([id]) => !ids.includes(id))));
  if (ids.includes(String(store.lastExecutionError?.node_id))) store.recordExecutionError(null);
}

function say(severity, summary, detail) {
  // Errors stay until they are closed.
  const life = severity === "error" ? {} : { life: 6000 };
  app.extensionManager.toast.add({ severity, summary, detail, ...life });
}
