"""Asynchronous invocations: started now, run when there is room, asked for later.

A job stands in a protected row, so it survives the host: what waited runs on another one. What was running
when its host died runs again if the function has no egress, for then nothing of it can have left; otherwise
it is `lost`, and whoever started it decides.
"""
