"""The engine at a terminal: how its programs start and end, and how text and chats are written."""
