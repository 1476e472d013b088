"""The calls on the hosted model's page. Prints their results as one JSON object."""

import json
import os
import time

import fal_client
import httpx

ID = "fal-ai/animatediff-v2v"
saw = {"statuses": [], "messages": []}


def on_queue_update(update):
    saw["statuses"].append(type(update).__name__)
    if isinstance(update, fal_client.InProgress):
        saw["messages"] += [log["message"] for log in update.logs]


if os.environ["CONFIGURATION"] == "tls":  # uploads go to hosts that no variable names
    video_url = fal_client.encode_file(os.environ["CLIP"])
else:
    video_url = saw["uploaded"] = fal_client.upload_file(os.environ["CLIP"])
arguments = {
    "video_url": video_url,
    "prompt": "an astronaut in space, cyberpunk",
    "num_inference_steps": 2,
    "seed": 42,
}
saw["subscribed"] = fal_client.subscribe(
    ID, arguments=arguments, with_logs=True, on_queue_update=on_queue_update
)

handle = fal_client.submit(ID, arguments=arguments, webhook_url=os.environ["WEBHOOK"])
saw["request_id"] = handle.request_id
while not isinstance(
    status := fal_client.status(ID, handle.request_id, with_logs=True), fal_client.Completed
):
    time.sleep(0.1)
saw["completed"] = {"logs": status.logs, "metrics": status.metrics}
saw["result"] = fal_client.result(ID, handle.request_id)
video = httpx.get(saw["result"]["video"]["url"], headers={"Range": "bytes=4-7"})
saw["range"] = {"status": video.status_code, "text": video.text}

first = fal_client.submit(ID, arguments=arguments | {"num_inference_steps": 30})
second = fal_client.submit(f"{ID}/turbo", arguments=arguments | {"num_inference_steps": 4})
fal_client.cancel(ID, second.request_id)
first.cancel()
saw["cancelled"] = []
for each in (first, second):
    try:
        each.get()
    except fal_client.FalClientHTTPError as error:
        saw["cancelled"].append(
            {"status": error.status_code, "body": error.response.json(), "type": error.error_type}
        )

try:
    fal_client.run(ID, arguments=arguments | {"num_inference_steps": 0})
except fal_client.FalClientHTTPError as error:
    saw["refused"] = {"status": error.status_code, "detail": error.response.json()["detail"]}
print(json.dumps(saw))
