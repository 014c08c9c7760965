// Updates the list of presets, because the page has those that existed when the WebUI started.
// `animatediff/page/presets.py` adds the hidden buttons.

window.animateDiffPresets = {
    refresh() {
        for (const tab of ["txt2img", "img2img"]) gradioApp().getElementById(`${tab}-ad-preset-refresh`)?.click();
    },
};

onOptionsAvailable(window.animateDiffPresets.refresh); // buttons have no effect before that
