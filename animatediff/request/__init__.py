"""From what a request says to a plan: parameters, the files that it names, what they are, and whether all of it can be done."""
