"""One generation at a time, from whichever thread."""

import threading

queue_lock = threading.Lock()
