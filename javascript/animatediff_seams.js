// Plots how much a long video changes between frames, and where its context windows start. The WebUI's answer has the numbers.

const animateDiffSeams = (() => {
    const WIDTH = 640;
    const HEIGHT = 120;

    // `steps`: the change from each frame to the next, `closing`: from the last one to the first, both in levels (0 to 255).
    // `borders`: the frames at which windows start. `name`: a heading, where there are several videos.
    function plot({steps, closing, borders}, name) {
        const figure = document.createElement("figure");
        const words = inWords(steps, closing, borders);
        figure.className = "ad-seams";
        figure.innerHTML = `${drawing(steps, closing, borders, words)}
            <figcaption>${name ? `<b>${name}</b> · ` : ""}${words}</figcaption>`;
        return figure;
    }

    // The change to a frame is plotted at that frame, and the change from the last frame to the first after the last frame.
    function drawing(steps, closing, borders, words) {
        const top = 1.1 * Math.max(...steps, closing) || 1;
        const across = frame => (WIDTH * (frame - 1) / steps.length).toFixed(1);
        const down = level => (HEIGHT * (1 - level / top)).toFixed(1);
        const line = steps.map((level, index) => `${across(index + 1)},${down(level)}`).join(" ");
        const windows = borders.map(frame => `<line x1="${across(frame)}" x2="${across(frame)}" y1="0" y2="${HEIGHT}"/>`);
        return `<svg viewBox="-4 -12 ${WIDTH + 60} ${HEIGHT + 30}" role="img">
            <title>Change between frames</title>
            <desc>${words}</desc>
            <line class="ad-seams-ground" x1="0" x2="${WIDTH}" y1="${HEIGHT}" y2="${HEIGHT}"/>
            <g class="ad-seams-borders">${windows.join("")}</g>
            <polyline points="${line}"/>
            <circle cx="${WIDTH}" cy="${down(closing)}" r="4"/>
            <text x="${WIDTH + 8}" y="${down(closing)}" dominant-baseline="middle">${closing.toFixed(1)}</text>
            <text x="0" y="${HEIGHT + 14}">1</text>
            <text x="${across(steps.length)}" y="${HEIGHT + 14}" text-anchor="middle">${steps.length}</text>
        </svg>`;
    }

    function inWords(steps, closing, borders) {
        const most = Math.max(...steps);
        const median = [...steps].sort((one, other) => one - other)[steps.length >> 1];
        const parts = [
            `<span>Change between frames: median</span> ${median.toFixed(1)}`,
            `<span>maximum</span> ${most.toFixed(1)} (<span>at frame</span> ${steps.indexOf(most) + 1})`,
            `<span>from the last frame to the first</span> ${closing.toFixed(1)}`,
        ];
        if (borders.length) parts.push(`<span>windows start at</span> ${borders.join(", ")}`);
        return parts.join(" · ");
    }

    return {plot};
})();
