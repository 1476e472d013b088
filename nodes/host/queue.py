"""ComfyUI's own queue, for prompts that are submitted without a browser."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import comfy.model_management as memory
import folder_paths
from aiohttp import web
from server import PromptServer

from ..queue_numbers import number_in_front_of

# An event for this pack's listeners only; they get it as "said".
_SAID = "animatediff_v2v.said"

Hear = Callable[[str, Mapping[str, Any]], None]
# Higher than any number that ComfyUI reaches: such prompts wait until all others are done.
LOWEST_PRIORITY = 10**9


class _Listener:
    """Takes the place of a browser tab's WebSocket and passes on its events."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    async def send_json(self, message: Mapping[str, Any]) -> None:
        event = message["type"]
        self._hear("said" if event == _SAID else event, message["data"])

    async def send_bytes(self, _message: bytes) -> None:
        """Ignore previews."""


class PromptQueue:
    """Submits prompts and passes on events; only for the event loop's thread."""

    def __init__(self) -> None:
        """Use the server that is loading this pack."""
        self._server = PromptServer.instance
        self._low = 0

    @property
    def folders(self) -> list[Path]:
        """Return the folders of files, whose paths must not appear in responses."""
        names = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
        roots = (folder_paths.get_user_directory(), folder_paths.models_dir, folder_paths.base_path)
        return [Path(name) for name in (*names, *roots)]

    def input_folder(self, name: str) -> Path:
        """Return a folder in ComfyUI's input folder; nodes find a file in it as `name/file`."""
        return Path(folder_paths.get_input_directory()) / name

    def output_folder(self, name: str) -> Path:
        """Return a folder in ComfyUI's output folder."""
        return Path(folder_paths.get_output_directory()) / name

    def shown_file(self, shown: Mapping[str, str]) -> Path:
        """Return the path of a file that a node told the frontend to show."""
        folder = folder_paths.get_directory_by_type(shown["type"])
        assert folder is not None, shown
        return Path(folder) / shown["subfolder"] / shown["filename"]

    async def submit(
        self,
        prompt: Mapping[str, Any],
        *,
        prompt_id: str,
        client_id: str,
        is_low_priority: bool,
        before: str | None,
    ) -> Mapping[str, Any] | None:
        """Queue a prompt in API format; its events go to `client_id`.

        This calls ComfyUI's own route, because the format of queue entries depends on its version.

        Args:
            prompt: the graph, in API format.
            prompt_id: its id.
            client_id: the listener that gets its events.
            is_low_priority: queue it behind all prompts of normal priority.
            before: the id of a waiting prompt to queue it in front of.

        Returns:
            None when it is queued, else the errors: {"error": ..., "node_errors": ...}.
        """
        body: dict[str, Any] = {
            "prompt": prompt,
            "prompt_id": prompt_id,
            "client_id": client_id,
            "extra_data": {},
        }
        number = number_in_front_of(before, self._waiting())
        if number is not None:
            body["number"] = number
        elif is_low_priority:
            self._low += 1
            body["number"] = LOWEST_PRIORITY + self._low

        async def read() -> Mapping[str, Any]:
            return body

        response = await self._prompt_route()(SimpleNamespace(json=read, headers={}))
        if response.status == 200:
            return None
        assert response.text is not None, response
        errors: Mapping[str, Any] = json.loads(response.text)
        return errors

    def _prompt_route(self) -> Callable[[Any], Awaitable[web.Response]]:
        routes = (route for route in self._server.routes if isinstance(route, web.RouteDef))
        handler = next(
            route.handler for route in routes if (route.method, route.path) == ("POST", "/prompt")
        )
        return cast("Callable[[Any], Awaitable[web.Response]]", handler)

    def running(self) -> list[str]:
        """Return the ids of the running prompts; one, in all versions so far."""
        return [item[1] for item in self._server.prompt_queue.get_current_queue_volatile()[0]]

    def waiting(self) -> list[str]:
        """Return the ids of all waiting prompts, also of other clients, the next one first."""
        return [prompt_id for _, prompt_id in self._waiting()]

    def _waiting(self) -> list[tuple[float, str]]:
        waiting = self._server.prompt_queue.get_current_queue_volatile()[1]
        return sorted(item[:2] for item in waiting)

    def remove(self, prompt_id: str) -> bool:
        """Remove a waiting prompt from the queue; return False if it is not waiting."""
        queue = self._server.prompt_queue
        removed: bool = queue.delete_queue_item(lambda item: item[1] == prompt_id)
        return removed

    def interrupt(self, prompt_id: str) -> bool:
        """Stop a prompt if it is running, and return whether it was.

        No other prompt is affected: the queue's lock is held, and each prompt clears the flag when
        it starts. For the same reason, a flag that is set just before the prompt starts is lost:
        call this again after its start.
        """
        queue = self._server.prompt_queue
        with queue.mutex:
            if any(item[1] == prompt_id for item in queue.currently_running.values()):
                memory.interrupt_current_processing()
                return True
        return False

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """Return ComfyUI's history entry of a finished prompt; None if it was cleared."""
        found = self._server.prompt_queue.get_history(prompt_id=prompt_id)
        entry: Mapping[str, Any] | None = found.get(prompt_id)
        return entry

    def listen(self, client_id: str, hear: Hear) -> None:
        """Pass on the events of prompts of `client_id`, which otherwise go to all open tabs."""
        self._server.sockets[client_id] = _Listener(hear)
        self._server.sockets_metadata[client_id] = {"feature_flags": {}}

    def stop_listening(self, client_id: str) -> None:
        """Undo `listen`."""
        self._server.sockets.pop(client_id, None)
        self._server.sockets_metadata.pop(client_id, None)


def say(message: str) -> None:
    """Send a progress message if the running prompt was queued by a listener of this pack.

    Browser tabs do not get it: their frontend knows no such event.
    """
    server = PromptServer.instance
    if isinstance(server.sockets.get(server.client_id), _Listener):
        server.send_sync(_SAID, {"message": message}, server.client_id)
