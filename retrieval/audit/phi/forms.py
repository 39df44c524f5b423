"""Patterns of PHI that are recognised by their form: dates, numbers, addresses.

Dates finer than a year, identifiers with their label, numbers of known structure, telephone numbers, addresses, UIDs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retr.retrieval.audit.phi.lexicon import lists

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTH = (
    r"(?:jan(?:uary|uar|vier|eiro|\.)?|jänner|ene(?:ro)?|gen(?:naio)?|feb(?:ruary|ruar|brero|braio|\.)?|fev(?:ereiro)?|"
    r"févr?(?:ier)?|mar(?:ch|zo|s|ço|\.)?|märz?|mrz|maart|apr(?:il|ile|\.)?|avr(?:il)?|abr(?:il)?|may|mai|mei|mayo|"
    r"maggio|maio|"
    r"june?|juni|juin|junio|giu(?:gno)?|junho|jul(?:y|i|io|ho|\.)?|juil(?:let)?|lug(?:lio)?|aug(?:ust|\.)?|août|"
    r"ago(?:sto)?|"
    r"sept?(?:ember|embre|iembre|\.)?|set(?:embro|tembre)?|oct(?:ober|obre|\.)?|okt(?:ober|\.)?|ott(?:obre)?|"
    r"out(?:ubro)?|"
    r"nov(?:ember|embre|iembre|embro|\.)?|dec(?:ember|\.)?|dez(?:ember|embro|\.)?|déc(?:embre)?|dic(?:iembre|embre)?|"
    r"января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря|"
    r"stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|października|listopada|grudnia)"
)
_YEAR = r"(?:18|19|20)\d\d"
_M, _D = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_MM, _DD = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
# All patterns but those that ask for capitals read small letters alone, which is twice as fast as ignoring case.
_DATE = re.compile(
    # not within a longer number, a version or a document's number
    rf"(?=[\dn])(?<![\d.])(?<!v\d)(?<!\d-)(?<!ver )(?<!ver\. )(?<!version )(?:{_YEAR}(?P<a>[-./_ ]){_M}(?P=a){_D}|"
    rf"(?<!v){_D}(?P<b>[-./_]){_D}(?P=b)(?:{_YEAR}|"
    rf"\d\d)"
    rf"|{_YEAR}{_MM}{_DD}(?:[t_]?(?:[01]\d|2[0-3])(?:[0-5]\d){{1,2}})?|(?:{_DD}{_MM}|{_MM}{_DD})(?:19|20)\d\d|"
    rf"{_MM}/{_YEAR}|"
    rf"{_YEAR}-w[0-5]\d"
    r"|\d{1,2}月\d{1,2}日|ngày \d{1,2} tháng \d{1,2}|\d{1,2}월 ?\d{1,2}일)(?!\d|\.\d{3})"
)
_NAMED_DATE = re.compile(
    rf"(?<!\d){_D}(?:st|nd|rd|th|\.|er|º)?[ _-]?(?:of |de |di )?[ ._/-]?(?<![a-z]){_MONTH}(?![a-z])[. ,_/-]*(?:de |"
    rf"del )?'?(?:{_YEAR}|\d\d)(?!\d)"
    rf"|(?<![a-z]){_MONTH}[ _-]+{_D}(?:st|nd|rd|th)?,?[ _-]+(?:\d\d:\d\d(?::\d\d)? (?:[a-z]{{2,4}} )?)?'?{_YEAR}(?!\d)"
    rf"|(?<![a-z])(?!set|out|mar |gen |oct\b){_MONTH}[ ,/-]+(?:19|20)\d\d(?!\d)"
    rf"|(?<!\d){_YEAR}[ -]{_MONTH}[ -]{_D}(?!\d)|^{_D}(?:st|nd|rd|th|\.)? {_MONTH}$|(?<![a-z]){_MONTH} {_D}(?:st|nd|"
    rf"rd|th)\b"
    rf"|\b(?:on|since|seit|am|le|el|il|em|vom) (?:the )?{_D}(?:st|nd|rd|th|\.)? ?(?:of |de )?{_MONTH}\b"
)
# What every word for a month begins with.
_SOME_MONTH = re.compile(
    r"(?<![^\W\d_])(?:jan|jän|ene|gen|feb|fév|fev|mar|mär|mrz|apr|avr|abr|may|mai|mei|mag|jun|jui|giu|jul|lug|aug|aoû|"
    r"ago|sep|set|oct|okt|ott|out|nov|dec|dez|déc|dic|янв|фев|мар|апр|мая|июн|июл|авг|сен|окт|ноя|дек|sty|lut|kwi|maj|"
    r"cze|lip|sie|wrz|paź|lis|gru)"
)
_NO_DIGIT = str.maketrans("", "", "0123456789")
_EAST = re.compile(r"[省市区區道都府県路街가-힣]")
_EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_UID = re.compile(r"(?<![\d.])(?:[0-2](?:\.\d+){5,}|[0-2](?:\.\d+){3,}\.\d{3,}|2\.25\.\d{15,39})(?![\d.]*\d)")
_ABSOLUTE = re.compile(
    r"(?:^|[\s\"'(=<]|file://)(?:/(?:home|Users|mnt|media|data|srv|root|tmp|var|export|net|Volumes|scratch|nas|opt|"
    r"share)/\S"
    r"|[A-Za-z]:[\\/](?![\\/])|\\\\\w)"
)
_SSN = re.compile(r"(?<![\d-])(?!000|666)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\d-])")
_SSN_LABEL = re.compile(
    r"\b(?:ssn|soc(?:ial)?\.? ?sec(?:urity)?(?: (?:no|number|num|nr|#))?)\W{0,4}\d{3}-?\d{2}-?\d{4}\b"
)
_LABEL = (
    r"mrn|med(?:ical)?[ _.-]?rec(?:ord)?|pat(?:ient(?:en)?|\.)?|hosp(?:ital)?|chart|case|record|account|acct|"
    r"accession|nhs|insurance|policy|member|"
    r"encounter|visit|medicare|medicaid|health ?card|passport|nhc|historia(?: cl[ií]nica)?|hc|cartella(?: clinica)?|"
    r"dossier(?: patient)?|nip|ipp|fall|"
    r"vers(?:icherungs)?|"
    r"kranken(?:akten|haus)?|hkid|cpf|dni|nie|bsn|pesel|inss|nino|aadhaar|id|subject|карт[аы]|снилс|полис|істор\w+|"
    r"истори[яи] болезни|иб"
)
_LABELLED = re.compile(
    rf"(?<![a-z])(?:{_LABEL})(?:[\W_]{{0,3}}(?:no|nr|num|nummer|number|id|ident|identifier|№|n(?=[.°º]))(?![a-z])"
    # without such a word four digits may be a year or a size
    rf"[\W_]{{0,4}}|[ _]{{0,2}}[:=#№][\W_]{{0,3}}(?=(?:[a-z]{{0,3}}[ /-]?\d){{5}}))"
    r"(?:[a-z]{0,3}-?\d(?=(?:[ -]?\d){4})[\d -]{3,}\d|(?:[a-z]{0,3}/?\d){4,})"
    r"|(?<![a-z])(?:mrn|nhs|ssn|hkid|cpf|dni|nie|bsn|pesel|nhc|ipp|снилс|n[°º] ?dossier|истори[яи] болезни)"
    r"[\W_]{1,3}[a-z]{0,3}\d[\d .-]{2,}[/\d]\d*"
    r"|(?:病历号|病案号|住院号|门诊号|登记号|身份证号?|カルテ番号|患者番号|患者id|등록번호|환자번호|병록번호)\W{0,3}[a-z]{0,3}\d{3,}"
)
_GLUED = re.compile(r"(?<![a-z])(?:mrn|pid|ptid)\d{4,}")
_TEN = re.compile(r"(?<![\d-])(\d{3})([ -])(\d{3})\2(\d{4})(?![\d-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\(?\d{1,3}\)?[ ./-]?(?:\(0\))?[ ./-]?\(?\d{1,5}\)?(?:[ ./-]?\d{2,5}){1,4}|"
    r"001[- .]\d{3}[- .]\d{3}[- .]\d{4}"
    r"|1?[- .]?\(\d{3}\) ?\d{3}[- .]\d{4}|(?:1[- .])?\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4}"
    r"|\(0?\d{2,5}\)[ /-]?\d{2,5}(?:[ /-]?\d{2,5}){1,3}|(?:11|[1-9]\d) 9?\d{4}-\d{4}"
    r"|[6-9]\d\d \d{3} \d{3}|[6-9]\d\d \d\d \d\d \d\d|[5-8]\d\d[ -]\d{3}[ -]\d{3})(?:[ ]?(?:x|"
    r"ext\.?)[ ]?\d{1,6})?(?![\w.-]*\d)"
)
# national numbers: a zero, then groups; 9 to 12 digits in all
_PHONE_ZERO = re.compile(r"(?<![\w.+,-])\(?0[1-9]\d{0,4}\)?(?:[ ./-]{1,3}\d{2,8}){1,5}(?![\w.-]*\d)")
_PHONE_LABEL = re.compile(
    r"(?:(?<![a-z])(?:tel|telephone|phone|ph|mobile|mob|cell|call|fax|telefono?|teléfono|telefone|telefoon|tlf|tfno|"
    r"tél|téléphone|"
    r"handy|mobil|rufnummer|gsm|móvil|portable|celular|puhelin|тел|телефон|моб)(?![a-z])(?: (?:no|nr|number|at|is|him|"
    r"her))?"
    r"|电话|手机|電話|携帯|전화)[^\w+(]{0,4}(?=(?:\D*\d){6})\+?\(?\d[\d ()./-]{4,}"
)
# Words of streets: English ones are last, German, Dutch and Nordic ones end a word, Romance and Slavic ones begin.
_LAST, _ENDING, _FIRST = (
    "|".join(map(re.escape, sorted(lists()[f"street {place}"], key=len, reverse=True)))
    for place in ("words", "endings", "openings")
)
_STATES = (
    "A[LKZRES]|C[AOT]|D[EC]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]|P[AWR]|RI|S[CD]|T[NX]|UT|"
    "V[AIT]|W[AIVY]"
)
_ADDRESS = re.compile(
    # every form but one begins a word, which is asked once
    rf"(?<!\w)(?:(?<!\.)\d{{1,5}}[A-Za-z]?,? (?:(?:[NSEW]\.?|North|South|East|"
    rf"West) )?(?:[A-Z][\w'’.-]+ ){{1,3}}(?i:{_LAST})\b(?![-/]\w)"
    rf"|[A-ZÄÖÜ][\w.'’ -]{{0,40}}?(?:(?i:{_ENDING})|-(?i:ring|pad)),? \d{{1,4}}"
    r"|\d{1,5} [A-Z][\w'’-]+(?: [A-Z][\w'’-]+){0,2},? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Room)\b"
    r"|\d{1,4},? ?(?:bis |ter )?,?(?:rue|avenue|boulevard|bd|chemin|impasse|allée|place|quai|cours|route|"
    r"square|passage) "
    r"(?:d[eu]s? |de la |d['’]|l['’]|[A-ZÀ-Þ])"
    r"|(?:rue|avenue|boulevard|chemin|impasse) (?:d[eu]s? |de la )?[A-ZÀ-Þ][\w'’ -]+"
    rf"|(?:{_FIRST}) (?:d[aeiou]s? |de la |del(?:la|lo|"
    rf"l['’])? ?)?[A-ZÀ-ÞĀ-Ž А-Я][^\d\n]{{1,40}}?,? ?(?:n[º°o.]*|д\.|№)? ?\d{{1,4}}"
    r"|(?:P\.? ?O\.? ?Box|Postfach|PSC|Apartado|Casella postale|Boîte postale|Unit \d+ Box) ?\d+"
    rf"|[A-Z][\w'.-]+,? (?:{_STATES}) \d{{5}}(?:-\d{{4}})?\b"
    r"|(?:[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}|[ABCEGHJ-NPR-TVXY]\d[A-Z] \d[A-Z]\d|"
    r"[1-9]\d{3} [A-Z]{2},? [A-Z][a-z]+)\b"
    r")|, (?:[A-Z]{1,2}-)?(?:\d{2}-\d{3}|\d{5}-\d{3}|\d{3} \d{2}|\d{4,5}),? [A-ZÀ-Þ][a-zà-ÿ]{2,}"
)
_EAST_ADDRESS = re.compile(
    r"〒 ?\d{3}|(?:省|市|自治区).{1,14}(?:路|街|道|巷|号|座|镇)"
    r"|[都道府県].{1,10}[市区町村郡].{0,30}?[\d一二三四五六七八九十]+(?:丁目|番|-|号)"
    r"|[가-힣]+(?:시|도) .{0,16}[가-힣\d]+(?:로|길|동) ?\d+"
)
_LIVES = re.compile(
    r"(?<![^\W\d_])(?i:lives at|living at|resid(?:es|ing) (?:at|in)|wohnt|wohnhaft|habite|domicili\w+|vive en|abita in|"
    r"mieszka) (?:(?:in|im|an|at|the|der|dem) ){0,2}[A-ZÀ-Þ][^\d\n]{1,50}(?<![\d-])\d{1,3}(?![\d.])"
)
_ZIP_LABEL = re.compile(r"\b(?:zip(?: ?code)?|postal ?code|postcode|plz|c\.?p\.?|cap)[ :.]{1,3}[a-z]{0,2}-?\d{4,6}\b")
_HASH = re.compile(r"(?<![0-9a-fA-F])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{12,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# A run of digits that names a code, a quantity, a picture's place in a row, or what stands after a decimal point.
_NO_DIGITS = re.compile(
    r"(?:snomed(?:[- ]?ct)?|sct|sctid|loinc|icd|rxnorm|rxcui|umls|cui|mesh|radlex|atc|gtin|cpt|ndc|nct|isrctn|drks|"
    r"eudract|pmc|pmid|doi|"
    r"arxiv|orcid|isbn|issn|isic|ref|lot|seed|build|rev|version|epoch|step|iter|frame|slice|image|img|im|file|page|"
    r"dsc|drusen|cnv|dme|dicom|normal)"
    r"[^\w]{0,3}[ _:#-]?\d[\d.-]*|(?<!\d)\d+[.,]\d+|10\.\d{4,9}/\S+|(?<!\d)00+\d+"
    r"|(?<!\d)\d+ ?(?:px|pixels?|cells?|bytes?|kb|mb|gb|hz|khz|mhz|iu|ie|ui|units?|mm|um|µm|nm|ms|ml|mg|copies|"
    r"k|rows|images|"
    r"steps|/)(?![a-z])"
)
_DIGITS = re.compile(r"(?<!\d)\d{6,}(?!\d)|\d{3}[- ]\d{3}[- ]\d{3,4}(?!\d)")


def in_text(value: str) -> Iterator[str]:
    """Yield the kinds of what a text's forms tell, the more telling ones first."""
    if "@" in value and _EMAIL.search(value):
        yield "e-mail"
    if ("/" in value or "\\" in value) and _ABSOLUTE.search(value):
        yield "absolute path"
    digits = len(value) - len(value.translate(_NO_DIGIT))
    if not digits:
        return
    # what a form needs is asked first: the patterns take their time
    lowered = value.lower()
    dated = (digits >= 3 and _DATE.search(lowered) is not None) or (
        _SOME_MONTH.search(lowered) is not None and _NAMED_DATE.search(lowered) is not None
    )
    if dated:
        yield "date"
    if digits >= 4:
        yield from _numbers(value, lowered, digits, dated=dated)
    if (
        (" " in value and _ADDRESS.search(value))
        or (("〒" in value or _EAST.search(value)) and _EAST_ADDRESS.search(value))
        or _ZIP_LABEL.search(lowered)
        or _LIVES.search(value)
    ):
        yield "address"


