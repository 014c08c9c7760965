// Updates the timelines of the prompts when typing pauses. `animatediff/page/timeline_page.py` adds the hidden button.

const animateDiffTimeline = (() => {
    const PAUSE = 200; // milliseconds
    const waiting = {};

    function readSoon(tab) {
        clearTimeout(waiting[tab]);
        waiting[tab] = setTimeout(() => gradioApp().getElementById(`${tab}-ad-timeline-read`).click(), PAUSE);
    }

    return {readSoon};
})();
