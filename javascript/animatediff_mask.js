// Draws a motion mask over the first frame. `animatediff/page/mask_drawing.py` adds its button and hidden controls.

window.animateDiffMask = (() => {
    const MOST = 1024; // pixels on a side
    const BRUSH = 0.08; // of the width

    function element(kind, properties = {}, ...children) {
        const made = Object.assign(document.createElement(kind), properties);
        made.append(...children);
        return made;
    }

    // The picture that img2img starts from, or the one in the gallery.
    function firstFrame(tab) {
        const places = [...(tab === "img2img" ? ["#mode_img2img img"] : []), `#${tab}_gallery img`];
        const images = places.flatMap(place => [...gradioApp().querySelectorAll(place)]);
        return images.find(image => image.naturalWidth > 1 && image.getClientRects().length);
    }

    function sizeOf(tab, picture) {
        const side = name => Number(gradioApp().querySelector(`#${tab}_${name} input[type=number]`)?.value) || 512;
        const [width, height] = picture ? [picture.naturalWidth, picture.naturalHeight] : [side("width"), side("height")];
        const scale = Math.min(1, MOST / Math.max(width, height));
        return [width, height].map(length => Math.max(1, Math.round(length * scale)));
    }

    function draw(id) {
        const tab = id.split("-")[0];
        const picture = firstFrame(tab);
        const [width, height] = sizeOf(tab, picture);
        const below = element("canvas", {width, height}), above = element("canvas", {width, height});
        if (picture) below.getContext("2d").drawImage(picture, 0, 0, width, height); // of a GIF, its first frame
        const brush = element("input", {type: "range", min: 1, max: Math.ceil(width / 2), value: Math.ceil(width * BRUSH)});
        const eraser = element("input", {type: "checkbox"});
        follow(above, brush, eraser);

        const button = (text, onclick) => element("button", {type: "button", textContent: text, onclick});
        const clear = () => above.getContext("2d").clearRect(0, 0, width, height);
        const label = (text, control) => element("label", {}, element("span", {textContent: text}), " ", control);
        const dialog = element("dialog", {className: "ad-mask ad-player", onclose: () => dialog.remove()},
            element("div", {className: "ad-mask-picture"}, below, above),
            element("div", {className: "ad-player-controls"},
                label("Brush", brush), label("Erase", eraser), button("Clear", clear),
                button("Use this mask", () => { use(id, above); dialog.close(); }), button("Cancel", () => dialog.close())));
        (gradioApp().querySelector(".gradio-container") ?? document.body).append(dialog);
        dialog.showModal();
    }

    // Draws white where the pointer is pressed.
    function follow(canvas, brush, eraser) {
        const context = canvas.getContext("2d");
        let last;
        const place = event => {
            const shown = canvas.getBoundingClientRect();
            const scale = canvas.width / shown.width;
            return [(event.clientX - shown.left) * scale, (event.clientY - shown.top) * scale];
        };
        const line = event => {
            const next = place(event);
            Object.assign(context, {lineCap: "round", lineWidth: Number(brush.value), strokeStyle: "white",
                globalCompositeOperation: eraser.checked ? "destination-out" : "source-over"});
            context.beginPath();
            context.moveTo(...last);
            context.lineTo(...next);
            context.stroke();
            last = next;
        };
        canvas.onpointerdown = event => {
            canvas.setPointerCapture(event.pointerId);
            last = place(event);
            line(event);
        };
        canvas.onpointermove = event => event.buttons && last && line(event);
        canvas.onpointerup = canvas.onpointercancel = () => (last = undefined);
    }

    // Gives the page the drawing as white on black.
    function use(id, drawing) {
        const mask = element("canvas", {width: drawing.width, height: drawing.height});
        const context = mask.getContext("2d");
        context.fillRect(0, 0, mask.width, mask.height);
        context.drawImage(drawing, 0, 0);
        const drawn = gradioApp().querySelector(`#${id}-drawn textarea`);
        drawn.value = mask.toDataURL("image/png");
        updateInput(drawn);
        gradioApp().getElementById(`${id}-use`).click();
    }

    return {draw};
})();
