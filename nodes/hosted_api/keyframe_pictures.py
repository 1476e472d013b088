"""Pictures of keyframes in the shape of their video."""

from __future__ import annotations

from PIL import Image, ImageOps

from ...api.queue.executor import ApiJob
from ...pipeline.video.pictures import read_picture
from ...pipeline.video.probe import probe_video


def crop_keyframes(job: ApiJob) -> None:
    """Crop a job's keyframes around the middle to the video's aspect ratio, as the command does.

    The node Keyframes refuses other shapes. Files are replaced, because they can be links to
    uploads.

    Raises:
        AnimateDiffV2VError: a file cannot be read.
    """
    info = probe_video(job.video)
    for path, _ in job.keyframes:
        picture = Image.fromarray(read_picture(path))
        scale = min(picture.width / info.width, picture.height / info.height)
        size = max(1, round(scale * info.width)), max(1, round(scale * info.height))
        if size == picture.size:
            continue
        part = path.with_suffix(".part")  # of a server that is killed, the next one removes it
        ImageOps.fit(picture, size, Image.Resampling.BICUBIC).save(part, "PNG")
        part.replace(path)
