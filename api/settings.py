"""The settings of the hosted API, in api.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from yarl import URL

from ..pipeline import AnimateDiffV2VError
from .switch import FILE_NAME, SWITCH

Share = Literal["uploads", "inputs", "outputs", "loras", "database"]


class DiskShares(BaseModel):
    """The share of max_disk_bytes for each kind of file, each from 0 to 1, together 1 at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uploads: float = Field(default=0.2, gt=0, le=1)
    inputs: float = Field(default=0.2, gt=0, le=1)
    outputs: float = Field(default=0.35, gt=0, le=1)
    loras: float = Field(default=0.2, gt=0, le=1)
    database: float = Field(default=0.05, gt=0, le=1)

    @model_validator(mode="after")
    def _is_whole(self) -> DiskShares:
        total = self.uploads + self.inputs + self.outputs + self.loras + self.database
        if total > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:.2f}; the limit is 1")
        return self


class Settings(BaseModel):
    """The contents of api.json; every field has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    """Turns the API on; ANIMATEDIFF_V2V_API=1 or =0 in the environment overrides this."""
    base_models: dict[str, str] = Field(default_factory=dict)
    """Maps a hosted base_model to a file in models/checkpoints. Other names are compared with the
    files by letters and digits alone: cardosAnimev20 finds cardosAnime_v20."""
    default_base_model: str = "cardosAnimev20"
    """For endpoints without base_model; if it is not installed, the first checkpoint is used."""
    motion_module: str = ""
    """A file in models/animatediff_models; empty chooses the most suitable one."""
    turbo_motion_module: str = ""
    """The same for the turbo endpoints: AnimateLCM or AnimateDiff-Lightning."""
    max_body_bytes: int = Field(100 * 2**20, ge=1024)
    """The largest request body; a video in a data URI is a third larger than its file."""
    max_video_bytes: int = Field(512 * 2**20, ge=1024)
    max_lora_bytes: int = Field(1024 * 2**20, ge=1024)
    max_upload_bytes: int = Field(2048 * 2**20, ge=1024)
    """The largest file that a client may upload."""
    max_uploads_bytes: int = Field(20 * 2**30, ge=1024)
    """The most that all uploads may take together, within their share of max_disk_bytes."""
    keep_uploads_days: float = Field(7, gt=0)
    fetch_seconds: float = Field(120, gt=0)
    """The time limit for the download of one file."""
    fetch_redirects: int = Field(5, ge=0, le=20)
    fetches_at_once: int = Field(4, ge=1, le=64)
    max_video_seconds: float = Field(600, gt=0)
    max_video_pixels: int = Field(4096 * 4096, ge=64 * 64)
    """The most pixels (width times height) of one frame of an input video."""
    max_frames: int | None = Field(None, ge=1)
    """The most frames that one request may make."""
    max_seconds: float | None = Field(None, gt=0)
    """The most seconds of a video that one request may restyle."""
    max_queued: int = Field(1000, ge=1)
    """The most unfinished requests, of all keys together."""
    max_queued_per_key: int = Field(1000, ge=1)
    keep_days: float = Field(30, gt=0)
    """Days that finished requests and their videos are kept."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that clients may use, besides localhost and IP addresses."""
    allowed_origins: tuple[str, ...] = ()
    """Sites whose pages may call with a key, such as https://studio.example:8443."""
    keyless_loopback: bool = False
    """Let programs of the user who runs the server call without a key; only on Linux."""
    requests_per_minute: int = Field(600, ge=1)
    """The most calls of one key; calls for status and result do not count."""
    private_webhooks: bool = False
    """Allow webhooks to addresses that are not on the public internet."""
    max_disk_bytes: int = Field(100 * 2**30, ge=2**20)
    """The most disk space for everything that the service keeps."""
    disk_shares: DiskShares = DiskShares()
    fetched_ahead: int = Field(4, ge=1, le=64)
    """Waiting requests whose files are downloaded in advance, at most."""

    def share(self, kind: Share) -> int:
        """Return the bytes that all files of a kind may take."""
        share: float = getattr(self.disk_shares, kind)
        return int(self.max_disk_bytes * share)

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """Normalize origins to the form that browsers send."""
        return tuple(_origin(each) for each in origins)


def load_settings(folder: Path) -> Settings:
    """Read `folder`/api.json, or return the defaults if there is none.

    Raises AnimateDiffV2VError when the file is not a JSON object of known fields.
    """
    path = folder / FILE_NAME
    values: Any = {}
    if path.is_file():
        try:
            # Editors on Windows may start a file with a byte order mark, which JSON does not allow.
            values = json.loads(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise AnimateDiffV2VError(f"{path} is not UTF-8: save it as UTF-8.") from error
        except (OSError, ValueError, RecursionError) as error:
            raise AnimateDiffV2VError(f"{path} cannot be read as JSON: {error}.") from error
    try:
        return _switched(Settings.model_validate(values))
    except ValidationError as error:
        wrong = "; ".join(_sentence(each) for each in error.errors(include_url=False))
        raise AnimateDiffV2VError(f"{path} cannot be used: {wrong}.") from error


def _origin(text: str) -> str:
    try:
        url = URL(text)
        if url.scheme in ("http", "https") and url.host and url == url.origin():
            return str(url.origin())
    except ValueError:
        pass
    raise ValueError(
        f"{text!r} is not an origin: give scheme, name and port, for example https://a.example:8443"
    )


def _switched(settings: Settings) -> Settings:
    switch = os.environ.get(SWITCH)
    if not switch:
        return settings
    if switch not in ("0", "1"):
        raise AnimateDiffV2VError(f"{SWITCH} is {switch!r}; it can be 1 (on) or 0 (off).")
    return settings.model_copy(update={"enabled": switch == "1"})


def _sentence(error: Any) -> str:
    name = ".".join(map(str, error["loc"])) or "it"
    if error["type"] == "extra_forbidden":
        return f"there is no setting {name}, only {', '.join(Settings.model_fields)}"
    return f"{name}: {error['msg']}"
