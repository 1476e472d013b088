"""ComfyUI's own queue, for whoever hands prompts in without a browser."""

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

# Told to a listener of ours alone, who hears it as "said".
_SAID = "animatediff_v2v.said"

Hear = Callable[[str, Mapping[str, Any]], None]
# Beyond what a session reaches: prompts with such a number wait until all others are done.
LOWEST_PRIORITY = 10**9


class _Listener:
    """Stands among the open tabs and hears what ComfyUI tells one of them."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    async def send_json(self, message: Mapping[str, Any]) -> None:
        event = message["type"]
        self._hear("said" if event == _SAID else event, message["data"])

    async def send_bytes(self, _message: bytes) -> None:
        """Previews are for eyes."""


class PromptQueue:
    """Prompts in, events out; all of it belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Use the server that loads this pack."""
        self._server = PromptServer.instance
        self._low = 0

    @property
    def folders(self) -> list[Path]:
        """Where files are kept, which is nobody's business at the other end of the network."""
        names = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
        roots = (folder_paths.get_user_directory(), folder_paths.models_dir, folder_paths.base_path)
        return [Path(name) for name in (*names, *roots)]

    def input_folder(self, name: str) -> Path:
        """A folder in ComfyUI's input folder; nodes find a file in it as `name/file`."""
        return Path(folder_paths.get_input_directory()) / name

    def output_folder(self, name: str) -> Path:
        """A folder in ComfyUI's output folder."""
        return Path(folder_paths.get_output_directory()) / name

    def shown_file(self, shown: Mapping[str, str]) -> Path:
        """The file that a node told the frontend to show."""
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

        before: the id of a waiting prompt to queue it in front of.
        Gives None when it is queued, else the errors: {"error": ..., "node_errors": ...}.
        The work is left to ComfyUI's own route, which knows what its version wants in the queue.
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
        """The ids of the prompts that run; one, in all versions so far."""
        return [item[1] for item in self._server.prompt_queue.get_current_queue_volatile()[0]]

    def waiting(self) -> list[str]:
        """The ids of the prompts that wait, the next one first, whosever they are."""
        return [prompt_id for _, prompt_id in self._waiting()]

    def _waiting(self) -> list[tuple[float, str]]:
        waiting = self._server.prompt_queue.get_current_queue_volatile()[1]
        return sorted(item[:2] for item in waiting)

    def remove(self, prompt_id: str) -> bool:
        """Take a waiting prompt out of the queue; False if it does not wait."""
        queue = self._server.prompt_queue
        removed: bool = queue.delete_queue_item(lambda item: item[1] == prompt_id)
        return removed

    def interrupt(self, prompt_id: str) -> bool:
        """Stop a prompt if it is the one that runs.

        The queue cannot move on in between, and each prompt lowers the flag when it begins, so
        that no other prompt is hit. For the same reason a flag that is raised before the prompt
        has begun is lost: ask again when it has.
        """
        queue = self._server.prompt_queue
        with queue.mutex:
            if any(item[1] == prompt_id for item in queue.currently_running.values()):
                memory.interrupt_current_processing()
                return True
        return False

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """What ComfyUI remembers of a finished prompt; None where somebody has cleared it."""
        found = self._server.prompt_queue.get_history(prompt_id=prompt_id)
        entry: Mapping[str, Any] | None = found.get(prompt_id)
        return entry

    def listen(self, client_id: str, hear: Hear) -> None:
        """Pass on what prompts of `client_id` tell, instead of all open tabs being told."""
        self._server.sockets[client_id] = _Listener(hear)
        self._server.sockets_metadata[client_id] = {"feature_flags": {}}

    def stop_listening(self, client_id: str) -> None:
        """End what `listen` began."""
        self._server.sockets.pop(client_id, None)
        self._server.sockets_metadata.pop(client_id, None)


def say(message: str) -> None:
    """Tell in words how far the running prompt is, if one who listens has queued it.

    Tabs are not told: their frontend knows no such event.
    """
    server = PromptServer.instance
    if isinstance(server.sockets.get(server.client_id), _Listener):
        server.send_sync(_SAID, {"message": message}, server.client_id)
