"""Texts on which tokenizers are compared: prose, code, whitespace, markup, emoji, rare and random characters, control tokens.

Deterministic, and plain ASCII: other scripts are written as escapes.
"""

import random
from collections.abc import Callable, Iterator, Sequence

# The first words of the Universal Declaration of Human Rights and the like, in 17 languages and 15 scripts.
SENTENCES = (
    'The quick brown fox doesn\'t jump; it reads "Ulysses" (all 265,222 words) by the fire.',  # english
    # french
    "L'\xe9t\xe9 dernier, nous avons mang\xe9 des cr\xeapes \xe0 No\xebl \u2013 c'\xe9tait na\xeff, n'est-ce pas\xa0?",
    # vietnamese
    "T\u1ea5t c\u1ea3 m\u1ecdi ng\u01b0\u1eddi sinh ra \u0111\u1ec1u \u0111\u01b0\u1ee3c t\u1ef1 do v\xe0 b\xec"
    "nh \u0111\u1eb3ng v\u1ec1 nh\xe2n ph\u1ea9m.",
    # russian
    "\u0412\u0441\u0435 \u043b\u044e\u0434\u0438 \u0440\u043e\u0436\u0434\u0430\u044e\u0442\u0441\u044f \u0441"
    "\u0432\u043e\u0431\u043e\u0434\u043d\u044b\u043c\u0438 \u0438 \u0440\u0430\u0432\u043d\u044b\u043c\u0438 "
    "\u0432 \u0441\u0432\u043e\u0451\u043c \u0434\u043e\u0441\u0442\u043e\u0438\u043d\u0441\u0442\u0432\u0435 "
    "\u0438 \u043f\u0440\u0430\u0432\u0430\u0445.",
    # greek
    "\u038c\u03bb\u03bf\u03b9 \u03bf\u03b9 \u03ac\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03b9 \u03b3\u03b5\u03bd"
    "\u03bd\u03b9\u03bf\u03cd\u03bd\u03c4\u03b1\u03b9 \u03b5\u03bb\u03b5\u03cd\u03b8\u03b5\u03c1\u03bf\u03b9 "
    "\u03ba\u03b1\u03b9 \u03af\u03c3\u03bf\u03b9 \u03c3\u03c4\u03b7\u03bd \u03b1\u03be\u03b9\u03bf\u03c0\u03c1"
    "\u03ad\u03c0\u03b5\u03b9\u03b1.",
    # arabic
    "\u064a\u0648\u0644\u062f \u062c\u0645\u064a\u0639 \u0627\u0644\u0646\u0627\u0633 \u0623\u062d\u0631\u0627"
    "\u0631\u064b\u0627 \u0645\u062a\u0633\u0627\u0648\u064a\u0646 \u0641\u064a \u0627\u0644\u0643\u0631\u0627"
    "\u0645\u0629 \u0648\u0627\u0644\u062d\u0642\u0648\u0642.",
    # hebrew
    "\u05db\u05dc \u05d1\u05e0\u05d9 \u05d4\u05d0\u05d3\u05dd \u05e0\u05d5\u05dc\u05d3\u05d5 \u05d1\u05e0\u05d9"
    " \u05d7\u05d5\u05e8\u05d9\u05df \u05d5\u05e9\u05d5\u05d5\u05d9\u05dd \u05d1\u05e2\u05e8\u05db\u05dd \u05d5"
    "\u05d1\u05d6\u05db\u05d5\u05d9\u05d5\u05ea\u05d9\u05d4\u05dd.",
    # hindi
    "\u0938\u092d\u0940 \u092e\u0928\u0941\u0937\u094d\u092f\u094b\u0902 \u0915\u094b \u0917\u094c\u0930\u0935 "
    "\u0914\u0930 \u0905\u0927\u093f\u0915\u093e\u0930\u094b\u0902 \u0915\u0947 \u092e\u093e\u092e\u0932\u0947 "
    "\u092e\u0947\u0902 \u091c\u0928\u094d\u092e\u091c\u093e\u0924 \u0938\u094d\u0935\u0924\u0928\u094d\u0924"
    "\u094d\u0930\u0924\u093e \u092a\u094d\u0930\u093e\u092a\u094d\u0924 \u0939\u0948\u0964",
    # bengali
    "\u09b8\u09ae\u09b8\u09cd\u09a4 \u09ae\u09be\u09a8\u09c1\u09b7 \u09b8\u09cd\u09ac\u09be\u09a7\u09c0\u09a8"
    "\u09ad\u09be\u09ac\u09c7 \u09b8\u09ae\u09be\u09a8 \u09ae\u09b0\u09cd\u09af\u09be\u09a6\u09be \u098f\u09ac"
    "\u0982 \u0985\u09a7\u09bf\u0995\u09be\u09b0 \u09a8\u09bf\u09af\u09bc\u09c7 \u099c\u09a8\u09cd\u09ae\u0997"
    "\u09cd\u09b0\u09b9\u09a3 \u0995\u09b0\u09c7\u0964",
    # tamil
    "\u0bae\u0ba9\u0bbf\u0ba4\u0baa\u0bcd \u0baa\u0bbf\u0bb1\u0bb5\u0bbf\u0baf\u0bbf\u0ba9\u0bb0\u0bcd \u0b9a"
    "\u0b95\u0bb2\u0bb0\u0bc1\u0bae\u0bcd \u0b9a\u0bc1\u0ba4\u0ba8\u0bcd\u0ba4\u0bbf\u0bb0\u0bae\u0bbe\u0b95"
    "\u0bb5\u0bc7 \u0baa\u0bbf\u0bb1\u0b95\u0bcd\u0b95\u0bbf\u0ba9\u0bcd\u0bb1\u0ba9\u0bb0\u0bcd.",
    # thai
    "\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e17\u0e31\u0e49\u0e07\u0e2b\u0e25\u0e32\u0e22\u0e40\u0e01\u0e34"
    "\u0e14\u0e21\u0e32\u0e21\u0e35\u0e2d\u0e34\u0e2a\u0e23\u0e30\u0e41\u0e25\u0e30\u0e40\u0e2a\u0e21\u0e2d"
    "\u0e20\u0e32\u0e04\u0e01\u0e31\u0e19\u0e43\u0e19\u0e40\u0e01\u0e35\u0e22\u0e23\u0e15\u0e34\u0e28\u0e31"
    "\u0e01\u0e14\u0e34\u0e4c\u0e41\u0e25\u0e30\u0e2a\u0e34\u0e17\u0e18\u0e34",
    # georgian
    "\u10e7\u10d5\u10d4\u10da\u10d0 \u10d0\u10d3\u10d0\u10db\u10d8\u10d0\u10dc\u10d8 \u10d8\u10d1\u10d0\u10d3"
    "\u10d4\u10d1\u10d0 \u10d7\u10d0\u10d5\u10d8\u10e1\u10e3\u10e4\u10d0\u10da\u10d8 \u10d3\u10d0 \u10d7\u10d0"
    "\u10dc\u10d0\u10e1\u10ec\u10dd\u10e0\u10d8.",
    # armenian
    "\u0532\u0578\u056c\u0578\u0580 \u0574\u0561\u0580\u0564\u056b\u056f \u056e\u0576\u057e\u0578\u0582\u0574 "
    "\u0565\u0576 \u0561\u0566\u0561\u057f \u0578\u0582 \u0570\u0561\u057e\u0561\u057d\u0561\u0580 \u056b\u0580"
    "\u0565\u0576\u0581 \u0561\u0580\u056a\u0561\u0576\u0561\u057a\u0561\u057f\u057e\u0578\u0582\u0569\u0575"
    "\u0561\u0574\u0562\u0589",
    # korean
    "\ubaa8\ub4e0 \uc778\uac04\uc740 \ud0dc\uc5b4\ub0a0 \ub54c\ubd80\ud130 \uc790\uc720\ub85c\uc6b0\uba70 "
    "\uadf8 \uc874\uc5c4\uacfc \uad8c\ub9ac\uc5d0 \uc788\uc5b4 \ub3d9\ub4f1\ud558\ub2e4.",
    # japanese
    "\u3059\u3079\u3066\u306e\u4eba\u9593\u306f\u3001\u751f\u307e\u308c\u306a\u304c\u3089\u306b\u3057\u3066"
    "\u81ea\u7531\u3067\u3042\u308a\u3001\u304b\u3064\u3001\u5c0a\u53b3\u3068\u6a29\u5229\u3068\u306b\u3064"
    "\u3044\u3066\u5e73\u7b49\u3067\u3042\u308b\u3002\u30b3\u30fc\u30d2\u30fc\u3002",
    # chinese
    "\u4eba\u4eba\u751f\u800c\u81ea\u7531,\u5728\u5c0a\u4e25\u548c\u6743\u5229\u4e0a\u4e00\u5f8b\u5e73\u7b49"
    "\u3002\u4ed6\u4eec\u8d4b\u6709\u7406\u6027\u548c\u826f\u5fc3\u3002",
    # amharic
    "\u12e8\u1230\u12cd \u120d\u1305 \u1201\u1209 \u1232\u12c8\u1208\u12f5 \u1290\u133b\u1293 \u1260\u12ad"
    "\u1265\u122d\u1293 \u1260\u1218\u1265\u1275\u121d \u12a5\u12a9\u120d\u1290\u1275 \u12eb\u1208\u12cd \u1290"
    "\u12cd\u1362",
)
CODE = (
    "def f(x: int) -> dict[str, list[int]]:\n\treturn {str(i): [i] * 3 for i in range(x) if i != 0x1F}",
    "for (size_t i = 0; i < n; ++i) {\n    a[i] += b[i] * 0.5f;  // fused\n}\n",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name HAVING COUNT(*) > 1;",
    '{"id": 10423, "tags": ["a-1", null, true], "price": 1.5e-3, "path": "C:\\\\temp\\\\x"}',
    "<!DOCTYPE html>\n<html>\n  <body class='a'><p>Hi&nbsp;there</p></body>\n</html>",
    "#!/bin/sh\nset -eu\ngrep -rn \"TODO\" src | awk '{print $1}' > out.txt 2>&1",
    'fn main() -> Result<(), Box<dyn Error>> { println!("{:?}", vec![1u8; 4]); Ok(()) }',
    "E = mc^2, \\frac{a}{b} \\leq \\sum_{i=0}^{n} x_i, $\\alpha$",
)
CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")
# Written like control tokens, but not quite.
NEAR_MISSES = (
    "<start_of_turn", "start_of_turn>", "< bos>", "<bos >", "<BOS>", "<Start_of_turn>", "</bos>", "<start\u2581of_turn>",
    "<start_of_turn >", "<<bos>>", "<eos", "eos>", "<start_of_<bos>turn>", "<end_of_turn<end_of_turn>>", "<\u200bbos>",
    "<s>", "</s>", "[INST]", "<|im_start|>", "<mask>", "[multimodal]", "<unused0>", "<unused99>", "<unused100>",
    "<unused6241>", "<unused6242>", "<unused 1>", "<0x41>", "<0xE2><0x96><0x81>", "<0xGG>", "user\n", "model\n",
)  # fmt: skip
TAGS = (
    "table",
    "tr",
    "td",
    "h1",
    "h6",
    "h7",
    "b",
    "i",
    "u",
    "s",
    "code",
    "a",
    "div",
    "span",
    "p",
    "strong",
    "bbox",
    "iframe",
)
EMOJI = (
    "\U0001f600", "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f680",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "\u200d", "\ufe0f", "\U0001fae8",
)  # fmt: skip
WHITESPACE = (" ", "\t", "\n", "\r", "\r\n", "\u00a0", "\u3000", "\u2581", "\u2028", "\x0b", "\x0c")
MAX_RUN = 40
# Planes and blocks with few or no pieces of their own, so that bytes must stand in; noncharacters and private use too.
RARE = (
    (0x0700, 0x074F), (0x1400, 0x167F), (0x2800, 0x28FF), (0xA000, 0xA48C), (0xE000, 0xF8FF), (0xFDD0, 0xFDEF),
    (0xFFF0, 0xFFFF), (0x10000, 0x100FF), (0x12000, 0x123FF), (0x13000, 0x1342F), (0x1D400, 0x1D7FF), (0x1F000, 0x1F02F),
    (0x20000, 0x2A6DF), (0x30000, 0x3134F), (0xE0000, 0xE007F), (0xF0000, 0xFFFFD), (0x10FF00, 0x10FFFF),
)  # fmt: skip
SURROGATES = range(0xD800, 0xE000)


