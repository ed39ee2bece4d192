"""Tables and files of requests, answered by an engine in this process or behind the server.

Owns rows, where they come from and where their answers go. Knows nothing of HTTP or of the model.
"""
