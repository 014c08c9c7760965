// The player of MP4 and WebM below the gallery, which shows only images, and the plots of long videos.
// `animatediff/page/player.py` adds its element and hidden controls.

const animateDiffPlayer = (() => {
    const SPEEDS = [0.25, 0.5, 1, 2];
    const players = {};

    function element(kind, properties = {}, ...children) {
        const made = Object.assign(document.createElement(kind), properties);
        made.append(...children);
        return made;
    }

    function button(name, textContent, title, onclick) {
        return element("button", {type: "button", className: `ad-player-${name}`, textContent, title, onclick});
    }

    function gallery(tab) {
        return gradioApp().getElementById(`${tab}_gallery`);
    }

    // Shows the videos and plots of an answer of the WebUI (JSON), or removes those of the answer before.
    function show(tab, answer) {
        const facts = factsOf(answer);
        const videos = facts["AnimateDiff videos"] ?? [];
        const seams = facts["AnimateDiff seams"] ?? [];
        if (!players[tab]) gallery(tab).addEventListener("click", () => setTimeout(() => players[tab].follow?.()));
        players[tab] = videos.length ? player(tab, videos) : {};
        const plots = seams.map((some, index) => animateDiffSeams.plot(some, seams.length > 1 ? index + 1 : null));
        gradioApp().getElementById(`${tab}-ad-player`).replaceChildren(...[players[tab].element, ...plots].filter(Boolean));
    }

    function factsOf(answer) {
        try {
            return JSON.parse(answer).extra_generation_params ?? {};
        } catch {
            return {}; // nothing was generated yet, or the answer is an error message
        }
    }

    function player(tab, videos) {
        const video = element("video", {controls: true, muted: true, autoplay: true, playsInline: true});
        const number = element("output");
        const loop = element("input", {type: "checkbox", onchange: () => (video.loop = loop.checked)});
        const speed = element("select", {title: "Speed", onchange: () => (video.playbackRate = Number(speed.value))});
        speed.append(...SPEEDS.map(times => new Option(`×${times}`, times, times === 1, times === 1)));
        const download = element("a", {className: "ad-player-download", textContent: "Download"});
        const names = videos.map(choice => button("name", choice.name, "", () => pick(choice)));
        let playing;

        const frame = () => Math.min(Math.floor(video.currentTime * playing.fps + 0.001), playing.frames - 1);
        const say = () => (number.textContent = `${frame() + 1} / ${playing.frames}`);

        function step(frames) {
            const next = (frame() + frames + playing.frames) % playing.frames;
            video.pause();
            video.currentTime = (next + 0.5) / playing.fps; // the middle of a frame, so that rounding cannot reach the next one
            say();
        }

        function load(choice) {
            playing = choice;
            video.src = `file=${encodeURIComponent(choice.file)}`;
            video.loop = loop.checked = choice.plays === 0;
            Object.assign(download, {href: video.src, download: choice.name});
            names.forEach((name, index) => name.setAttribute("aria-pressed", videos[index] === choice));
            say();
        }

        // Selects the video's image in the gallery too, because the gallery shows the infotext of the selected image.
        function pick(choice) {
            load(choice);
            gallery(tab).querySelectorAll(".thumbnails button")[choice.pictures[0]]?.click();
        }

        // Switches to the video of the image that was selected in the gallery.
        function follow() {
            const picked = selected_gallery_index();
            const choice = videos.find(candidate => candidate.pictures.includes(picked));
            if (choice && !playing.pictures.includes(picked)) load(choice);
        }

        function ask(control) {
            const request = gradioApp().querySelector(`#${tab}-ad-player-request textarea`);
            request.value = JSON.stringify({file: playing.file, frame: frame()});
            updateInput(request);
            press(tab, control);
        }

        video.addEventListener("timeupdate", say);
        video.addEventListener("seeked", say);
        video.addEventListener("loadeddata", () => (video.playbackRate = Number(speed.value)));
        const keys = {",": () => step(-1), ".": () => step(1)};
        video.addEventListener("keydown", event => keys[event.key]?.());

        load(videos[0]);
        return {follow, element: element("div", {className: "ad-player"},
            element("div", {className: "ad-player-names", hidden: videos.length === 1}, ...names),
            video,
            element("div", {className: "ad-player-controls"},
                button("back", "−1", "Previous frame (key: ,)", () => step(-1)),
                element("span", {}, element("span", {textContent: "Frame"}), " ", number),
                button("on", "+1", "Next frame (key: .)", () => step(1)),
                element("label", {}, loop, " ", element("span", {textContent: "Loop"})),
                element("label", {}, element("span", {textContent: "Speed"}), " ", speed),
            ),
            element("div", {className: "ad-player-controls"},
                download,
                button("folder", "Open folder", "", () => ask("folder")),
                button("img2img", "Frame to img2img", "", () => ask("to-img2img")),
                button("inpaint", "Frame to inpaint", "", () => ask("to-inpaint")),
            ))};
    }

    function press(tab, control) {
        gradioApp().getElementById(`${tab}-ad-player-${control}`).click();
    }

    return {show, press};
})();
