// A sentence below a line of figures that says what to change, in the words of the widgets. It takes
// room only while there is something to say.

import { labelOf } from "./polled_widget.js";
import { text } from "./texts.js";

const MINIATURE = "miniature.safetensors";
const MINIATURE_PIXELS = 128;
const LINE_PIXELS = 15;
const UNSHOWN_LINES = 3; // while the node is not on the screen yet

export class Advice {
  constructor() {
    this.height = 0;
    this.element = document.createElement("div");
    Object.assign(this.element.style, {
      flex: "none",
      textAlign: "center",
      fontSize: "11px",
      lineHeight: `${LINE_PIXELS}px`,
      color: "#f0b429",
    });
  }

  say(sentence) {
    this.element.textContent = sentence;
    const shown = this.element.offsetHeight || UNSHOWN_LINES * LINE_PIXELS;
    this.height = sentence ? shown : 0;
  }
}

// Returns what to change where frames do not suit the miniature, or nothing. `loader` is the node
// that sets their size, `models` has the widget called `checkpoint`.
export function miniatureAdvice({ forecast, width, height }, { loader, models, checkpoint }) {
  const isSuited = width === MINIATURE_PIXELS && height === MINIATURE_PIXELS;
  if (forecast?.checkpoint !== MINIATURE || isSuited) return "";
  return text(
    "onlyMiniature",
    "The miniature only knows coloured shapes of 128 × 128 pixels. To try it, set {width} and {height} to 128; for real videos, choose another {checkpoint} and {module}.",
    {
      width: labelOf(loader, "width"),
      height: labelOf(loader, "height"),
      checkpoint: labelOf(models, checkpoint),
      module: labelOf(models, "motion_module"),
    },
  );
}
