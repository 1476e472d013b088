"""ComfyUI's page, driven as a user would where that is fast, else through its objects."""

from __future__ import annotations

PACK = "animatediff-v2v"
READY = "() => window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow"
NODE = "app.canvas.graph.nodes.find((node) => node.type === type)"
# It first requests help pages in the reader's language, which may not exist.
PROBE = "/docs/"


class Frontend:
    """One page; `complaints` holds the console's messages about this pack."""

    def __init__(self, page, address, shots, *, renderer):
        self.page, self._address, self._shots, self.renderer = page, address, shots, renderer
        self.complaints = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message):
        source = message.location.get("url", "")
        about_us = any(name in source + message.text for name in (PACK, "AnimateDiffV2V", "ADV2V"))
        if message.type in ("error", "warning") and about_us and PROBE not in source:
            self.complaints.append(f"{message.type}: {message.text} ({source})")

    def open(self):
        self.page.goto(self._address)
        self.page.wait_for_function(READY)
        self.page.wait_for_timeout(1000)

    def reload(self):
        """Reload the page once it has saved its draft, which it does with a delay."""
        self.page.wait_for_timeout(1500)
        self.page.reload()
        self.page.wait_for_function(READY)
        self.page.wait_for_timeout(1000)

    def set(self, setting, value):
        self.page.evaluate(
            "([setting, value]) => app.extensionManager.setting.set(setting, value)",
            [setting, value],
        )

    def command(self, name):
        self.page.evaluate("(name) => app.extensionManager.command.execute(name)", name)

    def shot(self, name):
        self.page.screenshot(path=self._shots / f"{name} - {self.renderer}.png")

    def clear(self):
        self.command("Comfy.NewBlankWorkflow")
        self.page.wait_for_function("() => app.graph.nodes.length === 0")

    def open_template(self, name, *, fit=True):
        """Choose a template in the template browser."""
        self.command("Comfy.BrowseTemplates")
        self.page.get_by_text(PACK, exact=True).first.click()
        self.page.get_by_test_id(f"template-workflow-{name}").click()
        self.page.wait_for_function(
            # A second one with the same name gets a number appended.
            "(name) => app.extensionManager.workflow.activeWorkflow.filename.startsWith(name)"
            " && app.graph.nodes.length > 1",
            arg=name,
        )
        self.page.wait_for_timeout(500)
        if fit:
            self.command("Comfy.Canvas.FitView")

    def add(self, kind, **values):
        """Add a node and set its widgets."""
        self.page.evaluate(
            "(type) => { const node = LiteGraph.createNode(type); node.pos = [200, 150];"
            " app.graph.add(node); }",
            kind,
        )
        for name, value in values.items():
            self.choose(kind, name, value)

    def show(self, kind):
        """Centre a node at once: FitView moves gradually, and the node's buttons with it."""
        self.page.evaluate(
            f"(type) => {{ const node = {NODE}, view = app.canvas.ds;"
            " const {width, height} = app.canvas.canvas.getBoundingClientRect();"
            " const [wide, high] = node.size;"
            " view.scale = Math.min(1, 0.6 * width / wide, 0.6 * height / high);"
            " view.offset = [width / 2 / view.scale - node.pos[0] - wide / 2,"
            " height / 2 / view.scale - node.pos[1] - high / 2];"
            " app.canvas.setDirty(true, true); }",
            kind,
        )
        self.page.wait_for_timeout(200)

    def choose(self, kind, name, value):
        """Set a widget as its own control does, with an entry for undo."""
        self.page.evaluate(
            f"([type, name, value]) => {{ const node = {NODE};"
            " const widget = node.widgets.find((widget) => widget.name === name);"
            " widget.value = value; widget.callback?.(value, app.canvas, node);"
            " app.extensionManager.workflow.activeWorkflow.changeTracker.checkState(); }",
            [kind, name, value],
        )

    def shown(self, kind):
        """Return the names and values of the visible widgets of each node of a type."""
        return self.page.evaluate(
            "(type) => app.canvas.graph.nodes.filter((node) => node.type === type).map((node) =>"
            " Object.fromEntries(node.widgets.filter((each) => !each.hidden)"
            ".map((each) => [each.name, each.value])))",
            kind,
        )

    def connect(self, kind, output, other, name):
        """Link an output of a node with an input of another."""
        find = NODE.replace("=== type", "=== {}")
        self.page.evaluate(
            f"([from, output, to, name]) => {{ const node = {find.format('to')};"
            f" {find.format('from')}.connect(output, node, node.findInputSlot(name)); }}",
            [kind, output, other, name],
        )

    def run(self):
        """Queue the graph and wait until it has run; return the error, if there was one."""
        self.page.evaluate(
            "async () => { const { api } = await import('/scripts/api.js'); window.ended = null;"
            " const listen = (event, tell) => api.addEventListener("
            "event, ({ detail }) => { window.ended = tell(detail); }, { once: true });"
            " listen('execution_success', () => 'success');"
            " listen('execution_error', (detail) => detail.exception_message); }"
        )
        self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function("() => window.ended")
        return self.page.evaluate("window.ended")

    def wait_for_file(self, name):
        """Wait until a video or a picture of a file is shown in a node."""
        self.page.wait_for_function(
            "(name) => [...document.querySelectorAll('.dom-widget, [data-node-id]')].some((card) =>"
            " [...card.querySelectorAll('video, img')].some((each) => each.src.includes(name)"
            " && (each.readyState >= 2 || each.naturalWidth > 0)))",
            arg=name,
        )

    def previews(self):
        """Return the tags and names of files of the videos and pictures in all nodes."""
        return self.page.evaluate(
            "() => [...document.querySelectorAll('.dom-widget, [data-node-id]')].flatMap("
            "(card) => [...card.querySelectorAll('video, img')]).filter("
            "(each) => each.checkVisibility() && each.src.includes('/view')).map((each) => "
            "[each.tagName, new URL(each.src).searchParams.get('filename')])"
        )

    def select(self, *kinds):
        self.page.evaluate(
            "(types) => app.canvas.selectItems("
            "app.canvas.graph.nodes.filter((node) => types.includes(node.type)))",
            list(kinds),
        )

    def press(self, keys):
        self.page.locator("#graph-canvas").focus()
        self.page.keyboard.press(keys)
        self.page.wait_for_timeout(500)

    def strips(self):
        """Return the texts of the selection strips, with the number of their pictures."""
        return self.page.evaluate(
            "() => [...document.querySelectorAll('[data-testid=animatediff-v2v-selection]')]"
            ".map((strip) => [strip.firstChild.textContent, strip.querySelectorAll('img').length])"
        )

    def wait_for_strip(self, *says):
        """Wait until the strips have these texts."""
        self.page.wait_for_function(
            "(says) => { const strips = '[data-testid=animatediff-v2v-selection]';"
            " const found = [...document.querySelectorAll(strips)]"
            ".map((each) => each.firstChild.textContent); return found.length === says.length"
            " && found.every((each, index) => each.startsWith(says[index])); }",
            arg=list(says),
        )
