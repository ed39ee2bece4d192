"""Text for the tests: prose in several languages, code, JSON and chat, all written here."""

PROSE = (
    "The lighthouse keeper climbed the stairs every evening at six. He carried a lamp, a loaf of bread and the newspaper of "
    "the day before, and he read it twice, once for the news and once for the advertisements. In winter the storms came from "
    "the north-west and shook the glass; in summer the fishermen waved to him from their boats. Nobody in the village could "
    "say how long he had been there, and he himself had stopped counting when the old king died. "
)
GERMAN = (
    "Der Zug hielt auf freier Strecke, und niemand wusste warum. Die Schaffnerin ging durch die Wagen und sagte, es werde "
    "nicht lange dauern. Ein Kind fragte seinen Vater, ob man aussteigen duerfe; der Vater schuettelte den Kopf und las weiter. "
)
FRENCH = (
    "La boulangerie ouvre a sept heures, mais l'odeur du pain reveille la rue bien avant. Les premiers clients sont toujours "
    "les memes : le facteur, la pharmacienne, et un vieux monsieur qui achete une seule brioche. "
)
SPANISH = (
    "El mercado empieza antes del amanecer. Los camiones llegan cargados de naranjas, pescado y flores, y a las ocho de la "
    "manana no queda casi nada. "
)
CODE = '''
def merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge half-open intervals that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
'''
JSON = '{"order": {"id": 10423, "customer": {"name": "Ana Lima", "city": "Porto"}, "lines": [{"sku": "A-1", "count": 3}]}}\n'
CHAT = "User: What is the boiling point of water at sea level?\nAssistant: 100 degrees Celsius.\nUser: And of ethanol?\nAssistant:"
SCRIPTS = (
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002 "
    "\u041f\u043e\u0435\u0437\u0434 \u0443\u0448\u0451\u043b. \u0645\u0631\u062d\u0628\u0627 "
)

MIXED = PROSE + CODE + GERMAN + JSON + FRENCH + SPANISH + SCRIPTS + CHAT + "\n\n"
SHORT_PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    '{"name": "Ada", "born":',
    GERMAN,
    SCRIPTS,
    CHAT,
)
LONG_LENGTHS = (511, 512, 513, 1025, 2600)