def make_corpus(pieces: Sequence[str], *, seed: int = 270) -> list[str]:
    """More than 20,000 texts, the same for every run. ``pieces`` are those of the vocabulary."""
    rng = random.Random(seed)
    words = [piece.replace("\u2581", " ") for piece in pieces]
    makers: tuple[tuple[int, Callable[[], str]], ...] = (
        (3000, lambda: _prose(rng)),
        (5000, lambda: "".join(rng.choices(words, k=rng.randint(1, 20)))),
        (1500, lambda: _cut(rng, rng.choice(CODE))),
        (2000, lambda: _whitespace(rng)),
        (1200, lambda: _html(rng)),
        (1000, lambda: "".join(rng.choices((*EMOJI, "a", " ", "ok"), k=rng.randint(1, 8)))),
        (
            500,
            lambda: "".join(
                chr(rng.choice((*range(0x20), 0x7F, *range(0x80, 0xA0)))) for _ in range(rng.randint(1, 9))
            ),
        ),
        (1500, lambda: "".join(chr(rng.randint(*rng.choice(RARE))) for _ in range(rng.randint(1, 8)))),
        (1500, lambda: _characters(rng, 0x10FFFF)),
        (1000, lambda: _characters(rng, 0x2FF)),
        (3000, lambda: _control(rng)),
    )
    return ["", *SENTENCES, *CODE, *_runs(), *(make() for num, make in makers for _ in range(num))]


