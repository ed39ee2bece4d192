"""How an answer can end soon: a short way from where a grammar stands to where the text may end.

What is forced is taken; where there is a choice, the first of a list of characters that the grammar allows: what closes,
then the shortest values, then what goes on; one taken several times in a row goes to the end of the list. Short, not
proven the shortest; where it runs in circles (a text that must hold a word) there is none. Engine thread only.
"""

from collections.abc import Sequence

from engine.grammar.matcher import Matcher

# What closes; the shortest values; what opens the next; what separates parts of a formatted text; the rest of ASCII.
_ORDER = '"}]0ntf[{,: @-/.+' + "123456789TZPaersulyi_" + "".join(map(chr, range(32, 127)))
MAX_IN_A_ROW = 8
CLOSING_CHARS = tuple(dict.fromkeys(_ORDER))


def shorter_way(matcher: Matcher, closing_ids: Sequence[int], *, end_id: int, limit: int) -> list[int] | None:
    """The shorter of two ways: within a text a quote closes, before one a bracket does, and both are allowed in both."""
    brackets_first = [*closing_ids[1:3], closing_ids[0], *closing_ids[3:]]
    orders = (closing_ids, brackets_first)
    ways = [way_to_end(matcher.deep_copy(), order, end_id=end_id, limit=limit) for order in orders]
    return min((way for way in ways if way is not None), key=len, default=None)


def way_to_end(matcher: Matcher, closing_ids: Sequence[int], *, end_id: int, limit: int) -> list[int] | None:
    """The tokens of a way of at most ``limit``, an end token with them where one is needed; None if none was found.

    ``matcher`` is left where the way ends. ``closing_ids``: of ``CLOSING_CHARS``, in their order.
    """
    way: list[int] = []
    order = list(closing_ids)
    while len(way) <= limit:
        if matcher.is_error():
            return None
        if matcher.is_stopped():
            return way
        if matcher.is_accepting():
            return [*way, end_id] if len(way) < limit else None
        step = matcher.compute_ff_tokens() or _first_allowed(matcher, order)
        if not step or len(way) + len(step) > limit or not matcher.consume_tokens(step):
            return None
        way += step
        if (
            way[-MAX_IN_A_ROW:] == step * MAX_IN_A_ROW and step[0] in order
        ):  # a circle, maybe: the others come first from here on
            order.remove(step[0])
            order.append(step[0])
    return None


def ends(matcher: Matcher, way: Sequence[int], end_id: int) -> bool:
    """``way`` leads to an end from here too. ``matcher`` is left where it ends."""
    tokens = list(way[:-1] if way and way[-1] == end_id else way)
    if matcher.validate_tokens(tokens) < len(tokens) or not matcher.consume_tokens(tokens):
        return False
    return matcher.is_accepting() if len(tokens) < len(way) else matcher.is_stopped()


def _first_allowed(matcher: Matcher, order: Sequence[int]) -> list[int]:
    return next(([token_id] for token_id in order if matcher.validate_tokens([token_id])), [])
