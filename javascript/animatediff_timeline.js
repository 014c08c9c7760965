// Updates the timelines of the prompts when typing pauses. `animatediff/page/timeline_page.py` adds the hidden buttons.
// The prompts are looked at from time to time: Gradio 4 draws the whole page for each event that it passes on.

const animateDiffTimeline = (() => {
    const PAUSE = 200, LOOK = 100; // milliseconds
    const PROMPTS = {
        txt2img: ["txt2img_prompt", "txt2img_neg_prompt", "hires_prompt", "hires_neg_prompt"],
        img2img: ["img2img_prompt", "img2img_neg_prompt"],
    };
    const waiting = {};
    const seen = {txt2img: [], img2img: []};
    const isOn = tab => gradioApp().querySelector(`#${tab}-ad-enable input[type=checkbox]`)?.checked;

    function readSoon(tab) {
        clearTimeout(waiting[tab]);
        waiting[tab] = setTimeout(() => gradioApp().getElementById(`${tab}-ad-timeline-read`)?.click(), PAUSE);
    }

    function look() {
        for (const [tab, prompts] of Object.entries(PROMPTS)) {
            const now = prompts.map(id => gradioApp().querySelector(`#${id} textarea`)?.value || "");
            const hasChanged = now.some((text, index) => text !== (seen[tab][index] || ""));
            if (hasChanged && isOn(tab)) readSoon(tab); // a switch of the panel asks by itself
            seen[tab] = now;
        }
    }

    onUiLoaded(() => setInterval(look, LOOK));
    return {readSoon};
})();
