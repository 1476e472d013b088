// What the hosted model's page shows, call by call. Prints what it saw as one JSON object.
// CLIENT names the package, CONFIGURATION how it finds the server; with the preload there is none.
import { readFile } from "node:fs/promises";

const home = process.env.FAL_LOCAL_URL;
const module = await import(process.env.CLIENT);
const fal = module.fal ?? module;
const hosts = ["fal.run", "queue.fal.run", "rest.fal.ai", "rest.alpha.fal.ai", "v3.fal.media"];
const rewrite = (address) => {
  const url = new URL(address);
  return hosts.includes(url.hostname) ? `${home}/fal/${url.hostname}${url.pathname}${url.search}` : address;
};
const configurations = {
  preload: undefined,
  middleware: { requestMiddleware: async (request) => ({ ...request, url: rewrite(request.url) }) },
  fetch: { fetch: (address, options) => fetch(rewrite(address), options) },
  proxy: { proxyUrl: { url: `${home}/fal/proxy`, when: "always" } },
  browser: { proxyUrl: `${home}/fal/proxy` },
};
if (process.env.CONFIGURATION === "browser") {
  globalThis.window = { document: {} };
  // A page's own server holds the key; here the proxy wants the caller's.
  const sent = globalThis.fetch;
  globalThis.fetch = (address, options = {}) =>
    sent(address, { ...options, headers: { Authorization: `Key ${process.env.FAL_KEY}`, ...options.headers } });
}
const configuration = configurations[process.env.CONFIGURATION];
if (configuration) fal.config({ credentials: process.env.FAL_KEY, ...configuration });

const id = "fal-ai/animatediff-v2v";
const saw = { statuses: [], messages: [] };
const clip = new File([await readFile(process.env.CLIP)], "../my rocket?.mp4", { type: "video/mp4" });
const input = { video_url: clip, prompt: "an astronaut in space, cyberpunk", num_inference_steps: 2, seed: 42 };

const subscribed = await fal.subscribe(id, {
  input,
  logs: true,
  mode: process.env.FLOW === "stream" ? "streaming" : "polling",
  onQueueUpdate: (update) => {
    saw.statuses.push(update.status);
    saw.told = update.logs?.map((log) => log.message);
    if (update.status === "IN_PROGRESS") {
      update.logs.map((log) => log.message).forEach((message) => saw.messages.push(message));
    }
  },
});
saw.subscribed = subscribed.data ?? subscribed;

if (process.env.FLOW !== "full") {
  console.log(JSON.stringify(saw));
  process.exit();
}

saw.uploaded = await fal.storage.upload(clip);
const submitted = await fal.queue.submit(id, {
  input: { ...input, video_url: saw.uploaded },
  webhookUrl: process.env.WEBHOOK,
});
saw.request_id = submitted.request_id;
const requestId = submitted.request_id;
let status;
do {
  await new Promise((resolve) => setTimeout(resolve, 100));
  status = await fal.queue.status(id, { requestId, logs: true });
} while (status.status !== "COMPLETED");
saw.completed = status;
const result = await fal.queue.result(id, { requestId });
saw.result = result.data ?? result;
const video = await fetch(saw.result.video.url, { headers: { Range: "bytes=4-7" } });
saw.range = { status: video.status, text: await video.text() };

// Two, so that the second waits behind the first and is taken out of the queue.
const first = await fal.queue.submit(id, { input: { ...input, num_inference_steps: 30 } });
const second = await fal.queue.submit(`${id}/turbo`, { input: { ...input, num_inference_steps: 4 } });
await fal.queue.cancel(id, { requestId: second.request_id });
await fal.queue.cancel(id, { requestId: first.request_id });
saw.cancelled = [];
for (const { request_id } of [first, second]) {
  let each;
  do each = await fal.queue.status(id, { requestId: request_id });
  while (each.status !== "COMPLETED");
  await fal.queue.result(id, { requestId: request_id }).catch(({ status, body }) => {
    saw.cancelled.push({ status, body });
  });
}

await fal.run(id, { input: { ...input, num_inference_steps: 0 } }).catch((error) => {
  saw.refused = { name: error.name, status: error.status, detail: error.body.detail };
});
console.log(JSON.stringify(saw));
