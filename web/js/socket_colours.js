// Gives the pack's socket types colours; a colour palette that names a type has precedence.

import { app } from "../../../scripts/app.js";

// Relatives of ComfyUI's own types have similar colours: MODEL, CONDITIONING, CONTROL_NET.
const COLOURS = {
  ADV2V_MODEL: "#9575cd",
  ADV2V_CONTEXT_OPTIONS: "#4dd0e1",
  ADV2V_PROMPT_SCHEDULE: "#ffb74d",
  ADV2V_MOTION_LORA_STACK: "#aed581",
  ADV2V_CONTROL: "#26a69a",
  ADV2V_STYLE: "#f06292",
  ADV2V_SPEED: "#90a4ae",
  ADV2V_FREE_INIT: "#a1887f",
  LORA_STACK: "#dce775",
  VHS_VIDEOINFO: "#bcaaa4",
};

app.registerExtension({
  name: "AnimateDiffV2V.SocketColours",
  setup() {
    const types = Object.entries(COLOURS);
    for (const [type, colour] of types) {
      setDefault(app.canvas.default_connection_color_byType, type, colour);
      setDefault(LGraphCanvas.link_type_colors, type, colour);
    }
    // Nodes 2.0; palettes set these variables on the root element itself.
    const style = document.createElement("style");
    const variables = types.map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    style.textContent = `:root { ${variables.join(" ")} }`;
    document.head.append(style);
  },
});

// The frontend empties the colours of types that its palette does not name, with each palette.
function setDefault(colours, type, colour) {
  let chosen = colours[type];
  Object.defineProperty(colours, type, {
    configurable: true,
    enumerable: true,
    get: () => chosen || colour,
    set: (value) => {
      chosen = value;
    },
  });
}
