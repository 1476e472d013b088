// Shows the notes of this pack's templates at reading size: graphs are opened at three quarters of
// theirs, where the 10 pixels of ComfyUI's text fields are too small. A note of a template is one
// that links to this pack. Its link to the miniature is a button; see get_miniature.js.

const OURS = ':has(a[href^="https://github.com/animatediff-v2v/"])';

const style = document.createElement("style");
// The first is what the canvas shows, the second is of Nodes 2.0.
style.textContent = `
  .comfy-markdown${OURS}, .comfy-markdown-content${OURS} {
    --comfy-textarea-font-size: 15px;
    line-height: 1.45;
  }
  ${OURS} a[href$="#get-the-miniature"] {
    display: inline-block;
    padding: 0 10px;
    border-radius: 6px;
    background: #0b8ce9;
    color: #fff;
    font-weight: 600;
    text-decoration: none;
  }
`;
document.head.append(style);
