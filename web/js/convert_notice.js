// A line at the lower edge of the page with a button, in both renderers.

const STYLE = {
  position: "fixed",
  bottom: "24px",
  left: "50%",
  transform: "translateX(-50%)",
  zIndex: 1000,
  display: "flex",
  gap: "12px",
  alignItems: "center",
  padding: "10px 14px",
  borderRadius: "8px",
  font: "14px Inter, Arial, sans-serif",
  color: "var(--input-text, #ddd)",
  background: "var(--comfy-menu-bg, #353535)",
  border: "1px solid var(--border-color, #4e4e4e)",
};
const BUTTON = {
  padding: "6px 12px",
  borderRadius: "6px",
  border: "none",
  cursor: "pointer",
  color: "inherit",
  background: "var(--comfy-input-bg, #222)",
};
let shown = null;

export function showNotice(text, accept) {
  hideNotice();
  shown = document.createElement("div");
  shown.dataset.testid = "animatediff-v2v-convert-notice";
  shown.setAttribute("role", "status");
  Object.assign(shown.style, STYLE);
  const said = document.createElement("span");
  said.textContent = text;
  shown.append(said, button("Convert", accept), button("Not now", hideNotice));
  document.body.append(shown);
}

export function hideNotice() {
  shown?.remove();
  shown = null;
}

function button(label, act) {
  const made = document.createElement("button");
  made.textContent = label;
  Object.assign(made.style, BUTTON);
  made.onclick = act;
  return made;
}