def _numbers(value: str, lowered: str, digits: int, *, dated: bool) -> Iterator[str]:
    """Yield what its numbers are: one kind, the most telling."""
    if value.count(".") >= 2 and _UID.search(value):
        yield "uid"
    elif digits >= 9 and (_SSN.search(value) or _SSN_LABEL.search(lowered)):
        yield "ssn"
    elif _LABELLED.search(lowered) or (digits >= 10 and (_is_nhs(value) or _is_iban(value))):
        yield "number"
    elif digits >= 6 and _is_phone(lowered, digits):
        yield "phone"
    elif _GLUED.search(lowered) or (
        digits >= 6 and not dated and _DIGITS.search(value) and _DIGITS.search(_bare(lowered))
    ):
        yield "digits"


def _bare(value: str) -> str:
    """Take out of a text what has many digits and tells of nobody."""
    return _NO_DIGITS.sub(" ", _HASH.sub(" ", _UUID.sub(" ", value)))


def _is_phone(value: str, digits: int) -> bool:
    if digits >= 8 and any(8 <= sum(map(str.isdigit, found[0])) <= 16 for found in _PHONE.finditer(value)):
        return True
    if digits >= 9 and any(9 <= sum(map(str.isdigit, found[0])) <= 12 for found in _PHONE_ZERO.finditer(value)):
        return True
    return _PHONE_LABEL.search(value) is not None


def _is_nhs(value: str) -> bool:
    """Return whether ten digits in threes and four have the check digit of an NHS number."""
    for found in _TEN.finditer(value):
        digits = [int(digit) for digit in found[1] + found[3] + found[4]]
        total = sum(weight * digit for weight, digit in zip(range(10, 1, -1), digits, strict=False))
        if (11 - total % 11) % 11 == digits[9]:
            return True
    return False


def _is_iban(value: str) -> bool:
    for found in _IBAN.finditer(value):
        text = found[0].replace(" ", "")
        if int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1:
            return True
    return False


def without_emails(value: str) -> str:
    """Take e-mail addresses out of a text."""
    return _EMAIL.sub(" ", value)


def is_hash(value: str) -> bool:
    """Return whether a value is nothing but a hash or a UUID."""
    return (_HASH.fullmatch(value) is not None and not _is_iban(value)) or _UUID.fullmatch(value) is not None
