"""The page of a batch: sources and results side by side, one HTML file in the output folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from .ledger import Row
from .summary import duration, summarize
from .unit import Unit

PAGE = "index.html"
_PLAYED = {".mp4", ".webm", ".mov"}
_SHOWN = {".gif", ".webp"}

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 2rem auto; padding: 0 2rem; max-width: 72rem; background: #14181f;
  color: #e8ecf2; font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .25rem; }}
h2 {{ font-size: 1.1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
p {{ margin: 0 0 1rem; color: #9aa7b8; }}
section {{ margin: 0 0 2.5rem; }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }}
figure {{ margin: 0; }}
.pair input {{ display: none; }}
.pair.over {{ grid-template-columns: 1fr; gap: 0; cursor: ew-resize; touch-action: pan-y; }}
.pair.over::after {{ content: ""; grid-area: 1 / 1; width: 2px; background: #fff; z-index: 1;
  margin-left: calc(var(--at, 50%) - 1px); pointer-events: none; }}
.pair.over figure {{ grid-area: 1 / 1; }}
.pair.over figure + figure {{ clip-path: inset(0 0 0 var(--at, 50%)); }}
.pair.over figcaption {{ position: absolute; padding: 0 .5rem; color: #fff; background: #000a;
  border-radius: 6px; margin: 0 .5rem; transform: translateY(-2rem); }}
.pair.over figure + figure figcaption {{ right: 0; }}
.pair.over figure + figure {{ position: relative; }}
.pair.over input {{ display: block; grid-area: 2 / 1; width: 100%; margin: .5rem 0 0; }}
video, img {{ width: 100%; max-height: 75vh; object-fit: contain; border-radius: 6px;
  background: #000; display: block; }}
figcaption {{ color: #9aa7b8; font-size: .875rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: .5rem 0 0; }}
body > dl {{ margin: 0 0 2rem; }}
dt {{ color: #9aa7b8; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.failed {{ color: #ff9d8a; }}
button {{ font: inherit; color: inherit; background: #2a3340; border: 0; border-radius: 6px;
  padding: .25rem .75rem; margin: .5rem .5rem 0 0; cursor: pointer; }}
button:hover {{ background: #3a4656; }}
a {{ color: #8fc7ff; }}
.failed a {{ color: inherit; }}
@media (max-width: 40rem) {{
  body {{ padding: 0 1rem; margin: 1rem auto; }}
  .pair {{ grid-template-columns: 1fr; }}
  button {{ min-height: 2.75rem; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{more}
{sections}
<script>
{script}
</script>
</body>
</html>
"""
# Pairs play while they are in view. The result leads; the source follows it.
_SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const [source, result] = section.querySelectorAll("video");
  const [button, divide] = section.querySelectorAll("button");
  if (!source || !result) continue;
  const pair = section.querySelector(".pair");
  const divider = pair.querySelector("input");
  const divideAt = () => pair.style.setProperty("--at", `${divider.value}%`);
  divider.addEventListener("input", divideAt);
  const drag = (event) => {
    const isOver = pair.classList.contains("over") && event.target !== divider;
    if (!isOver || !(event.buttons || event.type === "pointerdown")) return;
    const {left, width} = result.getBoundingClientRect();
    divider.value = (100 * (event.clientX - left)) / width;
    divideAt();
    event.preventDefault();
  };
  for (const kind of ["pointerdown", "pointermove"]) pair.addEventListener(kind, drag);
  divide.addEventListener("click", () => {
    const isOver = pair.classList.toggle("over");
    divide.textContent = isOver ? "Side by side" : "Divider";
  });
  const follow = () => {
    if (Math.abs(source.currentTime - result.currentTime) > 0.1)
      source.currentTime = result.currentTime;
  };
  const play = () => {
    button.textContent = "Pause";
    return Promise.all([source.play(), result.play()]).catch(() => {});
  };
  const pause = () => { button.textContent = "Play"; source.pause(); result.pause(); };
  let isPaused = false;
  result.addEventListener("timeupdate", follow);
  result.addEventListener("seeked", follow);
  result.addEventListener("ended", () => {
    source.currentTime = result.currentTime = 0;
    if (!isPaused) play();
  });
  button.addEventListener("click", () => {
    isPaused = !result.paused;
    isPaused ? pause() : play();
  });
  new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) pause(); else if (!isPaused) play();
  }, {threshold: 0.25}).observe(section);
}
""".strip()

_DIVIDER = (
    '<input type="range" min="0" max="100" value="50" step="0.5" '
    'aria-label="Source to the left, result to the right">\n'
)


def write_page(folder: Path, units: Sequence[Unit], rows: Sequence[Row]) -> Path:
    """Write the page and return its path.

    Args:
        folder: The output folder, in which the videos lie.
        units: The plan.
        rows: The ledger's rows.
    """
    by_name = {row.name: row for row in rows}
    clips = [unit for unit in units if unit.kind in ("clip", "join")]
    own = {
        unit.clip: [row for row in rows if row.clip == unit.clip and row.kind != "source"]
        for unit in clips
    }
    facts = [_facts(unit, own[unit.clip]) for unit in clips]
    # What is the same for all clips is said once.
    common = set.intersection(*(set(each.items()) for each in facts)) if facts[1:] else set()
    failed = {
        row.clip: row for each in own.values() for row in reversed(each) if row.state == "failed"
    }
    sections = [
        _section(
            folder, unit, by_name, failed.get(unit.clip),
            {name: value for name, value in each.items() if (name, value) not in common},
        )
        for unit, each in zip(clips, facts, strict=True)
    ]  # fmt: skip
    shared = {
        name: value for each in facts[:1] for name, value in each.items() if (name, value) in common
    }
    more = _links(failed) + _list(shared)
    text = page(f"AnimateDiff V2V: {folder.name}", summarize(rows).sentence(), sections, more)
    path = folder / PAGE
    part = folder / f".{PAGE}.part"
    part.write_text(text, encoding="utf-8")
    return part.replace(path)


def page(title: str, summary: str, sections: Sequence[str], more: str = "") -> str:
    """Return the text of a page that plays the pairs in its sections.

    Args:
        title: Its title.
        summary: The line below.
        sections: HTML of its sections.
        more: HTML between the summary and the sections.
    """
    return _HTML.format(
        title=escape(title), summary=escape(summary), more=more, sections="\n".join(sections),
        script=_SCRIPT,
    )  # fmt: skip


def played_pair(source: Path, result: Path) -> str:
    """Return the HTML of two videos, at paths relative to the page, and of their buttons."""
    buttons = "<button>Pause</button><button>Divider</button>"
    return _figures(_video(source), _video(result), divider=_DIVIDER) + buttons


def _links(clips: Iterable[str]) -> str:
    """Return a line with links to the sections of clips that failed."""
    links = ", ".join(f'<a href="#{quote(clip)}">{escape(clip)}</a>' for clip in clips)
    return f'<p class="failed">Failed: {links}</p>\n' if links else ""


def _section(
    folder: Path, unit: Unit, rows: dict[str, Row], failed: Row | None, facts: dict[str, str]
) -> str:
    if failed is not None:
        shown = f'<p class="failed">Failed: {escape(failed.sentence or "")}</p>'
    elif rows[unit.name].state == "done":
        shown = _pair(folder, unit, rows.get(f"{unit.clip}#source"))
    else:
        shown = "<p>Not done yet.</p>"
    name = escape(unit.clip)
    return f'<section id="{name}">\n<h2>{name}</h2>\n{shown}\n{_list(facts)}\n</section>'


def _pair(folder: Path, unit: Unit, source: Row | None) -> str:
    result = unit.target.relative_to(folder)
    if unit.target.suffix in _SHOWN:
        made = f'<img src="{_address(result)}" alt="{escape(unit.clip)}">'
    elif unit.target.suffix in _PLAYED:
        made = _video(result)
    else:
        made = f'<a href="{_address(result)}">{escape(unit.clip)}</a>'
    copy = Path("sources", f"{unit.clip}.mp4")
    is_there = source is not None and source.state == "done"
    before = _video(copy) if is_there else "<p>The source is not shown.</p>"
    if is_there and unit.target.suffix in _PLAYED:
        return played_pair(copy, result)
    return _figures(before, made)


def _figures(before: str, made: str, divider: str = "") -> str:
    return (
        f'<div class="pair">\n<figure>{before}<figcaption>source</figcaption></figure>\n'
        f"<figure>{made}<figcaption>result</figcaption></figure>\n{divider}</div>\n"
    )


def _video(path: Path) -> str:
    return f'<video src="{_address(path)}" muted playsinline preload="metadata"></video>'


def _address(path: Path) -> str:
    return quote(path.as_posix())


def frames_in_words(unit: Unit) -> str:
    """Return how many frames of a clip are in its result, and by which rules they were chosen.

    "9 of 18, every 2nd". Counts that are not known are left out.
    """
    chosen = unit.request.selection
    nth = chosen.select_every_nth_frame
    words = {
        str(unit.frames) + (f" of {unit.source_frames}" if unit.source_frames else ""): unit.frames,
        f"resampled to {float(chosen.force_rate):g} frames/s": chosen.force_rate,
        f"from {chosen.start_time_seconds:g} s on": chosen.start_time_seconds,
        f"within {chosen.duration_seconds:g} s": chosen.duration_seconds,
        f"without the first {chosen.skip_first_frames}": chosen.skip_first_frames,
        f"every {_ordinal(nth)}": nth > 1,
        f"at most {chosen.frame_load_cap}": chosen.frame_load_cap,
        f"in {len(unit.spans)} parts": unit.spans,
    }
    return ", ".join(text for text, holds in words.items() if holds)


def _ordinal(number: int) -> str:
    """Return a number as in "every 2nd".

    >>> [_ordinal(each) for each in (2, 3, 4, 11, 12, 22, 113)]
    ['2nd', '3rd', '4th', '11th', '12th', '22nd', '113th']
    """
    is_teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if is_teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _facts(unit: Unit, rows: Sequence[Row]) -> dict[str, str]:
    """Return what the page says of a clip, by its headings; `rows` are those of the clip."""
    request, sampling = unit.request, unit.request.sampling
    seconds, steps = sum(row.seconds for row in rows), sampling.steps
    facts = {
        "Prompt": request.prompt_schedule.text if request.prompt_schedule else request.prompt,
        "Seed": str(sampling.seed),
        "Sampling": f"{steps} step{'s' * (steps > 1)}, {sampling.sampler}, {sampling.scheduler}, "
        f"guidance {sampling.guidance.scale:g}, denoise {sampling.denoise:g}",
        "Models": ", ".join(
            path.name
            for path in (
                unit.files.checkpoint,
                unit.files.motion_module,
                *(lora.path for lora in unit.files.loras),
            )
            if path is not None
        ),
        "Frames": frames_in_words(unit),
        "Time": duration(seconds) if seconds else "",
    }
    return {name: value for name, value in facts.items() if value}


def _list(facts: dict[str, str]) -> str:
    items = "\n".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>\n{items}\n</dl>" if items else ""
