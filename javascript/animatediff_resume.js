// What is unfinished changes while the page is open. `animatediff/page/resume_button.py` has the buttons.

window.animateDiffUnfinished = {
    refresh() {
        for (const tab of ["txt2img", "img2img"]) gradioApp().getElementById(`${tab}-ad-resume-refresh`)?.click();
    },
};

onOptionsAvailable(window.animateDiffUnfinished.refresh); // before that, the page does not listen to its buttons
