// Keeps the page of a training up to date while it is looked at. `animatediff/page/train_page.py` has the hidden button.

onUiLoaded(() => {
    setInterval(() => {
        const status = gradioApp().getElementById("train-ad-status");
        if (status?.offsetParent && !document.hidden) gradioApp().getElementById("train-ad-look").click();
    }, 2000);
});
