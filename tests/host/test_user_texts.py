"""Every refusal and warning is on the page `docs/messages.md`, and is written for who reads it."""

import re

from support.user_texts import ROOT, as_page, texts

MESSAGES = [text for text in texts() if text.is_message]
TELLING = re.compile(
    r"(?:^|[.:;,] |\b(?:or|and|then) )(?:Choose|Set|Switch|Send|Remove|Use|Give|Download|Make|Lower|Raise|Write|Restart|Start|"
    r"Close|Check|Correct|Rename|Name|Put|Get|Move|Swap|Leave|Upload|Run|Unpack|Delete|Generate|Try|Free|Enter|Log|Add|Fill|"
    r"Resume|Pause|Save|Skip|Stop|Shorten|Restore|Repair|GET|Disable)\b|must (?:be|have)|docs/training\.md",
    re.IGNORECASE,
)
"""What to do, or what is allowed."""
TOLD_BY_A_VALUE = re.compile(r"‹(choice|available|advice|remedy|hindrance|how|reasons?)›")
"""Values that are sentences, or end with one."""
FACTS = (
    "which has an effect only",
    "no effect: ‹length› frames",
    "the page's player follows",
    "taken as",
    "was lowered to",
    "Last frame (last_frame) ‹sizes›",
    "are not applied",
    "was begun anew",
    "was followed through",
    "were found in ‹count›, ‹number of tracks›",
    "is assumed",
    "previous file is kept",
    "motion module did not act",
    "A sampler ran without",
    "pictures were sampled without",
)
"""Warnings of what was done instead; and reasons that `chosen_script.advice` follows."""
FOLDERS = re.compile(r"‹(folder|parent|mask dir)›")
MAY_NAME_FOLDERS = (
    "animatediff/output/",
    "animatediff/page/batch_tab.py",
    "animatediff/page/presets.py",
    "animatediff/request/module_files.py",
    "animatediff/video/rife.py",
    "motion_module/weight_files.py",
    "motion_module/training/",
)
"""Where users have chosen the folder, or must put a file into it. Others name files without their folders."""


def test_the_page_has_all_messages():
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    assert page == as_page(), "put the output of `python tests/support/user_texts.py` there"
    assert len(MESSAGES) > 200 and "The keyframe “‹line›” is outside the video" in page


def test_every_message_is_a_sentence():
    assert not [text for text in MESSAGES if not re.match(r"[A-Z‹“]|img2img |video_delivery |\w+: ", text.words)]


def test_every_message_says_what_to_do():
    silent = [text for text in MESSAGES if not (TELLING.search(text.words) or TOLD_BY_A_VALUE.search(text.words))]
    assert not [text for text in silent if not any(fact in text.words for fact in FACTS)], "say it, or add a fact to FACTS"
    assert not [fact for fact in FACTS if not any(fact in text.words for text in silent)], "FACTS need not have it"


def test_texts_are_in_the_words_of_users():
    assert not [text for text in texts() if re.search(r"\b(\w{2,}) \1\b|  |\.\.(?!\.)", text.words)], "something is there twice"
    assert not [text for text in texts() if re.search(r"\w(?:Error|Exception)\b|Errno|NoneType|Traceback", text.words)]
    assert not [text for text in texts() if re.search(r"\bbehind\b|\bplease\b|!", text.words, re.IGNORECASE)]


def test_texts_name_no_folder_of_the_server_that_the_user_has_not_chosen():
    naming = [text for text in texts() if FOLDERS.search(text.words)]
    assert naming and not [text for text in naming if not text.file.startswith(MAY_NAME_FOLDERS)]
