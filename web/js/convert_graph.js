// Converts the graph on the canvas, if it was made for another AnimateDiff pack, and says when a graph
// could be converted: a command in the menu Edit, and a notice when such a graph is opened.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { hideNotice, showNotice } from "./convert_notice.js";

const CONVERT = "AnimateDiffV2V.ConvertGraph";
const NOTICE = "AnimateDiffV2V.NoticeOfOtherPacks";
const MOST_LINES = 40;
// Types of the other packs' nodes, and the titles of the packs; filled at the start.
let titles = {};

app.registerExtension({
  name: "AnimateDiffV2V.ConvertGraph",
  settings: [
    {
      id: NOTICE,
      category: ["AnimateDiff V2V", "Graphs", "Notice"],
      name: "Offer to convert graphs that were made for AnimateDiff-Evolved",
      type: "boolean",
      defaultValue: true,
    },
  ],
  commands: [
    {
      id: CONVERT,
      label: "Convert graph to AnimateDiff V2V",
      icon: "pi pi-arrow-right-arrow-left",
      function: () => convert(),
    },
  ],
  menuCommands: [{ path: ["Edit"], commands: [CONVERT] }],
  async setup() {
    titles = await (await api.fetchApi("/animatediff_v2v/other_packs")).json();
    offer();
  },
  afterConfigureGraph() {
    // The graph is shown first, and nodes that ComfyUI replaces by itself are replaced.
    setTimeout(offer, 300);
  },
});

// Shows the notice if the graph has nodes of another AnimateDiff pack.
function offer() {
  const counts = {};
  for (const type of typesOf(app.graph)) {
    if (titles[type]) counts[titles[type]] = (counts[titles[type]] ?? 0) + 1;
  }
  const [title] = Object.keys(counts);
  if (!title || !app.extensionManager.setting.get(NOTICE)) return hideNotice();
  const nodes = counts[title] === 1 ? "1 node" : `${counts[title]} nodes`;
  showNotice(`This graph uses ${nodes} of ${title}.`, () => convert());
}

// A node whose pack is missing keeps its type in what was saved of it.
function typesOf(graph) {
  const inner = [...(graph.subgraphs?.values() ?? [])];
  return [graph, ...inner].flatMap(({ nodes }) =>
    nodes.map((node) => node.last_serialization?.type ?? node.type),
  );
}

async function convert() {
  hideNotice();
  const { workflow } = app.extensionManager;
  const opened = workflow.activeWorkflow;
  const before = app.graph.serialize();
  const answer = await api.fetchApi("/animatediff_v2v/convert", {
    method: "POST",
    body: JSON.stringify(before),
  });
  const { error, graph, report } = await answer.json();
  if (error || !graph) return say("warn", "The graph was not converted", error ?? report.reason);
  const wanted = await app.extensionManager.dialog.confirm({
    title: "Convert this graph?",
    message: report.summary.replace("was converted", "can be converted"),
    itemList: lines(report),
    type: "default",
  });
  if (!wanted || workflow.activeWorkflow !== opened) return;
  opened.changeTracker.checkState();
  await app.loadGraphData(graph, true, false, opened);
  restoreHistory(opened, before);
  hideNotice();
  say("success", "The graph was converted", "Undo brings the former graph back.");
}

// Undo leads back to the graph from before, also where the page has begun a new history.
function restoreHistory({ changeTracker }, before) {
  const { undoQueue } = changeTracker;
  changeTracker.checkState();
  const last = undoQueue.at(-1);
  if (!last || last.nodes.length !== before.nodes.length) undoQueue.push(before);
}

function lines({ entries }) {
  const told = entries
    .filter(({ outcome, notes }) => outcome !== "same" || notes.length)
    .map(({ node, title, outcome, into, reason, notes }) => {
      const name = LiteGraph.registered_node_types[into]?.title ?? into;
      const became = into && outcome === "converted" ? ` into ${name}` : "";
      const why = [reason, ...notes].filter(Boolean).join(" ");
      return `${node} ${title}: ${outcome}${became}${why ? `. ${why}` : ""}`;
    });
  const rest = told.length - MOST_LINES;
  return rest > 0 ? [...told.slice(0, MOST_LINES), `and ${rest} more`] : told;
}

function say(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: 8000 });
}
