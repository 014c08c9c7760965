// The page comes with the presets that there were when the WebUI was started. `animatediff/page/presets.py` has the buttons.

window.animateDiffPresets = {
    refresh() {
        for (const tab of ["txt2img", "img2img"]) gradioApp().getElementById(`${tab}-ad-preset-refresh`)?.click();
    },
};

onOptionsAvailable(window.animateDiffPresets.refresh); // before that, the page does not listen to its buttons
