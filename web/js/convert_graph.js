// Converts the graph on the canvas, if it was made for another AnimateDiff pack, and says when a graph
// could be converted: a command in the menu Edit, and a notice when such a graph is opened.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { ChangeTracker } from "../../../scripts/changeTracker.js";
import { hideNotice, showNotice } from "./convert_notice.js";

const CONVERT = "AnimateDiffV2V.ConvertGraph";
const NOTICE = "AnimateDiffV2V.NoticeOfOtherPacks";
const MOST_LINES = 40;
// Titles of the other packs by the types of their nodes; filled at the start.
let packs = { animatediff: {}, others: {} };

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
    packs = await (await api.fetchApi("/animatediff_v2v/other_packs")).json();
    offer();
  },
  afterConfigureGraph() {
    // The graph is shown first, and nodes that ComfyUI replaces by itself are replaced.
    setTimeout(offer, 300);
  },
});

// Shows the notice if the graph has nodes of another AnimateDiff pack.
function offer() {
  const types = typesOf(app.graph);
  const isOffered = types.some((type) => packs.animatediff[type]);
  if (!isOffered || !app.extensionManager.setting.get(NOTICE)) return hideNotice();
  const counts = {};
  for (const source of [packs.animatediff, packs.others])
    for (const title of types.map((type) => source[type]).filter(Boolean))
      counts[title] = (counts[title] ?? 0) + 1;
  showNotice(`This graph uses ${counted(counts)}.`, () => convert());
}

// Returns "1 node of A", "4 nodes of A and 2 of B", or "4 nodes of A, 2 of B and 1 of C".
function counted(counts) {
  const [[title, count], ...others] = Object.entries(counts);
  const items = [`${count} ${count === 1 ? "node" : "nodes"} of ${title}`];
  items.push(...others.map(([other, number]) => `${number} of ${other}`));
  const last = items.pop();
  return items.length ? `${items.join(", ")} and ${last}` : last;
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
  const history = [...opened.changeTracker.undoQueue, before];
  await app.loadGraphData(graph, true, false, opened);
  restoreHistory(opened, history);
  hideNotice();
  say("success", "The graph was converted", "Undo brings the former graph back.");
}

// One undo leads back to the graph from before, also where the page has begun a new history, or has
// recorded meanwhile that nodes grew.
function restoreHistory({ changeTracker }, history) {
  const { undoQueue } = changeTracker;
  changeTracker.checkState();
  undoQueue.splice(0, undoQueue.length, ...history.slice(-ChangeTracker.MAX_HISTORY));
}

function lines({ entries }) {
  const told = entries
    .filter(({ outcome, notes }) => outcome !== "same" || notes.length)
    .map(({ node, title, outcome, into, reason, notes }) => {
      const name = LiteGraph.registered_node_types[into]?.title ?? into;
      const became = into && outcome === "converted" ? ` into ${name}` : "";
      const why = [sentence(reason), ...notes].filter(Boolean).join(" ");
      return `${node} ${title}: ${outcome}${became}${why ? `. ${why}` : ""}`;
    });
  const rest = told.length - MOST_LINES;
  return rest > 0 ? [...told.slice(0, MOST_LINES), `and ${rest} more`] : told;
}

function sentence(text) {
  return text && `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function say(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: 8000 });
}
