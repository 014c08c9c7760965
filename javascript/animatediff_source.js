// Asks for the thumbnails of a source video and the ControlNet units that take it when changes pause.
// `animatediff/page/source_page.py` adds the hidden buttons.

window.animateDiffSource = (() => {
    const PAUSE = 600; // milliseconds; a switch in ControlNet has reached the server by then
    const waiting = {};

    function readSoon(tab, what) {
        for (const part of what === "source" ? ["source", "units"] : ["units"]) {
            const id = `${tab}-ad-${part}-read`;
            clearTimeout(waiting[id]);
            waiting[id] = setTimeout(() => gradioApp().getElementById(id)?.click(), PAUSE);
        }
    }

    return {readSoon};
})();
