"""Detect names of persons in Han, kana, Hangul, Cyrillic, Greek, Arabic, Hebrew, Devanagari and Thai.

Where a script has no capitals, a name is known by its parts: a listed surname and signs that given names are written
with, as many as a name has, and nothing beside them. ``黄斑`` begins with a surname too, but nobody is given the second
sign.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from functools import cache

from retr.retrieval.audit.phi.lexicon import fold, lists

_SURNAMES = lists()["chinese surnames"]
# Signs that Chinese given names are written with; signs of anatomy, disease and examination, which no name has.
_GIVEN, _TERMS, _HAN_WORDS = (
    lists()["chinese given"],
    lists()["han terms"] - lists()["chinese given"],
    lists()["han words"],
)
_PLACES = ("大学", "大學", "病院", "医院", "学院", "医科", "大阪")
_HAN_RUN = re.compile(r"[\u3400-\u9fff々]+")
_HAN_CUE = re.compile(
    r"(?:姓名|患者|病人|医生|医师|醫師|主任|大夫|护士|家属|联系人|检查者|报告人|审核|操作者|氏名|担当医|担当|主治医|執刀医|检查医|技师)(?:氏?名)?[::\s是为]{0,2}"
    r"(?P<name>[\u3400-\u9fff]{2,6}?)(?=先生|女士|小姐|様|さん|[,,。、;;\s\d男女()()]|$)"
)
_HAN_BY = re.compile(
    r"由(?P<name>[\u3400-\u9fff]{2,4}?)(?:[拍摄攝照]|检查|檢查|审[核阅]|審[核閱]|操作|标注|標註|阅片|閱片|诊断|診斷|报告|報告|记录|上传|完成|负责)"
)
_HAN_TITLE = re.compile(
    r"(?<=[\u3400-\u9fff々])(?:先生|女士|小姐|医生|醫生|医师|醫師|主任|大夫|教授|様|さん|殿|くん|ちゃん)(?P<more>[\u3400-\u9fff])?"
)
_HAN_END = re.compile(r"[\u3400-\u9fff々]{1,5}$")
# What stands beside a name without being one: a side, a sex.
_ASIDE = lists()["beside names"]
_KANA = re.compile(r"[\u3041-\u3096ー]{2,6}|[\u30a1-\u30fa・ー]{2,8}")
_MIXED = re.compile(r"[\u3041-\u3096ー々\u3400-\u9fff]{1,4}|[\u30a1-\u30faー]{2,5}")
_HANGUL_RUN = re.compile(r"[가-힣]+")
_HANGUL_SURNAMES, _HANGUL_GIVEN = lists()["korean surnames"], lists()["korean given"]
_HANGUL_CUE = re.compile(
    r"(?:환자|이름|성명|성함|담당의|주치의|판독의|전공의|의사|간호사|검사자|촬영자|보호자)[:\s]{1,3}(?P<a>[가-힣]{2,4})"
    r"|(?P<b>[가-힣]{2,4}) ?(?:님|씨|교수|선생|과장|원장|의사|간호사)(?![가-힣])"
)


_CAPITAL = r"[А-ЯЁІЇЄҐЎЈЉЊЋЂЏ]"
_SMALL = r"[а-яёіїєґўјљњћђџ'’-]"
_PATRONYMIC = re.compile(
    rf"(?<!\w){_CAPITAL}{_SMALL}+(?:ович|евич|ьич|овна|евна|ична|инична|івна|ївна)(?!\w)", re.IGNORECASE
)
_CYRILLIC_INITIALS = re.compile(
    rf"(?<!\w)(?:{_CAPITAL}{_SMALL}{{2,}},? {_CAPITAL}\. ?{_CAPITAL}?|"
    rf"{_CAPITAL}\. ?(?:{_CAPITAL}\. ?)?{_CAPITAL}{_SMALL}{{2,}})"
)
_CYRILLIC = re.compile(rf"(?<!\w){_CAPITAL}{_SMALL}+(?!\w)")
_CYRILLIC_ENDING = re.compile(
    r"(?:[оеё]в|[иы]н|ский|цкий|[оеё]ва|[иы]на|ская|цкая|ской|енко|ейко|чук|щук|[аюя]к|ик|ич|ець|ко|ова|ева|ія|ий|ян|"
    r"дзе|швили|ых|их|ску|ев|ски|ска)$"
)
_CYRILLIC_SURNAME = re.compile(r"...(?:[оеё]в|[оеё]ва|[сц]кий|[сц]кая|енко|чук|швили|дзе|ян)$")
_CYRILLIC_CUE = re.compile(
    rf"(?i:пациент(?:ка)?|больной|больная|врач|доктор|хирург|фио|имя|пацієнт(?:ка)?|лікар|лекар|"
    rf"пациентка)[:\s]{{1,3}}(?P<name>{_CAPITAL}{_SMALL}+)"
)
_CYRILLIC_STEM = (
    r"(?:болезн|синдром|симптом|лимфом|саркома|опухол|тест|шкал|признак|критери|реакци|дистроф|хвороб|метод|проб|таблиц|закон|"
    r"феномен|операци|институт|клиник|больниц|университет|лекарств|препарат|аппарат|фирм|линз|игл|лампа)[а-яі]*\s+"
)
_CYRILLIC_THING = re.compile(_CYRILLIC_STEM, re.IGNORECASE)
_BEFORE_THING = re.compile(_CYRILLIC_STEM + "$", re.IGNORECASE)
_CYRILLIC_WORDS = lists()["cyrillic words"]
# Common given names of scripts without capitals.
_NAMED_WORDS = lists()["given without capitals"]
_UNCASED = re.compile(r"[\u0590-\u05ff]+|[\u0600-\u06ff]+|[\u0900-\u097f]+")
_THAI = re.compile(r"(?:นาย|นาง(?:สาว)?|น\.ส\.|ด\.ช\.|ด\.ญ\.|เด็กชาย|เด็กหญิง|คุณ|นพ\.|พญ\.|ดร\.) ?[ก-๙]{2,}")
_HONOURED = re.compile(
    r"(?:جناب آقای|سرکار خانم|آقای|خانم|دکتر|الأستاذة?|الدكتورة?|السيدة?|الآنسة|المهندسة?|المريضة?|بیمار|ד[\"״]ר|מר|"
    r"גב['׳]|גברת|פרופ['׳]|"
    r"श्री(?:मती|मान)?|डॉ\.?|कुमारी|जनाब|मरीज|रोगी)\s+[\u0590-\u06ff\u0900-\u097f]{2,}"
)
# Georgian and Armenian surnames by their endings, a word of at least two letters beside them.
_CAUCASIAN = re.compile(r"[ა-ჰ]{2,} [ა-ჰ]{2,}(?:შვილი|ძე)(?![ა-ჰ])|[Ա-Ֆա-և]{2,} [Ա-Ֆա-և]{2,}յան(?![ա-և])")
_GREEK = re.compile(r"(?<!\w)[Α-ΩΆΈΉΊΌΎΏ][α-ωά-ώς]+(?!\w)")
_GREEK_ENDING = re.compile(
    r"(?:πουλοσ|πουλος|πουλου|ιδησ|ιδης|ιδου|ακησ|ακης|ακη|ατος|ογλου|ελης|ακος|ιαννης|ιτης|αιος|ουδης)$"
)


def has_name(value: str, *, thing: bool = False) -> bool:
    """Return whether a text names a person in letters other than Latin ones."""
    if _CYRILLIC.search(value) or _PATRONYMIC.search(value):
        return not thing and _cyrillic(value)
    if _HANGUL_RUN.search(value):
        return not thing and _hangul(value)
    if _HAN_RUN.search(value):
        return not thing and _han(value)
    if _THAI.search(value) or _HONOURED.search(value):
        return True
    if _CAUCASIAN.search(value):
        return True
    if len(_GREEK.findall(value)) > 1:
        words = [fold(word) for word in _GREEK.findall(value)]
        alone = len(words) == len(re.findall(r"[α-ωά-ώς]{2,}", value)) <= 3 and not re.search(r"\d", value)
        return alone or any(word in lists()["other given"] or _GREEK_ENDING.search(word) for word in words)
    words = _UNCASED.findall(value)
    return not thing and 2 <= len(words) <= 5 and any(word in _NAMED_WORDS for word in words)


def could_be_name(value: str) -> bool:
    """Return whether a cell under a title that promises names can be one: a few letters of such a script."""
    letters = re.sub(r"[\s・,、.·^='’-]+", "", value)
    if not letters or len(letters) > 40 or any(unicodedata.category(sign)[0] not in "LM" for sign in letters):
        return False
    if _HAN_RUN.fullmatch(letters):
        return _is_chinese(letters) or _is_japanese(letters)
    return (
        has_name(value) or _KANA.fullmatch(letters) is not None or any("\u0370" <= sign <= "\u0fff" for sign in letters)
    )


def _is_chinese(run: str) -> bool:
    """Return whether signs are a Chinese surname and one or two signs of a given name.

    >>> _is_chinese("王秀英"), _is_chinese("黄斑"), _is_chinese("白内障")
    (True, False, False)
    """
    if run in _HAN_WORDS:
        return False
    if run[:2] in _SURNAMES:
        return 3 <= len(run) <= 4 and _TERMS.isdisjoint(run[2:])
    if not 2 <= len(run) <= 3 or run[0] not in _SURNAMES or not _TERMS.isdisjoint(run[1:]):
        return False
    # of two signs any may be rare, one alone must be known
    return not _GIVEN.isdisjoint(run[1:]) or (
        len(run) == 2 and (run[1] in _SURNAMES or run[1] in lists()["japanese given"])
    )


@cache
def _longest() -> int:
    return max(map(len, lists()["japanese surnames"]))


def _is_japanese(run: str) -> bool:
    """Return whether signs are a Japanese surname and one to three signs of a given name.

    >>> _is_japanese("山田太郎"), _is_japanese("緑内障")
    (True, False)
    """
    surnames, given = lists()["japanese surnames"], lists()["japanese given"] - _TERMS
    if run.endswith(_PLACES):
        return False
    return any(
        run[:size] in surnames and (given.issuperset(run[size:]) or _KANA.fullmatch(run[size:]))
        for size in range(1, _longest() + 1)
        if 1 <= len(run) - size <= 3 and len(run) >= 3 and (size > 1 or len(run) - size > 1)
    )


def _han(value: str) -> bool:
    for found in _HAN_CUE.finditer(value):
        if _is_chinese(found["name"]) or _is_japanese(found["name"]):
            return True
    if any(_is_chinese(found["name"]) for found in _HAN_BY.finditer(value)):
        return True
    for found in _HAN_TITLE.finditer(value):
        run = "".join(_HAN_END.findall(value[: found.start()][-5:]))
        # within a sentence a whole name tells, as its last word a surname too
        parts = [run] if found["more"] is None else [run[-size:] for size in (4, 3) if size <= len(run)]
        if any(_is_chinese(part) or _is_japanese(part) for part in parts):
            return True
        if found["more"] is None and (run in _SURNAMES or run in lists()["japanese surnames"]):
            return True
    runs = re.findall(r"[\u3400-\u9fff々\u3041-\u309f\u30a0-\u30ff]+", value)
    full = [run for run in runs if run not in _ASIDE]
    surnames, given = lists()["japanese surnames"], lists()["japanese given"]
    for one, other in itertools.pairwise(full):
        if one in surnames and _MIXED.fullmatch(other) and (given.issuperset(other) or _TERMS.isdisjoint(other)):
            return True
    # in a longer sentence a few signs alone do not tell
    return len(full) == 1 and (_is_chinese(full[0]) or _is_japanese(full[0]))


def _is_korean(run: str) -> bool:
    """Return whether syllables are a Korean surname and two of a given name.

    >>> _is_korean("김민수"), _is_korean("백내장"), _is_korean("고혈압")
    (True, False, False)
    """
    if len(run) == 4 and run[:2] in _HANGUL_SURNAMES:
        return True
    if run in lists()["korean words"]:
        return False
    return len(run) == 3 and run[0] in _HANGUL_SURNAMES and _HANGUL_GIVEN.issuperset(run[1:])


def _hangul(value: str) -> bool:
    if any(_is_korean(found["a"] or found["b"]) for found in _HANGUL_CUE.finditer(value)):
        return True
    full = [run for run in _HANGUL_RUN.findall(value) if run not in _ASIDE]
    return len(full) == 1 and _is_korean(full[0])


def _cyrillic(value: str) -> bool:
    if _PATRONYMIC.search(value):
        return True
    for found in _CYRILLIC_INITIALS.finditer(value):
        words = [fold(word) for word in _CYRILLIC.findall(found[0])]
        if any(_CYRILLIC_ENDING.search(word) for word in words) and not _BEFORE_THING.search(value[: found.start()]):
            return True
    for found in _CYRILLIC_CUE.finditer(value):
        if fold(found["name"]) not in _CYRILLIC_WORDS:
            return True
    capitals = [(found.start(), fold(found[0])) for found in _CYRILLIC.finditer(value)]
    given = lists()["other given"]
    whole = re.sub(r"\.\w{3,4}$", "", value)
    alone = (
        2 <= len(capitals) <= 4
        and len(capitals) == len(re.findall(rf"{_SMALL}{{2,}}", whole, re.IGNORECASE))
        and not re.search(r"\d", whole)
    )
    if alone and _CYRILLIC_WORDS.isdisjoint(word for _, word in capitals) and not _CYRILLIC_THING.match(value):
        return True
    for (begin, one), (_, other) in itertools.pairwise(capitals):
        if {one, other} & _CYRILLIC_WORDS or _BEFORE_THING.search(value[:begin]):
            continue
        if one in given or other in given:
            return True
        if _CYRILLIC_ENDING.search(one) and _CYRILLIC_ENDING.search(other):
            return True
        if _CYRILLIC_SURNAME.search(one) or (begin and _CYRILLIC_SURNAME.search(other)):
            return True
    return False
