// Runs a script with fal's JavaScript client on your own server:
// `node --require ./fal-local.cjs script.mjs`.
//
// FAL_LOCAL_URL is the server's address, by default http://127.0.0.1:8188. The script needs no
// change. Calls to fal's hosts that the server does not replace are refused here, so that neither
// key nor prompt reaches the hosted service by accident.
"use strict";

const home = (process.env.FAL_LOCAL_URL || "http://127.0.0.1:8188").replace(/\/+$/, "");
const HOSTS = ["fal.run", "queue.fal.run", "rest.fal.ai", "rest.alpha.fal.ai", "v3.fal.media"];
const FAL = /(^|\.)(fal\.ai|fal\.run|falrun\.com)$/;

function rewritten(address, method) {
  const url = new URL(address);
  const download = url.hostname === "v3.fal.media" && ["GET", "HEAD"].includes(method);
  if (url.protocol === "https:" && HOSTS.includes(url.hostname) && !download) {
    return `${home}/fal/${url.hostname}${url.pathname}${url.search}`;
  }
  if (FAL.test(url.hostname)) {
    throw new Error(`fal-local: ${url.hostname} has no counterpart at ${home}; the call was not sent.`);
  }
  return address;
}

const outside = globalThis.fetch;

globalThis.fetch = async function fetch(input, options) {
  if (input instanceof Request) {
    const target = rewritten(input.url, (options?.method || input.method).toUpperCase());
    return outside(target === input.url ? input : new Request(target, input), options);
  }
  return outside(rewritten(String(input), (options?.method || "GET").toUpperCase()), options);
};

// Without a key the clients send nothing, but a local server may not need one.
if (!process.env.FAL_KEY && !process.env.FAL_KEY_ID) {
  process.env.FAL_KEY = "local:local";
  console.error(
    `fal-local: FAL_KEY is not set, which ${home} takes only with keyless_loopback: make a key ` +
      "with `python -m animatediff_v2v.cli keys --folder FOLDER add NAME`, or in ComfyUI's " +
      "custom_nodes with `python -m animatediff-v2v.cli keys add NAME`, and set FAL_KEY to it.",
  );
}
