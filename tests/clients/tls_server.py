"""The API behind TLS, on a bare aiohttp application in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading

from aiohttp import web
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.queue.executor import WorkerOptions
from animatediff_v2v.api.queue.process_worker import ProcessWorker
from animatediff_v2v.api.serve import application
from animatediff_v2v.api.settings import Settings


class TlsServer:
    """Starts on entry, stops on exit."""

    def __init__(self, folder, models, certificate):
        self._folder, self._models = folder, models
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self.key = KeyRing(folder).add("test")

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(self, *_error):
        self._wait(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    async def _start(self):
        settings = Settings(enabled=True, private_webhooks=True)
        workers = [ProcessWorker(WorkerOptions(models=self._models))]
        app = application(self._folder, models=self._models, settings=settings, workers=workers)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
