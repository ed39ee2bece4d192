"""The chaos run: a real server under many clumsy and hostile clients at once, while canaries check
its answers.

``wire`` speaks HTTP on bare sockets, ``bodies`` and ``mix`` are what the attackers do, ``observer``
has the canaries and the verdict, ``servers`` starts what is attacked, ``run`` puts them together.
By hand: ``python -m tests.openai_api.chaos``.
"""
