"""The table of nodes as a page: their node, the one here, and what differs."""

from __future__ import annotations

from collections.abc import Iterator

from .known import Known, known_nodes, packs, targets

_ORDER = (
    "animatediff_evolved",
    "video_helper_suite",
    "advanced_controlnet",
    "ipadapter_plus",
    "fizznodes",
    "artventurex",
)
_HEAD = "| their node | here | what differs |\n|---|---|---|"


def node_table() -> str:
    """Return the table in Markdown, with a heading for each pack."""
    return "\n\n".join(_section(pack) for pack in _ORDER) + "\n"


def _section(pack: str) -> str:
    table = packs()[pack]
    rows = [_row(each) for each in known_nodes().values() if each.pack == pack]
    return f"### [{table['title']}]({table['address']})\n\n{_HEAD}\n" + "\n".join(rows)


def _row(known: Known) -> str:
    title = known.title.replace("|", "\\|")
    ident = known.type.replace("|", "\\|")
    return f"| {title} (`{ident}`) | {_here(known)} | {' '.join(_differences(known))} |"


def _here(known: Known) -> str:
    if known.to:
        return targets()[known.to].title
    return "stays" if known.stays else "none"


def _differences(known: Known) -> Iterator[str]:
    if known.says:
        yield known.says
    if known.refused:
        yield "Graphs with it are left as they are."
    elif known.none:
        instead = f"; the nearest thing is {known.instead}" if known.instead else ""
        yield _sentence(f"{known.none}{instead}")
    for name, choices in known.choices.items():
        if "*" in choices:
            kept = ", ".join(str(each) for each in choices if each != "*")
            yield f"{name}: {kept}; others become {choices['*']}."
    lost = [
        name
        for name, kind in (known.widgets if _is_described(known) else {}).items()
        if name not in known.inputs and name not in known.neutral and kind != "control"
    ]
    if lost:
        yield f"Without {', '.join(lost)}."
    unlinked = [name for name in known.sockets if _is_described(known)]
    gone = [name.rstrip("?") for name in unlinked if name.rstrip("?") not in known.inputs]
    if gone:
        yield f"Not connected any more: {', '.join(gone)}."


def _is_described(known: Known) -> bool:
    """Return whether an entry says what becomes of all inputs; other rules may do more."""
    return bool(known.to) and known.rule in ("", "context_options")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
