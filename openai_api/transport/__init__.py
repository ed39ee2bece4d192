"""Before a request is read: the limits of the wire, the context of a request, who may come in."""