def _runs() -> Iterator[str]:
    """Every run of one kind of whitespace, alone and between words."""
    for space in WHITESPACE:
        for num in range(1, MAX_RUN + 1):
            yield from (space * num, f"a{space * num}b", f"x\n{space * num}y", f"{space * num}<b>{space * num}")


def _prose(rng: random.Random) -> str:
    text = " ".join(_cut(rng, rng.choice(SENTENCES)) for _ in range(rng.randint(1, 3)))
    return rng.choice((text, text.upper(), f"{rng.randint(-9, 10**9):,} {text}", text.replace(" ", "")))


def _cut(rng: random.Random, text: str) -> str:
    start, end = sorted(rng.choices(range(len(text) + 1), k=2))
    return text[start:end]


def _whitespace(rng: random.Random) -> str:
    runs = (rng.choice(WHITESPACE) * rng.randint(1, MAX_RUN) for _ in range(rng.randint(1, 5)))
    return "".join(run + rng.choice(("", "", "x", ">", "</", "the", ".", "<td>")) for run in runs)


def _html(rng: random.Random) -> str:
    tags = (rng.choice(("<{}>", "</{}>", "<{} >", "<{}/>", "<{}", "{}>")).format(rng.choice(TAGS)) for _ in range(6))
    return "".join(tag + rng.choice(("", " ", "\n", "text", " </", "> ")) for tag in tags)


def _control(rng: random.Random) -> str:
    """Control tokens whole, nested in themselves, cut, and beside near misses."""
    token = rng.choice(CONTROL)
    at = rng.randint(0, len(token))
    nested = token[:at] + rng.choice(("", " ", "\n", *CONTROL)) + token[at:]
    around = (rng.choice(("", " ", "\n", "user\n", "a", "\u2581", *NEAR_MISSES)) for _ in range(2))
    return nested.join(around) + rng.choice(("", token, _cut(rng, token)))


def _characters(rng: random.Random, last: int) -> str:
    codes = (rng.randint(0, last) for _ in range(rng.randint(1, 16)))
    return "".join(chr(code) for code in codes if code not in SURROGATES)
