// Lists the templates of this pack by their numbers. ComfyUI lists files as the file system does,
// which on Linux is in no order.

import { api } from "../../../scripts/api.js";

const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]);

const before = api.getWorkflowTemplates;
api.getWorkflowTemplates = async function (...values) {
  const offered = await before.apply(this, values);
  offered?.[PACK]?.sort();
  return offered;
};
