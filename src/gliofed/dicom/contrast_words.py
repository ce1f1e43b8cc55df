"""Contrast by the words of a scanner's texts, in fourteen languages.

English, German, French, Spanish, Portuguese, Italian, Dutch, Polish, Czech, Turkish, Russian,
Chinese, Japanese and Korean. A text is searched for four forms, in this order: both states named
together ("pre and post"), a negation or a time before the agent ("ohne KM", "przed kontrastem"),
a sign ("C-", "造影(-)"), and the agent itself. Sources: the terms of the RSNA RadLex playbook and
of the vendors' protocol trees; abbreviations of agents as in DICOM PS3.16 CID 12 and 3.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_DASHES: Final = dict.fromkeys(map(ord, "‐‑‒–—−－"), "-")
_LETTERS: Final = {ord("ı"): "i", ord("ł"): "l", ord("ø"): "o"}


def plain_text(text: str) -> str:
    """Lower case without accents; full-width signs and every kind of dash as in ASCII."""
    parts = unicodedata.normalize("NFKD", text.casefold().translate(_DASHES))
    kept = "".join(c for c in parts if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", kept).translate(_LETTERS)


_SEP: Final = r"[\s_.:'()\[\]/-]{0,3}"
_OF: Final = (
    rf"(?:(?:of|the|any|iv|i|v|de|du|di|del|della|la|le|l|el|da|do|der|dem|den|an|podani\w*|podanim|"
    rf"administra\w*|gabe|введени\w*|inj\w*){_SEP}){{0,3}}"
)
_END: Final = r"(?![^\W\d_])"
_START: Final = r"(?<![^\W\d_])"
_AGENT: Final = (
    r"(?:contrast\w*|kontras\w*|контраст\w*|m\.?d\.?c|km|gd(?:[ _-]?dtpa)?|gad\w*|ce|civ|pdc|"
    r"ilac\w*|inj\w*|"
    r"magnevist|dotarem|dotagraf|dotavision|prohance|clariscan|multihance|omniscan|optimark|magnograf|"
    r"artirem|vueway|elucirem|cyclolux|pixxoscan|primovist|enhance\w*|enh|к/?у|кв)"
)
"""Words that mean contrast wherever they stand."""
_SHORT: Final = r"(?:c|cm|con|k|k\.?l|iv)"
"""Letters that mean contrast only after a preposition or beside a sign."""
_NAMED: Final = rf"(?:{_AGENT}|{_SHORT}){_END}"
_WITHOUT: Final = (
    r"(?:no|non|not|none|nil|without|w/?o|wout|ohne|kein\w*|sans|sin|sem|senza|zonder|geen|"
    r"bez|без|нет)"
)
_WITH: Final = r"(?:with|w|mit|avec|con|com|met|z|s|с)"
_NOT_OF_CONTRAST: Final = (
    r"(?![ _-]?(?:op|surg|chir|rt|rx|tx|radi|treat|ther|biops|resec|chemo|proc|scan|sat|pulse|iop|"
    r"craniot))"
)
_PRE: Final = rf"pre{_NOT_OF_CONTRAST}"
_POST: Final = rf"post{_NOT_OF_CONTRAST}"
_BEFORE: Final = rf"(?:{_PRE}|before|prior to|vor|avant|antes|prima|voor|przed|pred|до|перед)"
_AFTER: Final = r"(?:post|after|nach|apres|despues|depois|apos|dopo|na|po|pos|после|пост)"
_AND: Final = r"[\s_.+&/,-]*(?:(?:und|and|et|y|e|ed|i|en|a|ve|и)(?![^\W\d_]))?[\s_.+&/,-]*"

_BOTH: Final = re.compile(
    rf"{_START}(?:{_BEFORE}{_AND}{_AFTER}|{_AFTER}{_AND}{_BEFORE}"
    rf"|{_WITH}{_AND}{_WITHOUT}|{_WITHOUT}{_AND}{_WITH}){_END}"
    + plain_text(r"|前[后後]|전\s?후")
    + r"|oncesi[\W_]+(?:ve[\W_]+)?sonrasi"
)
_NO: Final = re.compile(
    "|".join((
        rf"{_START}(?:{_WITHOUT}|{_BEFORE}){_SEP}{_OF}{_NAMED}",
        rf"{_START}(?:[vo][ .]{{0,2}}km|s[ ./]{{0,2}}(?:contrast[eo]|m\.?d\.?c|civ|gd|"
        rf"gad\w*)|s/c){_END}",
        rf"{_START}(?:{_AGENT})(?:{_SEP}(?:siz|suz|oncesi|verilmeden|yok|frei|free)|"
        rf"\s?[:=]\s?{_WITHOUT}|\s?{_WITHOUT}\s*$){_END}",
        rf"{_START}(?:kontrast|ilac)(?:siz|suz){_END}|{_START}(?:bez|бес|до)(?:kontrast|контраст)\w*",
        rf"{_START}{_WITHOUT}[)\]]?\s*$",
        rf"{_START}(?:nativ\w*|nat|natywn\w*|basal\w*|plain|unenhanced|blanco?|bianco|avant|нативн\w*|"
        rf"{_PRE}){_END}",
        rf"{_START}(?:{_AGENT}|cm?|k)(?:-(?![^\W_])|\s?\(\s?-\s?\)|\s-\s*$)",
        rf"(?:^|[\s_(\[,;|])-(?:{_AGENT}|cm?|k){_END}|\(\s?-\s?\)\s?(?:{_AGENT}|cm?|k){_END}",
        plain_text(
            r"平[扫掃]|[无無无未不非没沒]\s?(?:增[强強]|[对對]比|造影|[强強]化|[显顯]影)"
            r"|(?:增[强強]|造影剤?|[对對]比[剂劑]?|[强強]化|[显顯]影|注射|注[药藥])\s?(?:前|なし|ナシ|無し|無|无|-|\(-\))"
            r"|単純|單純|单纯|(?:비\s?조영|조영(?:제|증강)?\s?(?:전|없이|없음|안함|미사용|-|\(-\)))(?:\s?증강)?"
        ),
    ))
)  # fmt: skip
_YES: Final = re.compile(
    "|".join((
        rf"{_START}(?:[nm][ .]{{0,2}}km|{_AGENT}){_END}",
        rf"{_START}(?:{_AFTER}|{_WITH}){_SEP}{_OF}{_NAMED}",
        rf"{_START}(?:{_POST}|apres|spgrc|c{_SEP}mdc){_END}",
        rf"{_START}t1w?[ _]?c(?!\s?-){_END}",
        rf"\+\s?(?:{_AGENT}|cm?|k|kl){_END}|{_START}(?:{_AGENT}|cm?|k)\s?\(?\+",
        plain_text(r"增[强強]|[强強]化|[显顯]影|(?<!血管)造影|조영"),
    ))
)  # fmt: skip
_UNKNOWN_AGENT: Final = re.compile(
    r"unknown|unbekannt|inconnue?|desconocido|desconhecido|sconosciuto|onbekend|nieznan\w*|неизвестн\w*|"
    + plain_text(r"未知|不明|미상|[?\s.]*")
)
_NO_AGENT: Final = re.compile(
    r"none|no|n|n/?a|non|nil|null|false|0+([.,]0+)?( ?ml)?|-+|nein|kein\w*( .*)?|not? .*|without.*|"
    r"ohne.*|sans.*|aucun\w*( .*)?|sin .*|ningun\w*( .*)?|sem .*|nenhum\w*( .*)?|nao|senza.*|"
    r"nessun\w*( .*)?|zonder.*|geen( .*)?|nee|bez.*|brak( .*)?|zadn\w*( .*)?|nie|ne|yok|hayir|"
    + plain_text(r"нет|без.*|не .*|[无無没沒].*|なし|ナシ|없음|없이|무|아니오")
)


def contrast_in_text(text: str) -> bool | None:
    """Whether a description states contrast (True) or no contrast (False).

    None where it states neither, or both.
    """
    lowered = plain_text(text)
    if _BOTH.search(lowered):
        return None
    rest = _NO.sub(" ", lowered)
    no, yes = rest != lowered, _YES.search(rest) is not None
    return None if no == yes else yes


def agent_in_text(text: str) -> bool | None:
    """Whether the text of an agent field names an agent; None where it is empty or unknown."""
    lowered = plain_text(text).strip()
    if _UNKNOWN_AGENT.fullmatch(lowered):
        return None
    return not _NO_AGENT.fullmatch(lowered) and contrast_in_text(text) is not False
