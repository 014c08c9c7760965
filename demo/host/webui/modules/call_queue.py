"""Stands in for `modules.call_queue`: a lock that lets one generation run at a time."""

import threading

queue_lock = threading.Lock()
