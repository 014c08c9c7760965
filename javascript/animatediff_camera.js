// Turns the plot of the camera's way under the mouse, and asks for it when typing pauses.
// `animatediff/page/camera_plot.py` draws it, and `animatediff/page/camera_page.py` adds the hidden button.

window.animateDiffCamera = (() => {
    const PAUSE = 300; // milliseconds
    const TILT = 0.45; // radians, as in camera_plot.py
    const waiting = {};

    function readSoon(tab) {
        clearTimeout(waiting[tab]);
        waiting[tab] = setTimeout(() => gradioApp().getElementById(`${tab}-ad-camera-read`)?.click(), PAUSE);
    }

    function seen(point, turn) {
        const [x, y, z] = point.split(",").map(Number);
        const across = x * Math.cos(turn) + z * Math.sin(turn);
        const away = z * Math.cos(turn) - x * Math.sin(turn);
        const down = y * Math.cos(TILT) - away * Math.sin(TILT);
        return `${across.toFixed(1)},${down.toFixed(1)}`;
    }

    // From the left edge of the plot to the right one, it turns once.
    document.addEventListener("pointermove", event => {
        const picture = event.composedPath().find(part => part.matches?.(".ad-camera svg"));
        if (!picture) return;
        const {left, width} = picture.getBoundingClientRect();
        const turn = ((event.clientX - left) / width - 0.5) * 2 * Math.PI;
        for (const line of picture.querySelectorAll("[data-points]")) {
            line.setAttribute("points", line.dataset.points.split(" ").map(point => seen(point, turn)).join(" "));
        }
    });

    return {readSoon};
})();
