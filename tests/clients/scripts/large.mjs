// A file so large that the client sends it in parts. Prints its URL.
import { fal } from "@fal-ai/client";

const part = new Uint8Array(1024 * 1024);
const parts = Array.from({ length: 91 }, (_, index) => part.slice().fill(index));
console.log(JSON.stringify(await fal.storage.upload(new File(parts, "large.mp4", { type: "video/mp4" }))));
