"""Before a request is read: limits of connections, who may call, ids, clocks and logs.

Owns what holds for every request alike; knows no endpoint and no body. Runs on the event loop.
"""
