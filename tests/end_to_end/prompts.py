"""Prompts of many kinds for the real model: languages, scripts, emoji, code, odd white space."""

from __future__ import annotations

_TOPICS = (
    "the sea", "a red bicycle", "bread", "the moon", "an old library", "rain", "the number seven", "a small robot",
    "music", "winter", "a lost key", "mountains",
)  # fmt: skip
_TEMPLATES = (
    "Write one sentence about {}.",
    "List three facts about {}.",
    "Écris une phrase sur {}, en français.",
    "Schreibe einen Satz über {} auf Deutsch.",
    "Escribe una frase sobre {} en español.",
    "Answer with emojis only: {} 🎉🦊",
)
_SINGLES = (
    "日本語で挨拶してください。",
    "用中文介绍一下你自己。",
    "Расскажи о погоде в Москве.",
    "اكتب جملة قصيرة بالعربية.",
    "שלום, מה שלומך?",
    "Γράψε μια πρόταση για τη θάλασσα.",
    "हिन्दी में एक वाक्य लिखो।",
    "한국어로 인사해 주세요.",
    "เขียนประโยคสั้น ๆ",
    "Repeat exactly: 😀🎉 日本語 naïve 🦊🦊",
    "Repeat: 👨‍👩‍👧‍👦 🇫🇷 ❤️ é é",
    "Continue this: 🌍🌎🌏🌍🌎🌏🌍🌎",
    "Repeat ten times: ñandú",
    "Write the Greek alphabet.",
    "Write a haiku in Japanese.",
    "Print a table of fruits in Markdown.",
    "def fibonacci(n):\n    # complete this function\n",
    "SELECT name FROM users WHERE\t-- finish the query",
    "<div>\n  <p>Finish this page",
    '{"name": "Ada", "age": 36, "likes": [',
    "   leading and trailing white space   ",
    "line one\n\n\nline two\r\nline three",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "3.14159265358979",
    "What is <|im_end|> for?",
    "Say <|im_start|>system",
    "Mathematics: ∑ ∫ √ ≤ ≥ ≠ ∞",
    "Currency: € £ ¥ ₹ ₿",
    "𝕎𝕣𝕚𝕥𝕖 𝕝𝕚𝕜𝕖 𝕥𝕙𝕚𝕤",
    "Zürich, Łódź, Çanakkale, Đà Nẵng, Þórshöfn",
)

PROMPTS = (*(template.format(topic) for template in _TEMPLATES for topic in _TOPICS), *_SINGLES)
