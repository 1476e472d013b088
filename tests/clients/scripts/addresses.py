"""The way without the runner: a script that sets the server's addresses itself."""

import os
import runpy
from pathlib import Path

import fal_client.client

home = os.environ["FAL_LOCAL_URL"]
fal_client.client.RUN_URL_FORMAT = f"{home}/fal/fal.run/"
fal_client.client.QUEUE_URL_FORMAT = f"{home}/fal/queue.fal.run/"
fal_client.client.REST_URL = f"{home}/fal/rest.fal.ai"
fal_client.client.CDN_URL = f"{home}/fal/v3.fal.media"

runpy.run_path(str(Path(__file__).with_name("founding.py")), run_name="__main__")
