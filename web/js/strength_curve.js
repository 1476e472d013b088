// Shows in Strength Curve the curve of its text.

import { app } from "../../../scripts/app.js";
import { addPolledWidget, isAnyLinked, valueOf } from "./polled_widget.js";
import { number } from "./selection.js";
import { text } from "./texts.js";

const HEIGHT_PIXELS = 72;
const LINE_PIXELS = 14;
const SVG = "http://www.w3.org/2000/svg";
// Of the drawing, which is stretched to the node's width.
const [WIDTH, HEIGHT, MARGIN] = [100, 100, 4];

app.registerExtension({
  name: "AnimateDiffV2V.StrengthCurve",
  nodeCreated(node) {
    if (node.comfyClass === "ADV2V_StrengthCurve") addPolledWidget(node, "picture", new Picture());
  },
});

class Picture {
  route = "/animatediff_v2v/curve";
  height = HEIGHT_PIXELS;

  constructor() {
    this.label = text("curve", "curve");
    this.element = document.createElement("div");
    this.text = document.createElement("div");
    this.drawing = document.createElementNS(SVG, "svg");
    this.line = document.createElementNS(SVG, "polyline");
    this.drawing.append(this.line);
    this.element.append(this.drawing, this.text);
    this.element.dataset.testid = "animatediff-v2v-curve";
    Object.assign(this.element.style, {
      display: "flex",
      flexDirection: "column",
      height: `${HEIGHT_PIXELS}px`,
      overflow: "hidden",
      pointerEvents: "none", // what lies below must stay clickable
      fontSize: "11px",
      lineHeight: `${LINE_PIXELS}px`,
      color: "var(--input-text, #ddd)",
    });
    Object.assign(this.drawing.style, {
      flex: "none",
      width: "100%",
      height: `${HEIGHT_PIXELS - LINE_PIXELS}px`,
    });
    Object.assign(this.text.style, { flex: "none", textAlign: "center" });
    this.drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.drawing.setAttribute("preserveAspectRatio", "none");
    const drawn = { fill: "none", stroke: "currentColor", "vector-effect": "non-scaling-stroke" };
    for (const [name, value] of Object.entries(drawn)) this.line.setAttribute(name, value);
    this.line.setAttribute("stroke-width", "1.5");
  }

  queryOf(node) {
    if (isAnyLinked(node, ["curve"])) return { sentence: "" };
    return { query: new URLSearchParams([["curve", valueOf(node, "curve") ?? ""]]) };
  }

  show({ values, is_over_steps: isOverSteps }) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    this.draw(values, low, high);
    const range = [...new Set([low, high])].map((each) => number(each, 3)).join(" – ");
    const last = values.length - 1;
    this.text.textContent = isOverSteps
      ? text("curveRangeOverSteps", "{range} over the steps, 0 % to 100 %", { range })
      : text("curveRange", "{range} in frames 0 to {last}", { range, last });
  }

  say(sentence) {
    this.line.setAttribute("points", "");
    this.text.textContent = sentence;
  }

  wait(isWaiting) {
    this.element.style.opacity = isWaiting ? "0.5" : "1";
  }

  // A level curve is drawn in the middle.
  draw(values, low, high) {
    const across = (WIDTH - 2 * MARGIN) / Math.max(values.length - 1, 1);
    const height = HEIGHT - 2 * MARGIN;
    const points = values.map((value, frame) => {
      const share = high > low ? (value - low) / (high - low) : 0.5;
      return `${MARGIN + frame * across},${MARGIN + (1 - share) * height}`;
    });
    this.line.setAttribute("points", points.join(" "));
  }
}
