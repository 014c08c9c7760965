// Updates the button that resumes an unfinished video. `animatediff/page/resume_button.py` adds the hidden buttons.

window.animateDiffUnfinished = {
    refresh() {
        for (const tab of ["txt2img", "img2img"]) gradioApp().getElementById(`${tab}-ad-resume-refresh`)?.click();
    },
};

onOptionsAvailable(window.animateDiffUnfinished.refresh); // buttons have no effect before that
