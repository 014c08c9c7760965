// Updates the status of a training while it is visible. `animatediff/page/train_page.py` adds the hidden button.

onUiLoaded(() => {
    setInterval(() => {
        const status = gradioApp().getElementById("train-ad-status");
        if (status?.offsetParent && !document.hidden) gradioApp().getElementById("train-ad-look").click();
    }, 2000);
});
