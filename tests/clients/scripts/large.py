"""A file so large that the client sends it in parts, ten at a time. Prints its URL."""

import json
import os

import fal_client

with open("large.mp4", "wb") as file:  # noqa: PTH123 - as the client's documentation has it
    for index in range(101):
        file.write(bytes([index]) * 1024 * 1024)
print(json.dumps(fal_client.upload_file("large.mp4")))
os.remove("large.mp4")  # noqa: PTH107
